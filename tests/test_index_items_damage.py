"""Items files that are damaged, foreign or hostile."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ildsdk.errors import IndexFileError
from ildsdk.index import Index, verify_index
from tests.index_damaging import bless, index_path, pristine

__all__ = ["index_path", "pristine"]  # fixtures


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE thumbnails",
        "CREATE VIEW more AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON items BEGIN SELECT 1; END",
        "ALTER TABLE items ADD COLUMN name TEXT",
    ],
)
def test_other_tables_are_refused_despite_right_checksums(index_path: Path, statement: str) -> None:
    execute(index_path / "items-000002.sqlite", statement)
    bless(index_path)
    with pytest.raises(IndexFileError, match="tables of an index"):
        Index.open(index_path)
    assert not verify_index(index_path).is_intact


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM items WHERE row = 3",
        "DELETE FROM thumbnails WHERE row = 3",
        "UPDATE items SET row = 40 WHERE row = 3",
        "UPDATE items SET item_id = '1.2.3.13' WHERE row = 3",
        "UPDATE items SET site = 'elsewhere' WHERE row = 3",
        "UPDATE thumbnails SET picture = x'00' WHERE row = 3",
    ],
)
def test_counts_and_keys_are_verified_despite_right_checksums(
    index_path: Path, statement: str
) -> None:
    execute(index_path / "items-000002.sqlite", statement)
    bless(index_path)
    assert not verify_index(index_path).is_intact


def test_wrong_types_in_a_row_are_an_index_error(index_path: Path) -> None:
    execute(index_path / "items-000002.sqlite", "UPDATE items SET label = x'00' WHERE row = 3")
    bless(index_path)
    with Index.open(index_path) as index, pytest.raises(IndexFileError, match="label"):
        index.items([3])
    assert not verify_index(index_path).is_intact


def test_a_damaged_sqlite_page_is_an_index_error(index_path: Path) -> None:
    path = index_path / "items-000002.sqlite"
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)
    with Index.open(index_path) as index:
        for call in (
            lambda: index.items([0]),
            lambda: index.thumbnail(0),
            lambda: index.thumbnail_of_item("1.2.3.0"),
            index.compact,
        ):
            with pytest.raises(IndexFileError):
                call()
    path.write_bytes(b"no database" * (len(content) // 11) + b"x" * (len(content) % 11))
    with pytest.raises(IndexFileError, match="items-000002"):
        Index.open(index_path)
