"""One immutable segment: rows added together, opened piece by piece when needed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.index.arrays import map_arrays
from ildsdk.index.item_store import ItemStore
from ildsdk.index.manifest import FileEntry, Hashing, SegmentEntry

if TYPE_CHECKING:
    from native_hash import Buckets, CheckedRows, Engine

NORM_TOLERANCE = 1e-3


def check_size(folder: Path, entry: FileEntry) -> None:
    """Compare a file's size with the manifest.

    Raises
    ------
    IndexFileError
        The file is missing, or of another size.
    """
    try:
        n_bytes = (folder / entry.file).stat().st_size
    except OSError as error:
        raise IndexFileError(f"{entry.file} is missing from the index") from error
    if n_bytes != entry.n_bytes:
        raise IndexFileError(
            f"{entry.file} has {n_bytes} bytes, the manifest expects {entry.n_bytes}: "
            "the index is damaged; run `ildsdk index verify`"
        )


class Segment:
    """Arrays, items and hash tables of one segment; safe to share between threads.

    Parameters
    ----------
    folder : Path
        The index folder.
    embedding_size : int
        Dimension d of the embeddings.
    """

    def __init__(
        self, folder: Path, entry: SegmentEntry, hashing: Hashing, embedding_size: int
    ) -> None:
        check_size(folder, entry.arrays)
        check_size(folder, entry.items)
        self.entry = entry
        self._folder = folder
        self._hashing = hashing
        self._embedding_size = embedding_size
        self._lock = threading.RLock()
        self._is_closed = False
        self._arrays: dict[str, npt.NDArray[np.generic]] | None = None
        self._store: ItemStore | None = None
        self._rows: CheckedRows | None = None
        self._buckets: tuple[Buckets, ...] | None = None
        self._coded: dict[str, tuple[list[str], npt.NDArray[np.int64]]] = {}

    @property
    def n_items(self) -> int:
        """Number of rows."""
        return self.entry.n_items

    def array(self, name: str) -> npt.NDArray[np.generic]:
        """Memory-mapped ``"embeddings"`` or ``"signatures"``."""
        with self._lock:
            self._check_open()
            if self._arrays is None:
                n = self.entry.n_items
                self._arrays = map_arrays(
                    self._folder / self.entry.arrays.file,
                    {
                        "embeddings": ("F32", (n, self._embedding_size)),
                        "signatures": ("U64", (n, self._hashing.n_tables)),
                    },
                )
            return self._arrays[name]

    @property
    def store(self) -> ItemStore:
        """Items and thumbnails."""
        with self._lock:
            self._check_open()
            if self._store is None:
                self._store = ItemStore(self._folder / self.entry.items.file)
            return self._store

    @property
    def rows(self) -> CheckedRows:
        """Embeddings, checked once to be finite and no longer than unit vectors.

        Raises
        ------
        IndexFileError
            They are not: the file is damaged.
        """
        with self._lock:
            if self._rows is None:
                from native_hash import checked_rows

                embeddings = self.array("embeddings")
                try:
                    rows = checked_rows(embeddings)  # type: ignore[arg-type]
                except ValueError as error:
                    raise self._damaged(str(error)) from error
                if rows.max_norm > 1 + NORM_TOLERANCE:
                    raise self._damaged(f"an embedding has norm {rows.max_norm:.6g}, expected 1")
                self._rows = rows
            return self._rows

    def buckets(self, engine: Engine) -> tuple[Buckets, ...]:
        """One bucket table per hash table, built from the stored signatures at first use."""
        with self._lock:
            if self._buckets is None:
                from native_hash import bucket_table

                signatures = self.array("signatures").astype(np.uint64)
                try:
                    self._buckets = tuple(
                        bucket_table(
                            np.ascontiguousarray(column), self._hashing.n_bits, engine=engine
                        )
                        for column in signatures.T
                    )
                except ValueError as error:
                    raise self._damaged(str(error)) from error
            return self._buckets

    def coded(self, column: str) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Distinct values of a text column, sorted, and per row the number of its value."""
        with self._lock:
            if column not in self._coded:
                values = self.store.column(column)
                if len(values) != self.n_items:
                    raise IndexFileError(
                        f"{self.entry.items.file} has {len(values)} items, the manifest expects "
                        f"{self.n_items}"
                    )
                names = sorted(set(values))
                number = {name: i for i, name in enumerate(names)}
                self._coded[column] = (names, np.array([number[v] for v in values], np.int64))
            return self._coded[column]

    def close(self) -> None:
        """Let go of files; later reads raise ValueError."""
        with self._lock:
            self._is_closed = True
            if self._store is not None:
                self._store.close()
            self._arrays = self._rows = self._buckets = None

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("the index is closed")

    def _damaged(self, what: str) -> IndexFileError:
        return IndexFileError(f"{self.entry.arrays.file} is damaged: {what}")
