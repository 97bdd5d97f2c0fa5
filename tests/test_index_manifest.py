"""Manifests that are damaged, foreign, newer or hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ildsdk.errors import IndexFileError
from ildsdk.index import Index, verify_index
from tests.index_damaging import index_path, pristine, rewrite

__all__ = ["index_path", "pristine"]  # fixtures


def test_newer_schema_has_its_own_message(index_path: Path) -> None:
    rewrite(index_path, schema="ildsdk.index/4", colors=3)
    with pytest.raises(IndexFileError, match="written by a newer ildsdk"):
        Index.open(index_path)


@pytest.mark.parametrize("schema", ["ildsdk.bundle/1", "", None, 1, "ildsdk.index/0"])
def test_other_schemas_are_refused(index_path: Path, schema: object) -> None:
    rewrite(index_path, schema=schema)
    with pytest.raises(IndexFileError, match=r"not of an ildsdk index|expected ildsdk\.index/3"):
        Index.open(index_path)


def test_other_bundle_is_refused(index_path: Path) -> None:
    with pytest.raises(IndexFileError, match="built with bundle bbbbbbbbbbbb, this is bundle cccc"):
        Index.open(index_path, expected_bundle_hash="c" * 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 0}, {"revision": True}, {"revision": 1.0}, {"name": 5}, {"bundle_hash": None},
        {"embedding_size": 0}, {"embedding_size": 10**9}, {"embedding_size": "16"},
        {"is_synthetic": 1}, {"salt": "zz"}, {"salt": "a" * 63}, {"hashing": []},
        {"calibration": {"no_match_threshold": 2, "how": ""}}, {"calibration": {"how": ""}},
        {"calibration": {"no_match_threshold": True, "how": ""}}, {"segments": {}},
        {"segments": [1]}, {"segments": [{}]}, {"unknown": 1}, {"name": "x" * 10_001},
        {"schema": "ildsdk.index/1"}, {"schema": "ildsdk.index/2"}, {"maps": None}, {"maps": []},
        {"maps": {"explain_sha256": "e" * 64, "n_rows": 2}},
        {"maps": {"explain_sha256": "e" * 64, "n_rows": 2, "n_columns": 257}},
        {"maps": {"explain_sha256": "E" * 64, "n_rows": 2, "n_columns": 3}},
    ],
)  # fmt: skip
def test_each_field_of_the_manifest_is_checked(index_path: Path, changes: dict[str, Any]) -> None:
    rewrite(index_path, **changes)
    with pytest.raises(IndexFileError, match=r"manifest\.json"):
        Index.open(index_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"schema": NaN}',
        b"[" * 100_000,
        b"{}",
        b"1" * 5000,
    ],
)
def test_a_manifest_that_is_no_manifest_is_refused(index_path: Path, content: bytes) -> None:
    (index_path / "manifest.json").write_bytes(content)
    with pytest.raises(IndexFileError):
        Index.open(index_path)
    assert not verify_index(index_path).is_intact


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors", "/etc/passwd", "sub/arrays-000002.safetensors", "..", "",
        "arrays-000002.safetensors\n", "C:\\arrays-000002.safetensors", "arrays-000002.sqlite",
        "arrays-\u0660\u0660\u0660\u0660\u0660\u0661.safetensors", "manifest.json",
    ],
)  # fmt: skip
def test_file_names_must_be_plain_names_of_index_files(index_path: Path, name: str) -> None:
    fields = json.loads((index_path / "manifest.json").read_text())
    fields["segments"][0]["arrays"]["file"] = name
    rewrite(index_path, segments=fields["segments"])
    with pytest.raises(IndexFileError, match="plain name"):
        Index.open(index_path)
    hashing = {**fields["hashing"], "hyperplanes": {**fields["hashing"]["hyperplanes"]}}
    hashing["hyperplanes"]["file"] = name
    rewrite(index_path, hashing=hashing)
    with pytest.raises(IndexFileError, match="plain name"):
        Index.open(index_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_items": 0}, {"n_removed": 13}, {"n_removed": 0}, {"removed": None}, {"arrays": None},
        {"items": None}, {"max_norm": 2.0}, {"max_norm": 1}, {"max_norm": "1"}, {"codes": {}},
        {"unknown": 1}, {"maps": {}}, {"maps": 1},
    ],
)  # fmt: skip
def test_each_field_of_a_segment_is_checked(index_path: Path, changes: dict[str, Any]) -> None:
    fields = json.loads((index_path / "manifest.json").read_text())
    fields["segments"][0] |= changes
    rewrite(index_path, segments=fields["segments"])
    with pytest.raises(IndexFileError, match=r"manifest\.json"):
        Index.open(index_path)


def test_one_file_cannot_serve_two_segments(index_path: Path) -> None:
    fields = json.loads((index_path / "manifest.json").read_text())
    rewrite(index_path, segments=[fields["segments"][0]] * 2)
    with pytest.raises(IndexFileError, match="names a file twice"):
        Index.open(index_path)


def test_a_copy_one_change_behind_is_no_damage_but_another_one_is(index_path: Path) -> None:
    older = (index_path / "manifest.copy.json").read_bytes()
    with Index.open(index_path) as index:
        index.set_calibration(0.5, "newer")
    (index_path / "manifest.copy.json").write_bytes(older)  # as after a kill
    assert verify_index(index_path).is_intact
    with Index.open(index_path) as index:
        index.set_calibration(0.6, "newest")
    assert (index_path / "manifest.copy.json").read_bytes() == (
        index_path / "manifest.json"
    ).read_bytes()
    newest = (index_path / "manifest.json").read_bytes()
    rewrite(index_path, name="another")
    (index_path / "manifest.json").write_bytes(newest)
    assert not verify_index(index_path).is_intact
    (index_path / "manifest.copy.json").unlink()  # as after a kill in the first change
    assert verify_index(index_path).is_intact
