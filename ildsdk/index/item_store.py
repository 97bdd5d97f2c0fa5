"""Items and thumbnails of one segment: a read-only SQLite file."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ildsdk.errors import IndexFileError
from ildsdk.index.items import ItemRecord

MAX_THUMBNAIL_BYTES = 2**20

_COLUMNS = tuple(field.name for field in dataclasses.fields(ItemRecord))
_SCHEMA = (
    "CREATE TABLE items (row INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE, "
    "case_id TEXT NOT NULL, label TEXT NOT NULL, study_instance_uid TEXT NOT NULL, "
    "series_instance_uid TEXT NOT NULL, sop_instance_uid TEXT NOT NULL, frame INTEGER, "
    "position_mm REAL, site TEXT, verification TEXT, patient_key TEXT)",
    "CREATE TABLE thumbnails (row INTEGER PRIMARY KEY, picture BLOB NOT NULL)",
    "CREATE INDEX items_by_patient ON items (patient_key)",
    "CREATE INDEX items_by_study ON items (study_instance_uid)",
)
_TYPES: dict[str, tuple[type, ...]] = {
    "frame": (int, type(None)),
    "position_mm": (float, type(None)),
    "site": (str, type(None)),
    "verification": (str, type(None)),
    "patient_key": (str, type(None)),
}


def write_items(path: Path, items: Sequence[ItemRecord], thumbnails: Sequence[bytes]) -> None:
    """Write the items of a new segment to a file that does not exist yet."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # The file counts only once it is complete and renamed: SQLite need not guard it.
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        for statement in _SCHEMA:
            connection.execute(statement)
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        connection.executemany(
            f"INSERT INTO items VALUES ({marks})",
            (
                (row, *(getattr(item, column) for column in _COLUMNS))
                for row, item in enumerate(items)
            ),
        )
        connection.executemany("INSERT INTO thumbnails VALUES (?, ?)", enumerate(thumbnails))
        connection.execute("COMMIT")


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
            if {row[0] for row in found} != set(_SCHEMA) or len(found) != len(_SCHEMA):
                self._connection.close()
                raise IndexFileError(f"{self._name} does not hold the tables of an index segment")

    def close(self) -> None:
        """Close the file; later reads fail."""
        with self._lock:
            self._connection.close()

    def items(self, rows: Iterable[int]) -> list[ItemRecord]:
        """Items of some rows of this segment, in the order asked for."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM items WHERE row = ?"
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
        if name not in _COLUMNS:
            raise ValueError(f"{name!r} is no column of an item")
        values = [row[0] for row in self._all(f"SELECT {name} FROM items ORDER BY row")]
        for value in values:
            self._check_type(name, value)
        return values

    def n_items_and_thumbnails(self) -> tuple[int, int]:
        """Rows with an item and rows with a thumbnail, counting those numbered without a gap."""
        counts = []
        for table in ("items", "thumbnails"):
            n, low, high = self._all(f"SELECT COUNT(*), MIN(row), MAX(row) FROM {table}")[0]
            counts.append(int(n) if n and (low, high) == (0, n - 1) else -1)
        return counts[0], counts[1]

    def labels_of_cases(self) -> dict[str, str]:
        """Label of each case in this segment."""
        return dict(zip(self.column("case_id"), self.column("label"), strict=True))

    def sites(self) -> dict[str, int]:
        """Items per site; items without a site are not counted."""
        return Counter(site for site in self.column("site") if site is not None)

    def known(self, item_ids: Iterable[str]) -> int:
        """How many of these item ids this segment holds."""
        query = "SELECT 1 FROM items WHERE item_id = ?"
        with self._lock, self._translated():
            return sum(
                self._connection.execute(query, (item_id,)).fetchone() is not None
                for item_id in item_ids
            )

    def row_of(self, item_id: str) -> int | None:
        """Row of an item in this segment, None where it is not here."""
        found = self._all("SELECT row FROM items WHERE item_id = ?", (item_id,))
        return int(found[0][0]) if found else None

    def rows_of_patient(self, patient_key: str | None, study_instance_uid: str | None) -> list[int]:
        """Rows of a patient or of a study."""
        found = self._all(
            "SELECT row FROM items WHERE patient_key = ? UNION "
            "SELECT row FROM items WHERE study_instance_uid = ?",
            (patient_key, study_instance_uid),
        )
        return [int(row[0]) for row in found]

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
        for column, value in zip(_COLUMNS, values, strict=True):
            self._check_type(column, value)
        return ItemRecord(**dict(zip(_COLUMNS, values, strict=True)))

    def _check_type(self, column: str, value: object) -> None:
        if not isinstance(value, _TYPES.get(column, (str,))):
            raise IndexFileError(f"{self._name} is damaged: {column} has a wrong type")

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
