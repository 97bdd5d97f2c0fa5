"""A tiny but complete bundle: random weights, real graph contract, milliseconds to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ildsdk.bundle import Bundle, write_bundle
from ildsdk.radiomics.names import FEATURE_NAMES
from ildsdk.radiomics.scaler import FeatureScaler
from ildsdk.settings import MethodSettings

N_DEEP = 8
EMBEDDING_SIZE = 16
INPUT_SIZE = 64


def write_tiny_bundle(folder: Path, *, seed: int = 0, name: str = "tiny") -> Bundle:
    parts = folder.with_name(folder.name + "-parts")
    parts.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    _write_backbone(parts / "backbone.onnx", rng)
    _write_fusion(parts / "fusion.onnx", rng)
    return write_bundle(
        folder,
        name=name,
        method=MethodSettings(input_size=INPUT_SIZE),
        backbone=parts / "backbone.onnx",
        fusion=parts / "fusion.onnx",
        scaler=FeatureScaler(np.zeros(len(FEATURE_NAMES)), np.full(len(FEATURE_NAMES), 1e3)),
        labels=("A", "B"),
        embedding_size=EMBEDDING_SIZE,
        gem_p=3.0,
        is_synthetic=True,
        provenance={"made_by": "tests"},
        figures={},
        license="Apache-2.0",
        intended_use="tests",
    )


def _weights(name: str, rng: np.random.Generator, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)


def _write_backbone(path: Path, rng: np.random.Generator) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], strides=[4, 4]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["deep_features"]),
        ],
        "backbone",
        [
            helper.make_tensor_value_info(
                "image", TensorProto.FLOAT, ["batch", 1, INPUT_SIZE, INPUT_SIZE]
            )
        ],
        [helper.make_tensor_value_info("deep_features", TensorProto.FLOAT, ["batch", N_DEEP])],
        [_weights("w", rng, N_DEEP, 1, 5, 5)],
    )
    _save(graph, path)


def _write_fusion(path: Path, rng: np.random.Generator) -> None:
    n_features = len(FEATURE_NAMES)
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
        [_weights("w", rng, N_DEEP + n_features, EMBEDDING_SIZE)],
    )
    _save(graph, path)


def _save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
