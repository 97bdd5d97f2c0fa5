"""One complete, unchanging state of an index."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.index.arrays import map_arrays
from ildsdk.index.manifest import Manifest
from ildsdk.index.segment import Segment, check_size

ValueT = TypeVar("ValueT")


class Snapshot:
    """A manifest and its segments; opening checks names and sizes, and reads nothing else.

    Parameters
    ----------
    previous : Snapshot, optional
        Segments both states share are taken from here, with what they have in memory.
    """

    def __init__(self, folder: Path, manifest: Manifest, previous: Snapshot | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        check_size(folder, manifest.hashing.hyperplanes)
        known = {s.entry: s for s in previous.segments} if previous else {}
        self.segments: tuple[Segment, ...] = tuple(
            known.get(entry) or Segment(folder, entry, manifest.hashing, manifest.embedding_size)
            for entry in manifest.segments
        )
        counts = [segment.n_items for segment in self.segments]
        self.first_rows = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self._lock = threading.Lock()
        self._remembered: dict[str, object] = {}
        self._hyperplanes: npt.NDArray[np.float32] | None = None

    @property
    def n_items(self) -> int:
        """Number of rows."""
        return int(self.first_rows[-1])

    @property
    def hyperplanes(self) -> npt.NDArray[np.float32]:
        """float32 ``(n_tables, n_bits, d)``."""
        with self._lock:
            if self._hyperplanes is None:
                hashing = self.manifest.hashing
                shape = (hashing.n_tables, hashing.n_bits, self.manifest.embedding_size)
                arrays = map_arrays(
                    self.folder / hashing.hyperplanes.file, {"hyperplanes": ("F32", shape)}
                )
                values: npt.NDArray[np.float32] = arrays["hyperplanes"]
                if not np.isfinite(values).all():
                    raise IndexFileError(f"{hashing.hyperplanes.file} is damaged: not finite")
                self._hyperplanes = values
            return self._hyperplanes

    def remembered(self, key: str, make: Callable[[], ValueT]) -> ValueT:
        """Value made once for this state."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return cast("ValueT", self._remembered[key])

    def placed(self) -> Iterator[tuple[int, Segment]]:
        """Segments with the row number at which each begins."""
        return zip(map(int, self.first_rows), self.segments, strict=False)

    def locate(self, row: int) -> tuple[Segment, int]:
        """Segment of a row and the row's number inside it.

        Raises
        ------
        IndexError
            There is no such row.
        """
        if not 0 <= row < self.n_items:
            raise IndexError(f"row {row} is not in the index (0 to {self.n_items - 1})")
        place = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return self.segments[place], row - int(self.first_rows[place])
