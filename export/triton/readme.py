"""README of a repository: how to serve it, and what to send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.triton.configs import ENSEMBLE, TritonSettings

_TEMPLATE = Path(__file__).with_name("readme_template.md")


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
    return _TEMPLATE.read_text(encoding="utf-8").format(
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
