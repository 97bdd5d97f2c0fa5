"""Inputs and outputs of an ONNX file, as Triton's configurations describe them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx

from export.triton.pbtxt import Enum, Message
from ildsdk.errors import ModelError

_TYPES = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.INT64: "TYPE_INT64",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a network that takes batches.

    Attributes
    ----------
    name : str
    data_type : str
        Triton's name, for example ``"TYPE_FP32"``.
    dims : tuple of int
        Axes behind the batch axis.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]

    def config(self) -> Message:
        """Entry of ``input`` or ``output`` of a configuration."""
        return {"name": self.name, "data_type": Enum(self.data_type), "dims": list(self.dims)}


@dataclasses.dataclass(frozen=True, slots=True)
class Graph:
    """What of an ONNX file a configuration depends on.

    Attributes
    ----------
    inputs, outputs : dict of str to Tensor
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Read a file; its weights are not looked at.

        Raises
        ------
        ModelError
            It is no ONNX file, has a type Triton does not know, or an axis beside the first
            one is free or the first one is not.
        """
        try:
            graph = onnx.load(path, load_external_data=False).graph
        except Exception as error:  # protobuf's own exception classes
            raise ModelError(f"{path.name} is not an ONNX file: {type(error).__name__}") from error
        return cls(
            inputs={value.name: _tensor(path, value) for value in graph.input},
            outputs={value.name: _tensor(path, value) for value in graph.output},
        )


def _tensor(path: Path, value: onnx.ValueInfoProto) -> Tensor:
    tensor = value.type.tensor_type
    first, *others = tensor.shape.dim
    data_type = _TYPES.get(tensor.elem_type)
    is_batch = not first.HasField("dim_value")
    if data_type is None or not is_batch or not all(axis.HasField("dim_value") for axis in others):
        raise ModelError(
            f"{path.name} has {value.name!r} of type {tensor.elem_type} and axes "
            f"{[axis.dim_param or axis.dim_value for axis in tensor.shape.dim]}, expected a known "
            "type, a free batch axis and fixed axes behind it; export the model again"
        )
    return Tensor(value.name, data_type, tuple(axis.dim_value for axis in others))
