"""What an ONNX file refers to outside itself, read without a protobuf library.

A tensor of an ONNX graph may lie in another file (``external_data``: location, offset, length).
ONNX Runtime before 1.24 follows any path there, absolute or with ``..``. So the few messages
between the model and its tensors are walked here, in the wire format (protobuf.dev,
"Encoding"), and everything else is skipped by its length. Nodes that hold or name a compiled
engine (``EPContext``) are refused on the way: TensorRT would run what is in it.
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator
from pathlib import Path

from ildsdk.errors import ModelError

# Field number to message, of each message of onnx.proto on a way to a tensor.
_WAYS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_KEYS = ("location", "offset", "length")
_OP_TYPE = 4


@dataclasses.dataclass(frozen=True, slots=True)
class ExternalData:
    """Bytes of a tensor that lie in another file."""

    location: str
    offset: int
    length: int


class _MalformedError(ValueError):
    """Not the wire format, or not in the one form that ONNX writers write."""


def check_references(path: Path, weights_name: str | None) -> None:
    """Require that a graph takes data from nowhere but itself and one file beside it.

    Parameters
    ----------
    path : Path
        ONNX file.
    weights_name : str or None
        Name of the one file, in the same folder, that tensors may lie in; None: no file.

    Raises
    ------
    ModelError
        A tensor lies elsewhere, or beyond the end of that file, or the file is not ONNX.
    """
    try:
        found = list(external_data(path))
    except _MalformedError as error:
        raise ModelError(
            f"bundle file {path.name} is not a well-formed ONNX file ({error}); take the bundle "
            "again from where it was made"
        ) from error
    expected = "no external data" if weights_name is None else f"data in {weights_name} only"
    n_bytes = 0 if weights_name is None else (path.parent / weights_name).stat().st_size
    for data in found:
        if data.location != weights_name:
            raise ModelError(
                f"bundle file {path.name} refers to data in {ascii(data.location)[:80]}, expected "
                f"{expected}; do not use this bundle: it reads what does not belong to it"
            )
        if data.offset + data.length > n_bytes:
            raise ModelError(
                f"bundle file {path.name} refers to bytes {data.offset} to "
                f"{data.offset + data.length} of {weights_name}, which has {n_bytes}; take the "
                "bundle again from where it was made"
            )


def external_data(path: Path) -> Iterator[ExternalData]:
    """External data of all tensors of an ONNX file, those of subgraphs and attributes too.

    Raises
    ------
    ValueError
        Not the wire format, or external data in a form that a reader may take either way.
    """
    if path.stat().st_size == 0:  # which cannot be mapped
        raise _MalformedError("it is empty")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pending = [("model", 0, len(data))]
        while pending:
            message, start, end = pending.pop()
            entries = []
            for field, first, last in _fields(data, start, end):
                if message == "node" and field == _OP_TYPE and data[first:last] == b"EPContext":
                    raise _MalformedError("it holds a compiled engine, operator EPContext")
                inner = _WAYS[message].get(field)
                if inner == "entry":
                    entries.append(_entry(data, first, last))
                elif inner is not None:
                    pending.append((inner, first, last))
            if entries:
                yield _external(entries)


def _external(entries: list[tuple[str, str]]) -> ExternalData:
    values = dict(entries)
    if len(values) != len(entries) or set(values) != set(_KEYS):
        raise _MalformedError(f"external data without exactly {', '.join(_KEYS)}")
    numbers = []
    for key in ("offset", "length"):
        text = values[key]
        if not (text.isascii() and text.isdigit() and len(text) <= 10):
            raise _MalformedError(f"external data with {key} {ascii(text)[:40]}")
        numbers.append(int(text))
    return ExternalData(values["location"], *numbers)


def _entry(data: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    found: dict[int, str] = {}
    for field, first, last in _fields(data, start, end):
        # Of a field given twice, one reader takes the first and another the last.
        if field in found or field not in (_ENTRY_KEY, _ENTRY_VALUE):
            raise _MalformedError("external data with an entry that is not one key and one value")
        try:
            found[field] = data[first:last].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _MalformedError("external data that is not UTF-8 text") from error
    return found.get(_ENTRY_KEY, ""), found.get(_ENTRY_VALUE, "")


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte and end of each length-delimited field of a message."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _BYTES:
            length, at = _varint(data, at, end)
            if at + length > end:
                raise _MalformedError("a field reaches beyond its message")
            yield tag >> 3, at, at + length
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_FIXED_32, _FIXED_64):
            at += 4 if kind == _FIXED_32 else 8
        else:
            raise _MalformedError(f"a field of wire type {kind}")
    if at != end:
        raise _MalformedError("a field reaches beyond its message")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _MalformedError("a number reaches beyond its message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _MalformedError("a number of more than 10 bytes")
