"""Arrays of an index on disk: safetensors files, checked and memory-mapped."""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"), "F64": np.dtype("<f8"),
    "I8": np.dtype("i1"), "U8": np.dtype("u1"),
    "I16": np.dtype("<i2"), "U16": np.dtype("<u2"),
    "I32": np.dtype("<i4"), "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"), "U64": np.dtype("<u8"),
}  # fmt: skip
MAX_HEADER_BYTES = 2**20

Layout = Mapping[str, tuple[str, tuple[int, ...]]]  # name: dtype code and shape


def is_padding(name: str) -> bool:
    """Whether a tensor is there for the alignment of the next one only."""
    return name.startswith("_") and name[1:].isdecimal()


def map_arrays(path: Path, expected: Layout | None = None) -> dict[str, npt.NDArray[Any]]:
    """Memory-map the arrays of a safetensors file, read-only, without reading them.

    The file may be deleted afterward (not on Windows): the arrays stay readable.

    Parameters
    ----------
    expected : mapping, optional
        For each array its safetensors dtype (``"F32"``...) and its shape, ``-1`` for a length
        that is not known; any arrays of the known dtypes without it.

    Raises
    ------
    IndexFileError
        Not a valid safetensors file, or other arrays, dtypes or shapes than expected.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            if n_header > MAX_HEADER_BYTES:
                raise IndexFileError(f"{path.name} has a header of {n_header} bytes")
            handle = os.dup(file.fileno())  # room for the file the library opens: it tells
            os.close(handle)  # "too many open files" as an error like any other
            with safe_open(path, framework="numpy"):
                pass  # the library checks header, offsets and size
            header = json.loads(file.read(n_header))
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header.pop("__metadata__", None)
        found = {
            name: (str(facts["dtype"]), tuple(map(int, facts["shape"])))
            for name, facts in header.items()
            if not is_padding(name)
        }
        _check_layout(path.name, found, expected)
        return {
            name: _view(data, 8 + n_header + int(header[name]["data_offsets"][0]), code, shape)
            for name, (code, shape) in found.items()
        }
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise _too_many_open(path) from error
        raise IndexFileError(
            f"{path.name} cannot be read ({error.strerror or type(error).__name__}); run `ildsdk "
            "index verify`"
        ) from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise IndexFileError(
            f"{path.name} is damaged or missing ({type(error).__name__}); run `ildsdk index verify`"
        ) from error


def _too_many_open(path: Path) -> IndexFileError:
    return IndexFileError(
        f"{path.name} cannot be opened: too many open files, which is no damage; an index of many "
        "small additions opens fewer after `ildsdk index compact` under a higher limit (ulimit -n)"
    )


def _view(data: mmap.mmap, offset: int, code: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    dtype, size = DTYPES[code], math.prod(shape)
    if size == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype, size, offset).reshape(shape)


def _check_layout(name: str, found: Layout, expected: Layout | None) -> None:
    odd = [code for code, _ in found.values() if code not in DTYPES]
    if odd:
        raise IndexFileError(
            f"{name} holds arrays of dtype {odd[0][:20]}, expected {', '.join(DTYPES)}"
        )
    if expected is None:
        return
    if set(found) != set(expected) or not all(
        found[key][0] == code and _fits(found[key][1], shape)
        for key, (code, shape) in expected.items()
    ):
        raise IndexFileError(f"{name} holds {_told(found)}, the manifest expects {_told(expected)}")


def _fits(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(found) == len(expected) and all(
        wanted in (-1, length) for length, wanted in zip(found, expected, strict=True)
    )


def _told(layout: Layout) -> str:
    told = [f"{name[:40]} {code}{list(shape)}" for name, (code, shape) in sorted(layout.items())]
    return "; ".join(told[:6]) or "nothing"
