"""A tiny but complete bundle: random weights, real graph contract, milliseconds to run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ildsdk.bundle import Bundle, StoredPrecision, write_bundle
from ildsdk.bundle.layout import bundle_hash
from ildsdk.radiomics.names import FEATURE_NAMES
from ildsdk.radiomics.scaler import FeatureScaler
from ildsdk.settings import MethodSettings
from tests.int8_factory import write_int8_graphs

N_DEEP = 8
EMBEDDING_SIZE = 16
INPUT_SIZE = 64
GRID = 15  # places of the feature map along one side


def write_tiny_bundle(
    folder: Path,
    *,
    seed: int = 0,
    name: str = "tiny",
    with_maps: bool = False,
    with_int8: bool = False,
    with_symmetric: bool = False,
    default_precision: StoredPrecision = "fp32",
    model_card: str | None = None,
    radiomics_scale: float = 1e3,
) -> Bundle:
    parts = folder.with_name(folder.name + "-parts")
    parts.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    if with_int8:
        write_int8_graphs(
            parts / "backbone.onnx", parts / "backbone-int8.onnx",
            parts / "backbone-int8-symmetric.onnx", rng, INPUT_SIZE, N_DEEP,
        )  # fmt: skip
    else:
        _write_backbone(parts / "backbone.onnx", rng)
    agreement: dict[str, object] = {"measured_by": "tests"}
    if with_symmetric:
        agreement["symmetric"] = {"measured_by": "tests"}
    weights = write_fusion(parts / "fusion.onnx", rng)
    if with_maps:
        write_explain(parts / "explain.onnx", weights)
    return write_bundle(
        folder,
        name=name,
        method=MethodSettings(input_size=INPUT_SIZE),
        backbone=parts / "backbone.onnx",
        fusion=parts / "fusion.onnx",
        scaler=FeatureScaler(
            np.zeros(len(FEATURE_NAMES)), np.full(len(FEATURE_NAMES), radiomics_scale)
        ),
        labels=("A", "B"),
        embedding_size=EMBEDDING_SIZE,
        gem_p=3.0,
        is_synthetic=True,
        provenance={"made_by": "tests"},
        figures={},
        license="Apache-2.0",
        intended_use="tests",
        backbone_int8=parts / "backbone-int8.onnx" if with_int8 else None,
        backbone_int8_symmetric=(
            parts / "backbone-int8-symmetric.onnx" if with_symmetric else None
        ),
        default_precision=default_precision,
        int8_agreement=agreement if with_int8 else None,
        explain=parts / "explain.onnx" if with_maps else None,
        model_card=model_card,
    )


def edit_manifest(folder: Path, **changes: object) -> None:
    """Change keys of a bundle's manifest, the SHA-256 of files not among them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.update(changes)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put other bytes into a bundle, with the checksum that a forger would write."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    manifest["bundle_hash"] = bundle_hash(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _weights(name: str, rng: np.random.Generator, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)


def _write_backbone(path: Path, rng: np.random.Generator) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], strides=[4, 4]),
            helper.make_node("Relu", ["c"], ["feature_map"]),
            helper.make_node("GlobalAveragePool", ["feature_map"], ["p"]),
            helper.make_node("Flatten", ["p"], ["deep_features"]),
        ],
        "backbone",
        [
            helper.make_tensor_value_info(
                "image", TensorProto.FLOAT, ["batch", 1, INPUT_SIZE, INPUT_SIZE]
            )
        ],
        [
            helper.make_tensor_value_info("deep_features", TensorProto.FLOAT, ["batch", N_DEEP]),
            helper.make_tensor_value_info(
                "feature_map", TensorProto.FLOAT, ["batch", N_DEEP, GRID, GRID]
            ),
        ],
        [_weights("w", rng, N_DEEP, 1, 5, 5)],
    )
    _save(graph, path)


def write_fusion(path: Path, rng: np.random.Generator) -> onnx.TensorProto:
    n_features = len(FEATURE_NAMES)
    weights = _weights("w", rng, N_DEEP + n_features, EMBEDDING_SIZE)
    graph = helper.make_graph(
        [
            helper.make_node("Concat", ["deep_features", "radiomics"], ["x"], axis=1),
            helper.make_node("MatMul", ["x", "w"], ["f"]),
            helper.make_node("LpNormalization", ["f"], ["embedding"], axis=1, p=2),
        ],
        "fusion",
        [
            helper.make_tensor_value_info("deep_features", TensorProto.FLOAT, ["batch", N_DEEP]),
            helper.make_tensor_value_info("radiomics", TensorProto.FLOAT, ["batch", n_features]),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", EMBEDDING_SIZE])],
        [weights],
    )
    _save(graph, path)
    return weights


def write_explain(path: Path, weights: onnx.TensorProto) -> None:
    """Location vectors of the two graphs above: mean pooling, a linear map, unit norm.

    A place's part of the deep features is its activation over the number of places; the embedding
    moves by the part of it, seen through the weights, that is across the embedding.
    """
    n_features = len(FEATURE_NAMES)
    constants = {
        "flat": np.array([0, N_DEEP, -1], np.int64),
        "first": np.array([0], np.int64),
        "end": np.array([N_DEEP], np.int64),
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "n_places": np.array(GRID * GRID, np.float32),
    }
    nodes = [
        ("Slice", ["w", "first", "end", "first"], ["w_deep"], {}),
        ("Reshape", ["feature_map", "flat"], ["channels_first"], {}),
        ("Transpose", ["channels_first"], ["activation"], {"perm": [0, 2, 1]}),
        ("Div", ["activation", "n_places"], ["parts"], {}),
        ("MatMul", ["parts", "w_deep"], ["moves"], {}),
        ("ReduceSum", ["parts", "axis_1"], ["deep"], {"keepdims": 0}),
        ("Concat", ["deep", "radiomics"], ["x"], {"axis": 1}),
        ("MatMul", ["x", "w"], ["f"], {}),
        ("ReduceL2", ["f"], ["norm"], {"axes": [1], "keepdims": 1}),
        ("Div", ["f", "norm"], ["e_flat"], {}),
        ("Unsqueeze", ["e_flat", "axis_1"], ["e"], {}),
        ("Unsqueeze", ["norm", "axis_1"], ["norm_3"], {}),
        ("Mul", ["moves", "e"], ["products"], {}),
        ("ReduceSum", ["products", "axis_2"], ["along"], {"keepdims": 1}),
        ("Mul", ["along", "e"], ["shadow"], {}),
        ("Sub", ["moves", "shadow"], ["across"], {}),
        ("Div", ["across", "norm_3"], ["locations"], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, outputs, **more) for kind, inputs, outputs, more in nodes],
        "explain",
        [
            helper.make_tensor_value_info(
                "feature_map", TensorProto.FLOAT, ["batch", N_DEEP, GRID, GRID]
            ),
            helper.make_tensor_value_info("radiomics", TensorProto.FLOAT, ["batch", n_features]),
        ],
        [
            helper.make_tensor_value_info(
                "locations", TensorProto.FLOAT, ["batch", GRID * GRID, weights.dims[1]]
            )
        ],
        [weights, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    _save(graph, path)


def _save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
