"""From a float32 graph with stored int8 weights to its QDQ form for integer kernels.

The integers and scales of the weights are those the float32 graph stores, so that the two
files can share them; ``onnxruntime.quantization`` would derive its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ildsdk.errors import ModelError

Range = tuple[float, float]
_LEVELS = 255
_SIGNED_LEVELS = 127
_INT32_MAX = 2**31 - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One operator that integer kernels can take over, with the ReLU behind it.

    Attributes
    ----------
    name : str
        Name of its node, or of its output where the node has none.
    node : NodeProto
    relu : NodeProto or None
        ReLU that is the only reader of its output.
    """

    name: str
    node: onnx.NodeProto
    relu: onnx.NodeProto | None

    @property
    def output(self) -> str:
        """Tensor behind the step, and behind its ReLU."""
        return str((self.relu or self.node).output[0])

    @property
    def inputs(self) -> tuple[str, ...]:
        """Activations that it reads."""
        return tuple(self.node.input if self.node.op_type == "Add" else self.node.input[:1])


def steps_of(model: onnx.ModelProto, *, symmetric: bool = False) -> list[Step]:
    """Convolutions, additions of two activations and max-pooling, in order.

    Of the symmetric form (:func:`to_qdq`) convolutions alone.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    steps = []
    for node in model.graph.node:
        if node.op_type not in (("Conv",) if symmetric else ("Conv", "Add", "MaxPool")) or (
            node.op_type == "Add" and constants & set(node.input)
        ):
            continue
        behind = readers.get(node.output[0], [])
        alone = len(behind) == 1 and behind[0].op_type == "Relu" and node.output[0] not in outputs
        steps.append(Step(node.name or node.output[0], node, behind[0] if alone else None))
    return steps


def tensors_of(steps: Collection[Step]) -> tuple[str, ...]:
    """Activations whose ranges the steps need, each once, in order."""
    return tuple(dict.fromkeys(name for step in steps for name in (*step.inputs, step.output)))


def exact_output(step: Step, *, symmetric: bool = False) -> str:
    """Tensor behind an integer step in a QDQ form, before ReLU and rounding."""
    return str(step.node.output[0]) if symmetric else f"{step.output}.exact"


def scale_and_zero(limits: Range) -> tuple[np.float32, np.uint8]:
    """Uint8 scale and zero point that represent a range; 0 is a level of its own."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = np.float32((high - low) / _LEVELS if high > low else 1.0)
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, _LEVELS))


def symmetric_scale(limits: Range) -> np.float32:
    """Int8 scale that represents a range with zero point 0: the larger side is level 127."""
    largest = max(abs(limits[0]), abs(limits[1]))
    return np.float32(largest / _SIGNED_LEVELS if largest > 0 else 1.0)


