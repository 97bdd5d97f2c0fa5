"""Reading the rows of a damaged items file page by page, without SQLite's tree.

SQLite reaches a row through a chain of pages and gives up where one is damaged. The rows are in the
leaf pages, though, and each row has a CRC-32 in the columns file that proves it: so every
page is tried as a leaf of either table, and what fits its check is taken.

References
----------
SQLite database file format, sections 1.6 (b-tree pages) and 2.1 (records).
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.index.columns import item_check
from ildsdk.index.item_store import MAX_THUMBNAIL_BYTES, PAGE_BYTES, SCHEMA, STORED

_ITEM_VALUES = 1 + len(STORED)  # first the row: null, it is the key of the record
_POSITION = 1 + STORED.index("position_mm")
_FILE_HEADER = 100
_LEAF_HEADER = 8
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def salvage_items(
    damaged: Path,
    out: Path,
    item_checks: npt.NDArray[np.uint32],
    thumbnail_checks: npt.NDArray[np.uint32],
) -> npt.NDArray[np.bool_]:
    """Copy what proves itself to a new items file.

    Parameters
    ----------
    damaged, out : Path
        The items file of a segment of version 2; a file that does not exist yet.
    item_checks, thumbnail_checks : ndarray
        uint32 ``(n,)``, the checks of the segment's rows.

    Returns
    -------
    ndarray
        Mask ``(n,)`` of the rows whose item and thumbnail are both in ``out``.
    """
    n = len(item_checks)
    has_item, has_thumbnail = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    with contextlib.closing(sqlite3.connect(out, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        for statement in SCHEMA:
            connection.execute(statement)
        marks = ", ".join("?" * _ITEM_VALUES)
        for row, values in _records(damaged.read_bytes()):
            if not 0 <= row < n:
                continue
            if len(values) == _ITEM_VALUES and not has_item[row]:
                if item_check(values[1:]) == item_checks[row]:
                    connection.execute(f"INSERT INTO items VALUES ({marks})", (row, *values[1:]))
                    has_item[row] = True
            elif len(values) == 2 and not has_thumbnail[row]:
                picture = values[1]
                if isinstance(picture, bytes) and zlib.crc32(picture) == thumbnail_checks[row]:
                    connection.execute("INSERT INTO thumbnails VALUES (?, ?)", (row, picture))
                    has_thumbnail[row] = True
        connection.execute("COMMIT")
    return has_item & has_thumbnail


def _records(content: bytes) -> Iterator[tuple[int, list[Any]]]:
    """Key and values of whatever can be read as a record of a table, right or not."""
    for start in range(0, len(content) - PAGE_BYTES + 1, PAGE_BYTES):
        page = content[start : start + PAGE_BYTES]
        first = (_FILE_HEADER if start == 0 else 0) + _LEAF_HEADER
        # Type and number of cells are not believed: pointers are followed while they can be right.
        for place in range(first, PAGE_BYTES - 1, 2):
            pointer = int.from_bytes(page[place : place + 2], "big")
            if not place + 2 <= pointer < PAGE_BYTES:
                if pointer == 0:
                    break
                continue
            try:
                yield _record(content, page, pointer)
            except (IndexError, ValueError, struct.error):
                continue


def _record(content: bytes, page: bytes, place: int) -> tuple[int, list[Any]]:
    n_payload, place = _varint(page, place)
    row, place = _varint(page, place)
    if n_payload > 2 * MAX_THUMBNAIL_BYTES:
        raise ValueError("longer than any record")
    payload = _payload(content, page, place, n_payload)
    n_header, place = _varint(payload, 0)
    kinds = []
    while place < n_header:
        kind, place = _varint(payload, place)
        kinds.append(kind)
    if len(kinds) not in (2, _ITEM_VALUES) or kinds[0] != 0:
        raise ValueError("no record of ours")
    values = []
    for kind in kinds:
        value, place = _value(payload, place, kind)
        values.append(value)
    if len(kinds) == _ITEM_VALUES and isinstance(values[_POSITION], int):
        values[_POSITION] = float(values[_POSITION])  # how SQLite stores a whole REAL
    return row, values


def _payload(content: bytes, page: bytes, place: int, n_payload: int) -> bytes:
    """A record's bytes, with those on overflow pages."""
    most = PAGE_BYTES - 35
    if n_payload <= most:
        found = page[place : place + n_payload]
    else:
        least = (PAGE_BYTES - 12) * 32 // 255 - 23
        n_local = least + (n_payload - least) % (PAGE_BYTES - 4)
        n_local = n_local if n_local <= most else least
        found = page[place : place + n_local]
        number = int.from_bytes(page[place + n_local : place + n_local + 4], "big")
        while number and len(found) < n_payload:
            start = (number - 1) * PAGE_BYTES
            overflow = content[start : start + PAGE_BYTES]
            number = int.from_bytes(overflow[:4], "big")
            found += overflow[4 : 4 + n_payload - len(found)]
            if not overflow:
                break
    if len(found) != n_payload:
        raise ValueError("record ends early")
    return found


def _value(payload: bytes, place: int, kind: int) -> tuple[Any, int]:
    if kind == 0:
        return None, place
    if kind in _INTEGER_BYTES:
        end = place + _INTEGER_BYTES[kind]
        return int.from_bytes(payload[place:end], "big", signed=True), end
    if kind == 7:
        return struct.unpack_from(">d", payload, place)[0], place + 8
    if kind in (8, 9):
        return kind - 8, place
    if kind < 12:
        raise ValueError("reserved kind")
    end = place + (kind - 12) // 2
    if end > len(payload):
        raise ValueError("value ends early")
    return (payload[place:end].decode() if kind % 2 else payload[place:end]), end


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for i in range(9):
        byte = data[place + i]
        if i == 8:
            return (value << 8) | byte, place + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, place + i + 1
    raise ValueError("no number")
