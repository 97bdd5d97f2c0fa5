"""Biases that take out what rounding adds on average.

Much of a model input is one value, the outside of the lungs, and rounding moves the same
value the same way everywhere: not noise that averages out but a shift, which pooling keeps. So
the mean of each channel is compared with float32, and the bias takes the difference (Nagel et
al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.2,
here with calibration data).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.quantization.embedding import open_graph
from export.quantization.qdq import Range, Step, exact_output, steps_of, to_qdq

_N_ROUNDS = 2  # convolutions of one block follow each other, so the first round is not exact


def correct_biases(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    float_steps: Collection[str],
    images: Sequence[npt.NDArray[np.float32]],
    *,
    symmetric: bool = False,
    n_threads: int = 2,
) -> onnx.ModelProto:
    """Graph with the biases that its QDQ form should have; the argument is not changed.

    Blocks are corrected from the first to the last, each behind the corrected ones before it.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    biases = {tensor.name: tensor for tensor in result.graph.initializer}
    convolutions = [
        step
        for step in steps_of(model)
        if step.node.op_type == "Conv" and len(step.node.input) > 2 and step.name not in float_steps
    ]
    outputs = [step.node.output[0] for step in convolutions]
    expected = dict(zip(outputs, _means(model, outputs, images, n_threads), strict=True))
    for block in _blocks(convolutions):
        for _ in range(_N_ROUNDS):
            rounded = to_qdq(result, ranges, float_steps, symmetric=symmetric)
            names = [exact_output(step, symmetric=symmetric) for step in block]
            # ONNX Runtime 1.31.1 optimizes outputs away that stand before no rounding.
            means = _means(rounded, names, images, n_threads, optimized=not symmetric)
            for step, found in zip(block, means, strict=True):
                tensor = biases[step.node.input[2]]
                bias = numpy_helper.to_array(tensor) + expected[step.node.output[0]] - found
                tensor.CopyFrom(numpy_helper.from_array(bias.astype(np.float32), tensor.name))
    return result


def _blocks(convolutions: Sequence[Step]) -> list[list[Step]]:
    """Convolutions by the folder of their names, ``/layer1/layer1.0``, in order."""
    blocks: dict[str, list[Step]] = {}
    for step in convolutions:
        parts = step.name.split("/")
        blocks.setdefault("/".join(parts[:3]) if len(parts) > 3 else step.name, []).append(step)
    return list(blocks.values())


def _means(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    images: Sequence[npt.NDArray[np.float32]],
    n_threads: int,
    *,
    optimized: bool = True,
) -> list[npt.NDArray[np.float64]]:
    """Mean of each channel of these tensors, ``(n_channels,)`` each."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    # Nothing else is asked for, so the layers behind are not computed.
    del part.graph.output[:]
    part.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors
    )
    session = open_graph(part.SerializeToString(), n_threads, optimized=optimized)
    input_name = session.get_inputs()[0].name
    sums = [np.zeros(1)] * len(tensors)
    for image in images:
        values = session.run(list(tensors), {input_name: image})
        sums = [
            total + value.astype(np.float64).mean(axis=(0, 2, 3))
            for total, value in zip(sums, values, strict=True)
        ]
    return [total / len(images) for total in sums]
