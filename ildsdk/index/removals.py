"""Which rows of a segment were removed: a bitmap, kept twice in one small file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.index.arrays import map_arrays
from ildsdk.index.manifest import SegmentEntry

COPIES = ("removed", "copy")


def removed_bytes(is_removed: npt.NDArray[np.bool_]) -> bytes:
    """The file that says so; a function of the mask alone."""
    bits = np.packbits(is_removed, bitorder="little")
    from ildsdk.index.array_writing import array_bytes

    return array_bytes(dict.fromkeys(COPIES, bits))


def read_removed(folder: Path, entry: SegmentEntry) -> npt.NDArray[np.bool_] | None:
    """Mask ``(n_items,)`` of the removed rows of a segment; None without any.

    Raises
    ------
    IndexFileError
        The file is damaged: its copies or its count differ.
    """
    if entry.removed is None:
        return None
    arrays = map_arrays(folder / entry.removed.file, removed_layout(entry.n_items))
    bits: npt.NDArray[Any] = arrays["removed"]
    is_removed = unpacked(bits, entry.n_items)
    if not np.array_equal(bits, arrays["copy"]) or int(is_removed.sum()) != entry.n_removed:
        raise IndexFileError(f"{entry.removed.file} is damaged; run `ildsdk index repair`")
    return is_removed


def recovered_removed(folder: Path, entry: SegmentEntry) -> npt.NDArray[np.bool_] | None:
    """Mask of a damaged file, from that of its bitmaps which gives the file the manifest names."""
    file = entry.removed
    if file is None:
        return None
    try:
        content = (folder / file.file).read_bytes()
    except OSError:
        return None
    intact = removed_bytes(np.zeros(entry.n_items, np.bool_))
    n_bits_bytes = -(-entry.n_items // 8)
    n_header = 8 + int.from_bytes(intact[:8], "little")
    for start in (n_header, len(intact) - n_bits_bytes):
        bits = np.frombuffer(content[start : start + n_bits_bytes], np.uint8)
        if len(bits) == n_bits_bytes:
            is_removed = unpacked(bits, entry.n_items)
            if hashlib.sha256(removed_bytes(is_removed)).hexdigest() == file.sha256:
                return is_removed
    return None


def removed_layout(n_items: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Arrays of the file, and their dtypes and shapes."""
    return dict.fromkeys(COPIES, ("U8", (-(-n_items // 8),)))


def unpacked(bits: npt.NDArray[np.uint8], n_items: int) -> npt.NDArray[np.bool_]:
    """Mask ``(n_items,)`` of a bitmap."""
    return np.unpackbits(bits, count=n_items, bitorder="little").astype(np.bool_)
