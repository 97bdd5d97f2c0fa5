"""Arrays of an index on disk: safetensors files, checked and memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "U64": np.dtype("<u8")}
_MAX_HEADER_BYTES = 2**20


def array_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A safetensors file of C-contiguous arrays."""
    from safetensors.numpy import save

    content: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return content


def map_arrays(
    path: Path, expected: Mapping[str, tuple[str, tuple[int, ...]]]
) -> dict[str, npt.NDArray[Any]]:
    """Memory-map the arrays of a safetensors file, read-only, without reading them.

    Parameters
    ----------
    expected : mapping
        For each array its safetensors dtype (``"F32"``, ``"U64"``) and its shape.

    Raises
    ------
    IndexFileError
        Not a valid safetensors file, or other arrays, dtypes or shapes than expected.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # checks header, offsets and size
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in found.items()}
        if shapes != dict(expected):
            raise IndexFileError(
                f"{path.name} holds {_told(shapes)}, the manifest expects {_told(expected)}"
            )
        with path.open("rb") as raw:
            n_header = int.from_bytes(raw.read(8), "little")
            if n_header > _MAX_HEADER_BYTES:
                raise IndexFileError(f"{path.name} has a header of {n_header} bytes")
            header = json.loads(raw.read(n_header))
        arrays = {}
        for name, (code, shape) in expected.items():
            offset = 8 + n_header + int(header[name]["data_offsets"][0])
            arrays[name] = np.asarray(
                np.memmap(path, _DTYPES[code], mode="r", offset=offset, shape=shape)
            )
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise IndexFileError(
            f"{path.name} is damaged or missing; run `ildsdk index verify`"
        ) from error
    return arrays


def _told(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    told = [f"{name[:40]} {code}{list(shape)}" for name, (code, shape) in sorted(shapes.items())]
    return "; ".join(told[:6]) or "nothing"
