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
from ildsdk.index.columns import Field
from ildsdk.index.manifest import Manifest, read_manifest
from ildsdk.index.removals import read_removed
from ildsdk.index.segment import Segment, check_size, key_of

ValueT = TypeVar("ValueT")
_MAX_TRIES = 20


class Snapshot:
    """A manifest and its segments; every file is opened, none is read but the removals.

    Parameters
    ----------
    previous : Snapshot, optional
        Segments both states share are taken from here, with what they have in memory.

    Attributes
    ----------
    removed : ndarray or None
        Mask ``(n_items,)`` of removed rows; None where no row was removed.
    """

    def __init__(self, folder: Path, manifest: Manifest, previous: Snapshot | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        check_size(folder, manifest.hashing.hyperplanes)
        known = {segment.key: segment for segment in previous.segments} if previous else {}
        self.segments: tuple[Segment, ...] = tuple(
            known.get(key_of(entry))
            or Segment(folder, entry, manifest.hashing, manifest.embedding_size, manifest.maps)
            for entry in manifest.segments
        )
        counts = [segment.n_items for segment in self.segments]
        self.first_rows = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self.removed = self._read_removed()
        self._lock = threading.Lock()
        self._remembered: dict[str, object] = {}
        self._hyperplanes: npt.NDArray[np.float32] | None = None

    def _read_removed(self) -> npt.NDArray[np.bool_] | None:
        removed: npt.NDArray[np.bool_] | None = None
        for first_row, entry in zip(self.first_rows, self.manifest.segments, strict=False):
            part = read_removed(self.folder, entry)
            if part is not None:
                if removed is None:
                    removed = np.zeros(self.n_items, np.bool_)
                removed[first_row : first_row + entry.n_items] = part
        return removed

    @property
    def n_items(self) -> int:
        """Number of rows, removed ones included."""
        return int(self.first_rows[-1])

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """Mask ``(n_items,)`` of the rows that were not removed."""
        return np.ones(self.n_items, np.bool_) if self.removed is None else ~self.removed

    def left_out(self, excluded_rows: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
        """The caller's mask of rows to leave out, and the removed rows; None: leave out none.

        Raises
        ------
        ValueError
            The caller's is no bool array of ``n_items``.
        """
        if excluded_rows is None:
            return self.removed
        if (
            not isinstance(excluded_rows, np.ndarray)
            or excluded_rows.dtype != np.bool_
            or excluded_rows.shape != (self.n_items,)
        ):
            raise ValueError(f"excluded_rows is not a bool array of {self.n_items} rows")
        return excluded_rows if self.removed is None else excluded_rows | self.removed

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

    def column(self, field: Field) -> tuple[list[str], npt.NDArray[np.int32]]:
        """Sorted texts of a column, and per row ``(n_items,)`` the number of its text or -1.

        Removed rows are in both.
        """
        return self.remembered(f"column {field}", lambda: self._merged_column(field))

    def _merged_column(self, field: Field) -> tuple[list[str], npt.NDArray[np.int32]]:
        columns = [segment.column(field) for segment in self.segments]
        if len(columns) == 1:
            return columns[0].names.all(), columns[0].numbers
        texts = [column.names.all() for column in columns]
        merged = sorted({text for names in texts for text in names})
        place = {text: number for number, text in enumerate(merged)}
        numbers = [
            np.array([place[text] for text in names] + [-1], np.int32)[column.numbers]
            for names, column in zip(texts, columns, strict=True)
        ]
        joined = np.concatenate([np.empty(0, np.int32), *numbers])
        joined.setflags(write=False)
        return merged, joined

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
            There is no such row, or it was removed.
        """
        if not 0 <= row < self.n_items:
            raise IndexError(f"row {row} is not in the index (0 to {self.n_items - 1})")
        if self.removed is not None and self.removed[row]:
            raise IndexError(f"row {row} was removed from the index")
        place = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return self.segments[place], row - int(self.first_rows[place])

    def row_of(self, item_id: str) -> int | None:
        """Row of an item, None where the index has no such item."""
        for first_row, segment in self.placed():
            row = segment.store.row_of(item_id)
            if row is not None and (self.removed is None or not self.removed[first_row + row]):
                return first_row + row
        return None


def open_snapshot(folder: Path, manifest: Manifest) -> Snapshot:
    """State of a folder just read, or a newer one where a writer replaced it meanwhile.

    Raises
    ------
    IndexFileError
        A file is missing or damaged.
    """
    for _ in range(_MAX_TRIES):
        try:
            return Snapshot(folder, manifest)
        except IndexFileError:
            latest = read_manifest(folder)
            if latest.revision == manifest.revision:
                raise
            manifest = latest
    raise IndexFileError("index is being changed faster than it can be opened; try again")
