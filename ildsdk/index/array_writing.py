"""Writing safetensors files block by block: a file may be larger than memory.

``safetensors`` itself writes only what it holds in memory as a whole; the format is an
8-byte length, a JSON header and the bytes, so the header is made here. Tests read the files back
with the library.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.index.arrays import DTYPES, MAX_HEADER_BYTES
from ildsdk.index.manifest import FileEntry
from ildsdk.index.writing import NewFile

_ALIGNMENT = 64  # bytes; a cache line
_CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """An array that comes in blocks of rows.

    Attributes
    ----------
    blocks : iterable of ndarray
        C-contiguous, of the given dtype, together of the given shape; gone through once.
    """

    dtype: npt.DTypeLike
    shape: tuple[int, ...]
    blocks: Iterable[npt.NDArray[Any]]


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any] | Blocks]) -> FileEntry:
    """Write named arrays as a new file, each aligned to 64 bytes.

    Raises
    ------
    ValueError
        A dtype the format does not have, a header above 1 MiB, or blocks that do not
        fill their array.
    """
    header, data = _planned(arrays)
    with NewFile(path) as file:
        file.write(header)
        for gap, array in data:
            file.write(bytes(gap))
            n_expected = _n_bytes(array)
            n_before = file.n_bytes
            for block in array.blocks if isinstance(array, Blocks) else [array]:
                file.write(_raw(np.ascontiguousarray(block, np.dtype(array.dtype))))
            if file.n_bytes - n_before != n_expected:
                raise ValueError(f"blocks of an array have other than its {n_expected} bytes")
        return file.publish()


def array_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The file :func:`write_arrays` writes, for small arrays."""
    header, data = _planned(arrays)
    parts = [header]
    for gap, array in data:
        assert isinstance(array, np.ndarray)
        parts += [bytes(gap), array.tobytes()]
    return b"".join(parts)


def first_offset(arrays: Mapping[str, npt.NDArray[Any] | Blocks]) -> int:
    """Where in their file the bytes of the first array begin."""
    return len(_planned(arrays)[0])


def _planned(
    arrays: Mapping[str, npt.NDArray[Any] | Blocks],
) -> tuple[bytes, list[tuple[int, npt.NDArray[Any] | Blocks]]]:
    """The header, and each array with the bytes of padding before it."""
    header: dict[str, Any] = {}
    data: list[tuple[int, npt.NDArray[Any] | Blocks]] = []
    end = 0
    for number, (name, array) in enumerate(arrays.items()):
        code = _CODES.get(np.dtype(array.dtype))
        if code is None:
            raise ValueError(
                f"array {name!r} is {array.dtype}, expected one of {', '.join(DTYPES)}"
            )
        gap = -end % _ALIGNMENT
        if gap:
            header[f"_{number}"] = _facts("U8", (gap,), end, gap)
        header[name] = _facts(code, array.shape, end + gap, _n_bytes(array))
        end += gap + _n_bytes(array)
        data.append((gap, array))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"{len(header)} arrays need a header of {len(text)} bytes")
    return len(text).to_bytes(8, "little") + text, data


def _facts(code: str, shape: tuple[int, ...], start: int, n_bytes: int) -> dict[str, Any]:
    return {"dtype": code, "shape": list(shape), "data_offsets": [start, start + n_bytes]}


def _raw(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _n_bytes(array: npt.NDArray[Any] | Blocks) -> int:
    return math.prod(array.shape) * np.dtype(array.dtype).itemsize
