"""Activation maps of a segment: location vectors in 8 bits, one optional file per segment."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.explain import LocationCodes, SliceBox
from ildsdk.index.arrays import Layout, map_arrays
from ildsdk.index.manifest import FileEntry, MapsFormat, SegmentEntry


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MapSource:
    """Maps of a segment to be written.

    Attributes
    ----------
    has_map : ndarray
        bool ``(n,)``, which of the segment's rows have one.
    codes : callable
        Gives the maps of those rows in row order, once.
    """

    has_map: npt.NDArray[np.bool_]
    codes: Callable[[], Iterable[LocationCodes]]


class MapFile:
    """Maps of one segment, memory-mapped.

    Parameters
    ----------
    path : Path
    n : int
        Rows of the segment.

    Raises
    ------
    IndexFileError
        It is no such file.
    """

    def __init__(self, path: Path, n: int, maps: MapsFormat, embedding_size: int) -> None:
        self._name = path.name
        self._grid = (maps.n_rows, maps.n_columns, embedding_size)
        self._arrays = map_arrays(path, _layout(n, maps, embedding_size))
        lengths = {len(self._arrays[name]) for name in ("locations", "scales", "boxes")}
        if len(lengths) != 1:
            raise self._damaged("arrays of several lengths")
        self._n_maps = lengths.pop()

    @property
    def has_map(self) -> npt.NDArray[np.bool_]:
        """Which rows have a map, bool ``(n,)``."""
        mask: npt.NDArray[np.bool_] = self._arrays["places"] >= 0
        return mask

    def codes_of(self, row: int) -> LocationCodes | None:
        """Map of a row; None where it has none.

        Raises
        ------
        IndexFileError
            It does not fit its check: the file is damaged.
        """
        if self._arrays["places"][row] < 0:
            return None
        codes = self._proven(row)
        if codes is None:
            raise self._damaged("a map does not fit its check")
        return codes

    def proven(self) -> npt.NDArray[np.bool_]:
        """Which rows have a map that fits its check, bool ``(n,)``."""
        rows = range(len(self._arrays["places"]))
        return np.fromiter((self._proven(row) is not None for row in rows), np.bool_, len(rows))

    def problems(self) -> Iterator[str]:
        """What is wrong with a file whose bytes are those that were written."""
        places = self._arrays["places"]
        if not np.array_equal(places[places >= 0], np.arange(self._n_maps)) or places.min() < -1:
            yield f"{self._name}: places are not those of its maps"
        elif not np.array_equal(self.proven(), self.has_map):
            yield f"{self._name}: a map does not fit its check"

    @property
    def n_checks(self) -> int:
        """Rows that had a map when the file was written, as far as its checks tell."""
        return int(np.count_nonzero(self._arrays["map_checks"]))

    def _proven(self, row: int) -> LocationCodes | None:
        place = int(self._arrays["places"][row])
        if not 0 <= place < self._n_maps:
            return None
        scale, box = self._arrays["scales"][place], self._arrays["boxes"][place]
        values = self._arrays["locations"][place]
        if _check(scale, box, values) != self._arrays["map_checks"][row]:
            return None
        is_sane = math.isfinite(scale) and scale > 0 and np.isfinite(box).all()
        if not (is_sane and box[2] > 0 and box[3] > 0):
            return None
        top, left, height, width = map(float, box)
        return LocationCodes(
            codes=values.reshape(self._grid),
            scale=float(scale),
            box=SliceBox(top=top, left=left, height=height, width=width),
        )

    def _damaged(self, what: str) -> IndexFileError:
        return IndexFileError(f"{self._name} is damaged: {what}; run `ildsdk index repair`")


def open_maps(
    folder: Path, entry: SegmentEntry, maps: MapsFormat | None, embedding_size: int
) -> MapFile | None:
    """Maps of a segment, None where it has none."""
    if entry.maps is None or maps is None:
        return None
    return MapFile(folder / entry.maps.file, entry.n_items, maps, embedding_size)


def write_maps(
    path: Path, source: MapSource, maps: MapsFormat, embedding_size: int
) -> FileEntry | None:
    """Write the maps of a new segment; None, and no file, where no row has one.

    Raises
    ------
    ValueError
        Maps of another number, grid or embedding size than stated.
    """
    from ildsdk.index.array_writing import Blocks, write_arrays

    n_maps = int(source.has_map.sum())
    if n_maps == 0:
        return None
    grid = (maps.n_rows, maps.n_columns, embedding_size)
    scales, boxes, checks = (
        np.empty(n_maps, np.float32),
        np.empty((n_maps, 4), np.float32),
        np.zeros(len(source.has_map), np.uint32),
    )
    rows = np.flatnonzero(source.has_map)

    def locations() -> Iterator[npt.NDArray[np.int8]]:
        # The small arrays fill while the large one is written, and are written after it.
        for place, codes in enumerate(source.codes()):
            if place >= n_maps or codes.codes.shape != grid:
                raise ValueError(f"a map has shape {codes.codes.shape}, expected {n_maps} x {grid}")
            scales[place], boxes[place] = codes.scale, dataclasses.astuple(codes.box)
            values = codes.codes.reshape(1, -1, embedding_size)
            checks[rows[place]] = _check(scales[place], boxes[place], values)
            yield values

    places = np.where(source.has_map, np.cumsum(source.has_map) - 1, -1).astype(np.int32)
    return write_arrays(
        path,
        {
            "locations": Blocks(
                dtype=np.int8,
                shape=(n_maps, maps.n_rows * maps.n_columns, embedding_size),
                blocks=locations(),
            ),
            "scales": scales,
            "boxes": boxes,
            "places": places,
            "map_checks": checks,
        },
    )


def _check(scale: np.float32, box: npt.NDArray[np.float32], values: npt.NDArray[Any]) -> int:
    """CRC-32 of one map as it lies in the file."""
    start = zlib.crc32(np.append(scale, box).astype("<f4").tobytes())
    return zlib.crc32(np.ascontiguousarray(values).data, start)


def _layout(n: int, maps: MapsFormat, embedding_size: int) -> Layout:
    return {
        "locations": ("I8", (-1, maps.n_rows * maps.n_columns, embedding_size)),
        "scales": ("F32", (-1,)),
        "boxes": ("F32", (-1, 4)),
        "places": ("I32", (n,)),
        "map_checks": ("U32", (n,)),
    }
