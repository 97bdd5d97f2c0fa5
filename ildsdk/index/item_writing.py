"""Writing the items and thumbnails of a new segment, row by row, checking on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import sqlite3
import zlib
from array import array
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import InputError
from ildsdk.index.columns import FIELDS, Column, ColumnBuilder, Field, item_check
from ildsdk.index.item_store import COLUMNS, MAX_THUMBNAIL_BYTES, PAGE_BYTES, SCHEMA, STORED
from ildsdk.index.items import ItemRecord

_values_of = attrgetter(*COLUMNS)
_PLACES = {field: STORED.index(field) for field in FIELDS}
_CHUNK_ROWS = 2048
_NONE = type(None)
_EXPECTED_TYPES = tuple(
    {
        "frame": (int, _NONE),
        "position_mm": (float, _NONE),
        "site": (str, _NONE),
        "verification": (str, _NONE),
        "patient_key": (_NONE,),
    }.get(name, (str,))
    for name in COLUMNS
)
_USUAL_TYPES = set(itertools.product(*_EXPECTED_TYPES))

Values = tuple[Any, ...]  # of an item, in the order of item_store.STORED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WrittenItems:
    """What was learned about the items while they were written.

    Attributes
    ----------
    columns : dict of str to Column
        Text columns as integers, one for each of ``columns.FIELDS``.
    item_checks, thumbnail_checks : ndarray
        uint32, CRC-32 of each row.
    """

    columns: dict[Field, Column]
    item_checks: npt.NDArray[np.uint32]
    thumbnail_checks: npt.NDArray[np.uint32]


def write_items(
    path: Path, n: int, items: Iterable[Values], thumbnails: Iterable[bytes]
) -> WrittenItems:
    """Write the items of a new segment to a file that does not exist yet.

    Raises
    ------
    TypeError, ValueError
        A wrong type or value, or other than n items or thumbnails.
    InputError
        An item id stands twice, or a case has two labels.
    """
    rows = _ItemRows(items)
    thumbnail_checks = array("I")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # The file counts only once it is complete and renamed: SQLite need not guard it.
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-65536")  # KiB; sorts the index
        connection.execute("BEGIN")
        *tables, unique_index = SCHEMA
        for statement in tables:
            connection.execute(statement)
        marks = ", ".join("?" * (len(STORED) + 1))
        connection.executemany(f"INSERT INTO items VALUES ({marks})", rows)
        connection.executemany(
            "INSERT INTO thumbnails VALUES (?, ?)", _thumbnails(thumbnails, thumbnail_checks)
        )
        if not len(rows.checks) == len(thumbnail_checks) == n:
            raise ValueError(
                f"{n} embeddings, {len(rows.checks)} items, {len(thumbnail_checks)} thumbnails: "
                "expected the same number of each"
            )
        try:
            connection.execute(unique_index)
        except sqlite3.IntegrityError as error:
            found = connection.execute("SELECT COUNT(*) - COUNT(DISTINCT item_id) FROM items")
            raise InputError(
                f"{found.fetchone()[0]} of {n} slices to add are in the list twice (same "
                "SOPInstanceUID and frame): list each study once; nothing was added"
            ) from error
        connection.execute("COMMIT")
    written = rows.finish(thumbnail_checks)
    _check_one_label_per_case(written.columns["case_id"], written.columns["label"])
    return written


def learned(items: Iterable[Values], thumbnails: Iterable[bytes]) -> WrittenItems:
    """What :func:`write_items` would learn, of items that are written already."""
    rows = _ItemRows(items)
    for _ in rows:
        pass
    checks = array("I")
    for _ in _thumbnails(thumbnails, checks):
        pass
    return rows.finish(checks)


class _ItemRows:
    """Rows for SQLite; columns and checks grow as they go by."""

    def __init__(self, items: Iterable[Values]) -> None:
        self._items = items
        self._builders = {field: ColumnBuilder() for field in FIELDS}
        self.checks = array("I")

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        items = iter(self._items)
        while chunk := list(itertools.islice(items, _CHUNK_ROWS)):
            by_column = list(zip(*chunk, strict=True))
            for field, builder in self._builders.items():
                builder.extend(by_column[_PLACES[field]])
            first_row = len(self.checks)
            self.checks.extend(map(item_check, chunk))
            yield from ((row, *values) for row, values in enumerate(chunk, start=first_row))

    def finish(self, thumbnail_checks: array[int]) -> WrittenItems:
        return WrittenItems(
            columns={field: builder.finish() for field, builder in self._builders.items()},
            item_checks=np.array(self.checks, np.uint32),
            thumbnail_checks=np.array(thumbnail_checks, np.uint32),
        )


def stored_values(item: ItemRecord, patient_key: str | None, added_on: str) -> Values:
    """Values of a new item in the order of ``item_store.STORED``.

    Raises
    ------
    TypeError, ValueError
        A wrong type, an empty key, a position that is no finite number.
    """
    values: Values = _values_of(item)
    types = tuple(map(type, values))
    if types not in _USUAL_TYPES:
        item = _with_plain_numbers(item)
        values = _values_of(item)
    if not (item.item_id and item.case_id and item.label):
        raise ValueError("an item has an empty item_id, case_id or label")
    position = item.position_mm
    if position is not None and not math.isfinite(position):
        raise ValueError(f"position_mm is {position}, expected a finite number or None")
    return (*values[:-1], patient_key, added_on)


def _with_plain_numbers(item: ItemRecord) -> ItemRecord:
    """The item with a plain float for its position.

    Raises
    ------
    TypeError
        A value of a type the index has no place for.
    """
    position = item.position_mm
    if isinstance(position, (int, float)) and not isinstance(position, bool):
        item = dataclasses.replace(item, position_mm=float(position))
    types = tuple(map(type, _values_of(item)))
    for name, found, expected in zip(COLUMNS, types, _EXPECTED_TYPES, strict=True):
        if found not in expected:
            told = " or ".join("None" if one is _NONE else one.__name__ for one in expected)
            raise TypeError(f"{name} is {found.__name__}, expected {told}")
    return item


def _thumbnails(thumbnails: Iterable[bytes], checks: array[int]) -> Iterator[tuple[int, bytes]]:
    for row, thumbnail in enumerate(thumbnails):
        if not isinstance(thumbnail, bytes):
            raise TypeError(f"a thumbnail is {type(thumbnail).__name__}, expected bytes")
        if len(thumbnail) > MAX_THUMBNAIL_BYTES:
            raise ValueError(
                f"a thumbnail has {len(thumbnail)} bytes, expected at most {MAX_THUMBNAIL_BYTES}"
            )
        checks.append(zlib.crc32(thumbnail))
        yield row, thumbnail


def _check_one_label_per_case(cases: Column, labels: Column) -> None:
    label_of_case = np.empty(len(cases.names), np.int32)
    label_of_case[cases.numbers] = labels.numbers
    bad = cases.numbers[label_of_case[cases.numbers] != labels.numbers]
    refuse_second_labels(len(np.unique(bad)))


def refuse_second_labels(n_cases: int) -> None:
    """Stop where cases would get a second label.

    Raises
    ------
    InputError
        ``n_cases`` is not 0.
    """
    if n_cases:
        raise InputError(
            f"{n_cases} cases would have two labels, expected one label per case; nothing was added"
        )
