"""Weight-only int8 storage of an ONNX graph: a quarter of the file, the same kernels at run time.

Each large convolution or matrix weight is stored as int8 with one scale per output channel,
followed by ``Cast`` and ``Mul``. ONNX Runtime folds these constants when it opens the session, so
what runs is the plain float32 graph. (``DequantizeLinear`` it would keep, and choose integer
kernels for.)
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Smaller tensors are left alone: they weigh nothing, and biases are worth their precision.
_MIN_ELEMENTS = 4096


def compress_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a graph with Conv and Gemm weights stored as int8.

    Parameters
    ----------
    model : ModelProto
        float32 graph. Not changed.

    Returns
    -------
    ModelProto
        Weight ``w`` of output channel c becomes ``cast(q) * scale[c]`` with
        ``scale[c] = max|w[c]| / 127`` and q rounded to the nearest.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    output_axis: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            output_axis[node.input[1]] = 0
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i == 1 for a in node.attribute)
            output_axis[node.input[1]] = 0 if transposed else 1
    added: list[onnx.NodeProto] = []
    kept: list[TensorProto] = []
    for tensor in graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if (
            tensor.name not in output_axis
            or tensor.data_type != TensorProto.FLOAT
            or weight.size < _MIN_ELEMENTS
        ):
            kept.append(tensor)
            continue
        axis = output_axis[tensor.name]
        others = tuple(i for i in range(weight.ndim) if i != axis)
        scale = np.abs(weight).max(axis=others, keepdims=True) / 127
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        quantized = np.rint(weight / scale).astype(np.int8)
        int8_name, scale_name = f"{tensor.name}.int8", f"{tensor.name}.scale"
        kept += [
            numpy_helper.from_array(quantized, int8_name),
            numpy_helper.from_array(scale, scale_name),
        ]
        float_name = f"{tensor.name}.float"
        added += [
            helper.make_node("Cast", [int8_name], [float_name], to=TensorProto.FLOAT),
            helper.make_node("Mul", [float_name, scale_name], [tensor.name]),
        ]
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return result
