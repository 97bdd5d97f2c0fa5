"""README of a repository: how to serve it, and what to send."""

from __future__ import annotations

from typing import Any

from export.triton.configs import ENSEMBLE, TritonSettings

_TEXT = """# {name} for NVIDIA Triton Inference Server

Written by {created_with} from bundle `{name}`, {hash}. {synthetic}Research use only; not for diagnosis.
No server has run this repository at our place yet: its configurations are parsed with Triton's own schema and
compared with the graphs, no more.

    tritonserver --model-repository="$PWD/models"                                     # CUDA, float32
    tritonserver --model-repository="$PWD/models" --model-config-name=tensorrt-fp16   # TensorRT; tensorrt-fp32 too
    tritonserver --model-repository="$PWD/models" --model-config-name=cpu             # without a GPU
{int8}
`{ensemble}` takes one slice or a batch (up to {max_batch} are put together, a request waits {delay} us for others):

| tensor | type and shape | what |
| --- | --- | --- |
| `image` | FP32 (n, {image}) | lung window {center:g} / {width:g} HU, cropped to the lungs and resampled: `ildsdk.model_input.model_input` |
| `radiomics` | FP32 (n, {n_features}) | **standardised** features in the order of `feature_names` in `model.json` |
| `embedding` (answer) | FP32 (n, {embedding}) | unit norm; search it in an index built with this bundle |

Standardised means `clip((value - mean) / scale, -clip, clip)` in float64 and then rounded to float32, with `mean`, `scale` and `clip`
of `scaler` in `model.json`; raw features give an answer too, and a wrong one. Mask, features and image of a slice
come from the SDK:

```python
from ildsdk import Bundle
from ildsdk.lung import segment_lung
from ildsdk.model_input import model_input
from ildsdk.radiomics import RadiomicsExtractor

bundle = Bundle.open("my-bundle")  # the one this was written from
mask = segment_lung(pixels_hu, pixel_spacing_mm).lung_mask
features = RadiomicsExtractor().extract(pixels_hu, mask, pixel_spacing_mm).values
image = model_input(pixels_hu, pixel_spacing_mm, mask, bundle.method)[None]
radiomics = bundle.scaler.transform(features)[None]
```

TensorRT builds its engines when the server first starts, which takes minutes, and keeps them in `{engines}` on the
server. Engines are executed: nobody but the server's account may write that folder, and it must be emptied when
driver, TensorRT, GPU or model change.
"""


def readme(facts: dict[str, Any], settings: TritonSettings, with_int8: bool) -> str:
    """Text of the README.

    Parameters
    ----------
    facts : dict
        Contents of ``model.json``.
    settings : TritonSettings
    with_int8 : bool
    """
    int8 = (
        '    tritonserver --model-repository="$PWD/models" --model-config-name=cpu-int8'
        "        # 8 bits; needs a CPU with VNNI\n"
    )
    return _TEXT.format(
        name=facts["name"],
        created_with=facts["created_with"],
        hash=facts["bundle_hash"][:12],
        synthetic="Trained on SYNTHETIC (phantom) CT. " if facts["is_synthetic"] else "",
        int8=int8 if with_int8 else "",
        ensemble=ENSEMBLE,
        max_batch=settings.max_batch_size,
        delay=settings.queue_delay_us,
        image=", ".join(map(str, facts["inputs"]["image"][1:])),
        center=facts["window_center_hu"],
        width=facts["window_width_hu"],
        n_features=len(facts["feature_names"]),
        embedding=facts["outputs"]["embedding"][1],
        engines=settings.engine_folder,
    )
