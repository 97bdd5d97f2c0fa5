"""Items and thumbnails of one segment: a read-only SQLite file."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ildsdk.errors import IndexFileError
from ildsdk.index.items import ItemRecord

MAX_THUMBNAIL_BYTES = 2**20
PAGE_BYTES = 4096  # of the SQLite files written here

COLUMNS = tuple(field.name for field in dataclasses.fields(ItemRecord))
ADDED_ON = "added_on"  # when the index took an item in; not the item's own
STORED = (*COLUMNS, ADDED_ON)
_ITEMS = (
    "CREATE TABLE items (row INTEGER PRIMARY KEY, item_id TEXT NOT NULL{unique}, "
    "case_id TEXT NOT NULL, label TEXT NOT NULL, study_instance_uid TEXT NOT NULL, "
    "series_instance_uid TEXT NOT NULL, sop_instance_uid TEXT NOT NULL, frame INTEGER, "
    "position_mm REAL, site TEXT, verification TEXT, patient_key TEXT{added_on})"
)
_THUMBNAILS = "CREATE TABLE thumbnails (row INTEGER PRIMARY KEY, picture BLOB NOT NULL)"
SCHEMA = (
    _ITEMS.format(unique="", added_on=", added_on TEXT"),
    _THUMBNAILS,
    "CREATE UNIQUE INDEX items_by_id ON items (item_id)",
)
_SCHEMA_V1 = (
    _ITEMS.format(unique=" UNIQUE", added_on=""),
    _THUMBNAILS,
    "CREATE INDEX items_by_patient ON items (patient_key)",
    "CREATE INDEX items_by_study ON items (study_instance_uid)",
)
_TYPES: dict[str, tuple[type, ...]] = {
    "frame": (int, type(None)),
    "position_mm": (float, type(None)),
    "site": (str, type(None)),
    "verification": (str, type(None)),
    "patient_key": (str, type(None)),
    ADDED_ON: (str, type(None)),
}


class ItemStore:
    """Reader of one segment's items; safe to share between threads (reads are serialized).

    Raises
    ------
    IndexFileError
        From every method: the file is not the SQLite file the format describes.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._lock = threading.Lock()
        with self._translated():
            self._connection = sqlite3.connect(
                path.resolve().as_uri() + "?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * MAX_THUMBNAIL_BYTES)
            self._connection.execute("PRAGMA trusted_schema=OFF")
            self._connection.execute("PRAGMA cell_size_check=ON")
            found = self._connection.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
            ).fetchall()
            statements = sorted(row[0] for row in found)
            self._has_dates = statements == sorted(SCHEMA)
            if not self._has_dates and statements != sorted(_SCHEMA_V1):
                self._connection.close()
                raise IndexFileError(f"{self._name} does not hold the tables of an index segment")

    def close(self) -> None:
        """Close the file; later reads fail."""
        with self._lock:
            self._connection.close()

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()

    def items(self, rows: Iterable[int]) -> list[ItemRecord]:
        """Items of some rows of this segment, in the order asked for."""
        query = f"SELECT {', '.join(COLUMNS)} FROM items WHERE row = ?"
        with self._lock, self._translated():
            found = [self._connection.execute(query, (row,)).fetchone() for row in rows]
        return [self._record(values) for values in found]

    def thumbnail(self, row: int) -> bytes:
        """Encoded picture of one row of this segment."""
        found = self._all("SELECT picture FROM thumbnails WHERE row = ?", (row,))
        if len(found) != 1 or not isinstance(found[0][0], bytes):
            raise IndexFileError(f"{self._name} is damaged: a thumbnail is missing")
        return found[0][0]

    def column(self, name: str) -> list[Any]:
        """One column of all rows, in row order."""
        if name not in STORED:
            raise ValueError(f"{name!r} is no column of an item")
        expression = "NULL" if name == ADDED_ON and not self._has_dates else name
        values = [row[0] for row in self._all(f"SELECT {expression} FROM items ORDER BY row")]
        types = _TYPES.get(name, (str,))
        if not all(isinstance(value, types) for value in values):
            raise self._wrong_type(name)
        return values

    def n_items_and_thumbnails(self) -> tuple[int, int]:
        """Rows with an item and rows with a thumbnail, counting those numbered without a gap."""
        counts = []
        for table in ("items", "thumbnails"):
            n, low, high = self._all(f"SELECT COUNT(*), MIN(row), MAX(row) FROM {table}")[0]
            counts.append(int(n) if n and (low, high) == (0, n - 1) else -1)
        return counts[0], counts[1]

    def rows_of(self, item_ids: Iterable[str]) -> list[int]:
        """Rows of those items that are in this segment."""
        query = "SELECT row FROM items WHERE item_id = ?"
        with self._lock, self._translated():
            found = [self._connection.execute(query, (key,)).fetchone() for key in item_ids]
        return [int(row[0]) for row in found if row is not None]

    def iter_values(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Row and values (in the order of ``STORED``) of every row, in row order."""
        date = ADDED_ON if self._has_dates else "NULL"
        types = [_TYPES.get(name, (str,)) for name in STORED]
        for row, *values in self._iterate(("row", *COLUMNS, date), "items", 1000):
            if not all(map(isinstance, values, types)):
                raise self._wrong_type("an item")
            yield int(row), tuple(values)

    def iter_thumbnails(self) -> Iterator[tuple[int, bytes]]:
        """Row and encoded picture of every row, in row order."""
        for row, picture in self._iterate(("row", "picture"), "thumbnails", 50):
            if not isinstance(picture, bytes):
                raise IndexFileError(f"{self._name} is damaged: a thumbnail is missing")
            yield int(row), picture

    def _iterate(
        self, columns: tuple[str, ...], table: str, n_at_once: int
    ) -> Iterator[tuple[Any, ...]]:
        low = -1
        query = (
            f"SELECT {', '.join(columns)} FROM {table} WHERE row > ? ORDER BY row LIMIT {n_at_once}"
        )
        while found := self._all(query, (low,)):
            yield from found
            low = int(found[-1][0])

    def row_of(self, item_id: str) -> int | None:
        """Row of an item in this segment, None where it is not here."""
        found = self._all("SELECT row FROM items WHERE item_id = ?", (item_id,))
        return int(found[0][0]) if found else None

    def integrity_problems(self) -> list[str]:
        """What SQLite's own check finds."""
        found = [str(row[0]) for row in self._all("PRAGMA integrity_check(5)")]
        return [] if found == ["ok"] else found

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._translated():
            return self._connection.execute(query, values).fetchall()

    def _record(self, values: tuple[Any, ...] | None) -> ItemRecord:
        if values is None:
            raise IndexFileError(f"{self._name} is damaged: an item is missing")
        for column, value in zip(COLUMNS, values, strict=True):
            self._check_type(column, value)
        return ItemRecord(**dict(zip(COLUMNS, values, strict=True)))

    def _check_type(self, column: str, value: object) -> None:
        if not isinstance(value, _TYPES.get(column, (str,))):
            raise self._wrong_type(column)

    def _wrong_type(self, column: str) -> IndexFileError:
        return IndexFileError(f"{self._name} is damaged: {column} has a wrong type")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise ValueError("the index is closed") from error
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise IndexFileError(
                f"{self._name} is damaged or missing ({error}); run `ildsdk index verify`"
            ) from error
