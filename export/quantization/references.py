"""Weights of one ONNX file taken out of another: external data instead of a second copy."""

from __future__ import annotations

import onnx
from onnx import TensorProto


def refer_to(
    graph: onnx.ModelProto, location: str, content: bytes, *, min_bytes: int = 1024
) -> int:
    """Replace int8 tensors that another file holds byte for byte by references into it.

    Parameters
    ----------
    graph : ModelProto
        Changed in place.
    location : str
        Name of the other file, which must lie beside this one.
    content : bytes
        Its bytes.
    min_bytes : int
        Shorter tensors stay in the graph: a reference takes about a hundred bytes itself.

    Returns
    -------
    int
        Bytes that the graph no longer holds.

    Notes
    -----
    Only int8 tensors: a weight may begin at any byte there, and a reader that maps the file has
    single bytes aligned everywhere.
    """
    saved = 0
    for tensor in graph.graph.initializer:
        raw = tensor.raw_data
        if tensor.data_type != TensorProto.INT8 or len(raw) < min_bytes:
            continue
        offset = content.find(raw)
        if offset < 0:
            continue
        saved += len(raw)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        values = {"location": location, "offset": str(offset), "length": str(len(raw))}
        for key, value in values.items():
            tensor.external_data.add(key=key, value=value)
    return saved
