"""Files of the reference stack: the weights, settings and vectors of ours, in the usual formats.

A folder of ``weights.safetensors`` (float32 state dicts), ``settings.json``, ``index.faiss`` and
``items.json``. The weights come out of the bundle's ONNX files, so that a checkout is enough and
both sides have the same numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

from benchmarks.reference_stack import INDEX_NAME, ITEMS_NAME, SETTINGS_NAME, WEIGHTS_NAME
from ildsdk.bundle import Bundle
from ildsdk.index import Index
from ildsdk.radiomics import RadiomicsSettings

Float32 = npt.NDArray[np.float32]


def onnx_weights(path: Path) -> dict[str, Float32]:
    """Float32 weights of one of our ONNX files by their torch names.

    Weights stored as int8 (:mod:`export.compress`) are multiplied with their scales, as the
    graph does when it is opened.
    """
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {}
    for name, values in stored.items():
        if name.endswith(".int8"):
            whole = name.removesuffix(".int8")
            values = values.astype(np.float32) * stored[f"{whole}.scale"]
            weights[whole.removeprefix("model.")] = values
        elif name.startswith("model.") and not name.endswith(".scale"):
            weights[name.removeprefix("model.")] = values
    for node in graph.node:  # the mean that the grey input is centered by, a nameless constant
        if node.op_type == "Sub" and node.input[0] == "image":
            weights["mean"] = stored[node.input[1]]
    return {name: np.ascontiguousarray(values) for name, values in weights.items()}


def write_reference_files(folder: Path, bundle: Bundle, index: Index) -> None:
    """Write what :meth:`benchmarks.reference_stack.ReferenceStack.open` reads.

    Parameters
    ----------
    folder : Path
        Made if missing.
    bundle, index
        Ours; all items of the index are taken in row order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backbone, fusion = onnx_weights(bundle.backbone), onnx_weights(bundle.fusion)
    both = {f"backbone.{name}": values for name, values in backbone.items()}
    both.update({f"fusion.{name}": values for name, values in fusion.items()})
    save_file(both, folder / WEIGHTS_NAME)
    settings = {
        "input_size": bundle.method.input_size,
        "window_center_hu": bundle.method.window_center_hu,
        "window_width_hu": bundle.method.window_width_hu,
        "crop_margin": bundle.method.crop_margin,
        "gem_p": bundle.gem_p,
        "n_deep": backbone["layer4.2.conv3.weight"].shape[0],
        "embedding_size": bundle.embedding_size,
        "feature_names": list(bundle.feature_names),
        "scaler": bundle.scaler.to_dict(),
        "pyradiomics": RadiomicsSettings().to_pyradiomics(),
    }
    (folder / SETTINGS_NAME).write_text(json.dumps(settings))
    flat = faiss.IndexFlatIP(bundle.embedding_size)
    flat.add(np.ascontiguousarray(index.embeddings(), dtype=np.float32))
    faiss.write_index(flat, str(folder / INDEX_NAME))
    items = [[item.item_id, item.case_id, item.label] for item in index.items(range(len(index)))]
    (folder / ITEMS_NAME).write_text(json.dumps(items))