def to_qdq(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    float_steps: Collection[str] = (),
    *,
    symmetric: bool = False,
) -> onnx.ModelProto:
    """QDQ form of a graph whose weights are stored as int8 with Cast and Mul.

    Parameters
    ----------
    model : ModelProto
        As :func:`export.compress.compress_weights` makes it. Not changed.
    ranges : mapping
        Activation (:func:`tensors_of`) to lowest and highest value to represent.
    float_steps : collection of str
        Names of steps that stay in float32.
    symmetric : bool
        False: uint8 activations with zero points, int32 biases, for integer kernels of CPUs. True:
        int8 activations with zero point 0 and float32 biases, which is all that TensorRT's ONNX
        parser takes; only what convolutions read is rounded.

    Raises
    ------
    ModelError
        A bias does not fit 32 bits at the scale of its products.

    Notes
    -----
    A ReLU behind an integer step goes away where activations are uint8: the range begins at 0, so
    rounding does its work. Signed integers keep it. There, sums of residual blocks stay in float:
    with half the levels for what is never negative, rounding them block after block costs too much,
    and TensorRT adds them behind a convolution at no cost of its own.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return _Writer(result, ranges, frozenset(float_steps), symmetric).write()


class _Writer:
    def __init__(
        self,
        model: onnx.ModelProto,
        ranges: Mapping[str, Range],
        float_steps: frozenset[str],
        symmetric: bool,
    ) -> None:
        self.model, self.ranges, self.symmetric = model, ranges, symmetric
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer = {name: node for node in model.graph.node for name in node.output}
        found = steps_of(model, symmetric=symmetric)
        steps = [step for step in found if step.name not in float_steps]
        self.steps = {step.node.output[0]: step for step in steps}
        self.outputs = set() if symmetric else {step.output for step in steps}
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.rounded: dict[str, str] = {}

    def write(self) -> onnx.ModelProto:
        graph = self.model.graph
        dropped = {step.output for step in self.steps.values() if step.relu}
        if self.symmetric:
            dropped.clear()
        for node in list(graph.node):
            if node.output[0] in self.steps:
                self._integer(self.steps[node.output[0]])
            elif node.output[0] not in dropped:
                self.nodes.append(node)
        kept = list(_needed(self.nodes, {value.name for value in graph.output}))
        used = {name for node in kept for name in node.input}
        constants = {**self.constants, **self.added}
        tensors = [tensor for name, tensor in constants.items() if name in used]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(kept)
        graph.initializer.extend(tensors)
        return self.model

    def _integer(self, step: Step) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(step.node)
        for place, name in enumerate(step.inputs):
            node.input[place] = self._rounded(name)
        if node.op_type == "Conv":
            self._quantize_weights(node, step.inputs[0])
        node.output[0] = exact_output(step, symmetric=self.symmetric)
        self.nodes.append(node)
        if self.symmetric:
            return
        # MaxPool chooses among levels: the scale of its input fits, and no other is as exact.
        scale_of = step.inputs[0] if node.op_type == "MaxPool" else step.output
        self._pair(node.output[0], step.output, scale_of)

    def _rounded(self, name: str) -> str:
        """Name of an activation rounded; of an integer step's output that is its own."""
        if name in self.outputs:
            return name
        if name not in self.rounded:
            self.rounded[name] = f"{name}.rounded"
            self._pair(name, self.rounded[name], name)
        return self.rounded[name]

    def _pair(self, source: str, target: str, scale_of: str) -> None:
        scale, zero = self._scale_and_zero(scale_of)
        names = [
            self._constant(f"{target}.scale", np.array(scale)),
            self._constant(f"{target}.zero", np.array(zero)),
        ]
        integers = f"{target}.{zero.dtype}"
        self.nodes += [
            helper.make_node("QuantizeLinear", [source, *names], [integers]),
            helper.make_node("DequantizeLinear", [integers, *names], [target]),
        ]

    def _scale_and_zero(self, name: str) -> tuple[np.float32, np.uint8 | np.int8]:
        step = self.steps.get(name)
        if step is not None and step.node.op_type == "MaxPool":
            return self._scale_and_zero(step.inputs[0])
        if self.symmetric:
            return symmetric_scale(self.ranges[name]), np.int8(0)
        return scale_and_zero(self.ranges[name])

    def _quantize_weights(self, node: onnx.NodeProto, image: str) -> None:
        name = node.input[1]
        integers, scale = self._stored_weights(name)
        node.input[1] = f"{name}.weights"
        operands = [
            integers,
            self._constant(f"{name}.channel_scale", scale),
            # Never shared: without VNNI, ONNX Runtime replaces weights and zero points by uint8
            # ones, and fails (1.31.1) where it meets a zero point again.
            self._constant(f"{name}.channel_zero", np.zeros(len(scale), np.int8)),
        ]
        self.nodes.append(helper.make_node("DequantizeLinear", operands, [node.input[1]], axis=0))
        if len(node.input) > 2 and not self.symmetric:
            bias = numpy_helper.to_array(self.constants[node.input[2]]).astype(np.float64)
            products = self._scale_and_zero(image)[0] * scale
            rounded = np.rint(bias / products)
            if not (np.abs(rounded) <= _INT32_MAX).all():
                raise ModelError(
                    f"bias of {node.name} is {np.abs(rounded).max():.3g} steps of its products' "
                    f"scale, {_INT32_MAX} at most; leave this convolution in float"
                )
            operands = [
                self._constant(f"{node.input[2]}.int32", rounded.astype(np.int32)),
                self._constant(f"{node.input[2]}.scale", products),
            ]
            node.input[2] = f"{node.input[2]}.bias"
            self.nodes.append(
                helper.make_node("DequantizeLinear", operands, [node.input[2]], axis=0)
            )

    def _stored_weights(self, name: str) -> tuple[str, npt.NDArray[np.float32]]:
        """Name of the int8 weights and their float32 scales ``(n_channels,)``."""
        if name in self.constants:  # too small to have been stored as int8
            weight = numpy_helper.to_array(self.constants[name])
            scale = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
            scale = np.where(scale > 0, scale, 1).astype(np.float32)
            integers = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
            return self._constant(f"{name}.int8", integers.astype(np.int8)), scale
        product = self.producer[name]
        integers = self.producer[product.input[0]].input[0]
        scale = numpy_helper.to_array(self.constants[product.input[1]]).reshape(-1)
        return integers, np.asarray(scale, np.float32)

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.added.setdefault(name, numpy_helper.from_array(value, name))
        return name


def _needed(nodes: list[onnx.NodeProto], outputs: set[str]) -> Iterator[onnx.NodeProto]:
    """Nodes that the outputs depend on, in order."""
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return reversed(kept)


def count_integer_steps(model: onnx.ModelProto) -> dict[str, int]:
    """Number of convolutions by what their weights are read through: integer or float."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    integer = sum(made_by.get(node.input[1]) == "DequantizeLinear" for node in convolutions)
    return {"int8": integer, "float32": len(convolutions) - integer}
