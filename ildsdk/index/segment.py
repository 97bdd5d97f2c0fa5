"""One immutable segment: rows added together, its files opened at once and read when needed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.index.arrays import map_arrays
from ildsdk.index.columns import CHECKS, Column, Field, column_of, columns_layout
from ildsdk.index.item_store import ItemStore
from ildsdk.index.manifest import FileEntry, Hashing, MapsFormat, SegmentEntry
from ildsdk.index.maps import MapFile, open_maps

if TYPE_CHECKING:
    from native_hash import CheckedRows, Engine, SegmentCodes, Tables

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
        raise IndexFileError(
            f"{entry.file} is missing from the index; run `ildsdk index repair`"
        ) from error
    if n_bytes != entry.n_bytes:
        raise IndexFileError(
            f"{entry.file} has {n_bytes} bytes, the manifest expects {entry.n_bytes}: "
            "the index is damaged; run `ildsdk index repair`"
        )


def key_of(entry: SegmentEntry) -> tuple[object, ...]:
    """What makes two segments the same but for removals."""
    return entry.arrays, entry.columns, entry.codes, entry.items, entry.maps


class Segment:
    """Arrays, columns, codes, items and hash tables of one segment; safe to share.

    Knows nothing of removals: rows are the rows of its files. Opens all files when it is made, so
    that they may be deleted under it.

    Parameters
    ----------
    folder : Path
        The index folder.
    embedding_size : int
        Dimension d of the embeddings.
    maps : MapsFormat or None
        Of the index's activation maps.

    Raises
    ------
    IndexFileError
        A file is missing or not what the manifest says.
    """

    def __init__(
        self,
        folder: Path,
        entry: SegmentEntry,
        hashing: Hashing,
        embedding_size: int,
        maps: MapsFormat | None,
    ) -> None:
        for file in entry.files():
            check_size(folder, file)
        self.entry = entry
        self._hashing = hashing
        self._lock = threading.RLock()
        self._is_closed = False
        n = entry.n_items
        self._arrays = map_arrays(
            folder / entry.arrays.file,
            {
                "embeddings": ("F32", (n, embedding_size)),
                "signatures": ("U64", (n, hashing.n_tables)),
            },
        )
        if entry.columns is not None:
            self._arrays |= map_arrays(folder / entry.columns.file, columns_layout(n))
        self._codes = map_arrays(folder / entry.codes.file) if entry.codes is not None else None
        self._maps = open_maps(folder, entry, maps, embedding_size)
        self._store = ItemStore(folder / entry.items.file)
        self._rows: CheckedRows | None = None
        self._tables: Tables | None = None
        self._search_codes: SegmentCodes | None = None
        self._columns: dict[str, Column] = {}

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two segments the same but for removals."""
        return key_of(self.entry)

    @property
    def n_items(self) -> int:
        """Number of rows."""
        return self.entry.n_items

    def array(self, name: str) -> npt.NDArray[Any]:
        """Memory-mapped ``"embeddings"``, ``"signatures"`` or checks of rows."""
        with self._lock:
            self.check_open()
            return self._arrays[name]

    @property
    def has_checks(self) -> bool:
        """Whether each row has its checks (segments of version 1 have none)."""
        return all(name in self._arrays for name in CHECKS)

    def codes(self) -> Mapping[str, npt.NDArray[Any]] | None:
        """Memory-mapped arrays ``native_hash`` made for faster search, None without."""
        with self._lock:
            self.check_open()
            return self._codes

    @property
    def maps(self) -> MapFile | None:
        """Activation maps, None where no row has one."""
        with self._lock:
            self.check_open()
            return self._maps

    @property
    def store(self) -> ItemStore:
        """Items and thumbnails."""
        with self._lock:
            self.check_open()
            return self._store

    @property
    def rows(self) -> CheckedRows:
        """Embeddings, known to be finite and no longer than unit vectors.

        They were checked when they were written; those of version 1 segments are checked here.

        Raises
        ------
        IndexFileError
            They are not: the file is damaged.
        """
        with self._lock:
            if self._rows is None:
                from native_hash import CheckedRows

                embeddings = self.array("embeddings")
                if self.entry.max_norm is not None:
                    self._rows = CheckedRows(embeddings, self.entry.max_norm)
                else:
                    self._rows = self._checked(embeddings)
            return self._rows

    def _checked(self, embeddings: npt.NDArray[np.float32]) -> CheckedRows:
        from native_hash import checked_rows

        try:
            rows = checked_rows(embeddings)
        except ValueError as error:
            raise self._damaged(str(error)) from error
        if rows.max_norm > 1 + NORM_TOLERANCE:
            raise self._damaged(f"an embedding has norm {rows.max_norm:.6g}, expected 1")
        return rows

    def search_codes(self, engine: Engine) -> SegmentCodes | None:
        """Codes for faster search, checked once; None where the segment has none.

        Raises
        ------
        IndexFileError
            They do not fit the segment: the file is damaged.
        """
        with self._lock:
            arrays = self.codes()
            if self._search_codes is None and arrays is not None:
                from native_hash import SegmentCodes

                try:
                    self._search_codes = SegmentCodes.from_arrays(self.rows, arrays, engine=engine)
                except (TypeError, ValueError) as error:
                    raise self._damaged(str(error), self.entry.codes) from error
            return self._search_codes

    def tables(self, hyperplanes: npt.NDArray[np.float32], engine: Engine) -> Tables:
        """Hash tables, built from the stored signatures at first use."""
        with self._lock:
            if self._tables is None:
                from native_hash import Tables

                signatures = np.ascontiguousarray(self.array("signatures"), np.uint64)
                try:
                    self._tables = Tables.build(signatures, hyperplanes, engine=engine)
                except ValueError as error:
                    raise self._damaged(str(error)) from error
            return self._tables

    def column(self, field: Field) -> Column:
        """A text column as sorted names and a number per row."""
        with self._lock:
            self.check_open()
            if field not in self._columns:
                if self.entry.columns is None:
                    column = column_of(self._store.column(field))
                    self._check_length(len(column.numbers))
                else:
                    try:
                        column = Column.from_arrays(self._arrays, field)
                    except ValueError as error:
                        raise IndexFileError(
                            f"{self.entry.columns.file} is damaged ({error}); run `ildsdk index "
                            "repair`"
                        ) from error
                self._columns[field] = column
            return self._columns[field]

    def _check_length(self, n: int) -> None:
        if n != self.n_items:
            raise IndexFileError(
                f"{self.entry.items.file} has {n} items, the manifest expects {self.n_items}"
            )

    def close(self) -> None:
        """Let go of files; later reads raise ValueError."""
        with self._lock:
            self._is_closed = True
            self._store.close()
            self._arrays, self._columns = {}, {}
            self._codes = self._rows = self._tables = self._search_codes = self._maps = None

    def check_open(self) -> None:
        """Raise ValueError after :meth:`close`."""
        if self._is_closed:
            raise ValueError("the index is closed")

    def _damaged(self, what: str, file: FileEntry | None = None) -> IndexFileError:
        name = (file or self.entry.arrays).file
        return IndexFileError(f"{name} is damaged: {what}; run `ildsdk index repair`")
