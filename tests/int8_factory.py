"""A tiny backbone with int8 weights, as exported, and its int8 forms that refer to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.quantization.references import refer_to

_SIDE, _MAP_SCALE = 5, 0.15


def write_int8_graphs(
    backbone: Path,
    backbone_int8: Path,
    symmetric: Path,
    rng: np.random.Generator,
    size: int,
    n_deep: int,
) -> None:
    """``backbone.onnx`` with Cast and Mul behind its weight, and its two QDQ graphs."""
    weight = rng.normal(size=(n_deep, 1, _SIDE, _SIDE)).astype(np.float32)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    quantized = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
    tail = [
        helper.make_node("GlobalAveragePool", ["feature_map"], ["p"]),
        helper.make_node("Flatten", ["p"], ["deep_features"]),
    ]
    constants = {"w.int8": quantized, "w.scale": scale[:, None, None, None]}
    nodes = [
        helper.make_node("Cast", ["w.int8"], ["w.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["w.float", "w.scale"], ["w"]),
        helper.make_node("Conv", ["image", "w"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["feature_map"]),
        *tail,
    ]
    onnx.save(_model(nodes, constants, size, n_deep), backbone)
    for path, zero in ((backbone_int8, np.uint8(0)), (symmetric, np.int8(0))):
        top = np.iinfo(zero.dtype).max
        constants = {
            "w.int8": quantized,
            "w.scale": scale,
            "w.zero": np.zeros(n_deep, np.int8),
            "image.scale": np.array(1 / top, np.float32),
            "map.scale": np.array(_MAP_SCALE * 255 / top, np.float32),
            "zero": np.array(zero),
        }
        graph = _model([*_rounded(), *tail], constants, size, n_deep)
        found = refer_to(graph, "backbone.onnx", backbone.read_bytes(), min_bytes=1)
        assert found >= weight.size
        onnx.save(graph, path)


def _rounded() -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", ["image", "image.scale", "zero"], ["image.q"]),
        helper.make_node("DequantizeLinear", ["image.q", "image.scale", "zero"], ["image.dq"]),
        helper.make_node("DequantizeLinear", ["w.int8", "w.scale", "w.zero"], ["w"], axis=0),
        helper.make_node("Conv", ["image.dq", "w"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "map.scale", "zero"], ["r.q"]),
        helper.make_node("DequantizeLinear", ["r.q", "map.scale", "zero"], ["feature_map"]),
    ]


def _model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], size: int, n_deep: int
) -> onnx.ModelProto:
    grid = (size - _SIDE) // 4 + 1
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, size, size])
    outputs = [
        helper.make_tensor_value_info("deep_features", TensorProto.FLOAT, ["batch", n_deep]),
        helper.make_tensor_value_info(
            "feature_map", TensorProto.FLOAT, ["batch", n_deep, grid, grid]
        ),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "backbone", [image], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
