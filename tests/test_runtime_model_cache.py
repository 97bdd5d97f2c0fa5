"""Entries of optimized models: whole, for one key, from trusted hands, or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest

from ildsdk.runtime import model_cache
from ildsdk.runtime.model_cache import MAX_ENTRIES, CacheFolder, CacheKey

KEY = CacheKey(model_sha256="ab" * 32, facts={"engine": "x 1.0", "cpu": "00"})
posix_only = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of POSIX")


@pytest.fixture
def cache(tmp_path: Path) -> CacheFolder:
    return CacheFolder.of_user(tmp_path / "cache" / "models")


def keep(cache: CacheFolder, key: CacheKey = KEY, content: bytes = b"graph") -> bool:
    with cache.draft(key) as draft:
        if draft is None:
            return False
        (draft.folder / "graph.onnx").write_bytes(content)
        (draft.folder / "weights.bin").write_bytes(content * 1000)
        return draft.publish()


def names(cache: CacheFolder) -> list[str]:
    return sorted(path.name for path in cache.path.iterdir())


def test_an_entry_is_found_by_its_whole_key_only(cache: CacheFolder) -> None:
    assert cache.find(KEY) is None
    assert not cache.path.exists()
    assert keep(cache)
    entry = cache.find(KEY)
    assert entry is not None
    assert (entry / "graph.onnx").read_bytes() == b"graph"
    for other in (
        dataclasses.replace(KEY, model_sha256="ab" * 31 + "cd"),
        dataclasses.replace(KEY, facts={**KEY.facts, "engine": "x 1.1"}),
        dataclasses.replace(KEY, facts={**KEY.facts, "cpu": "01"}),
        dataclasses.replace(KEY, facts={"engine": "x 1.0"}),
    ):
        assert cache.find(other) is None
        # Nor where the shortened names of two keys were the same.
        entry.rename(cache.path / other.folder_name)
        assert cache.find(other) is None
        (cache.path / other.folder_name).rename(entry)
    assert cache.find(KEY) == entry


def test_an_unpublished_draft_leaves_nothing(cache: CacheFolder) -> None:
    with cache.draft(KEY) as draft:
        assert draft is not None
        (draft.folder / "graph.onnx").write_bytes(b"half")
    assert names(cache) == []


@pytest.mark.parametrize(
    "damage", ["flip", "cut", "grow", "missing", "stranger", "no entry", "not json", "schema"]
)
def test_a_damaged_entry_is_as_good_as_absent_and_replaced(cache: CacheFolder, damage: str) -> None:
    assert keep(cache)
    entry = cache.path / KEY.folder_name
    weights, description = entry / "weights.bin", entry / "entry.json"
    content = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(content[:-1] + b"X")
    elif damage == "cut":
        weights.write_bytes(content[:100])
    elif damage == "grow":
        weights.write_bytes(content + b"X")
    elif damage == "missing":
        weights.unlink()
    elif damage == "stranger":
        (entry / "more.bin").write_bytes(b"")
    elif damage == "no entry":
        description.unlink()
    elif damage == "not json":
        description.write_text("[" * 60_000)
    else:
        made = json.loads(description.read_text())
        description.write_text(json.dumps({**made, "schema": "ildsdk.model-cache/0"}))
    assert cache.find(KEY) is None
    assert keep(cache)
    assert cache.find(KEY) == entry
    assert names(cache) == [KEY.folder_name]


def test_older_entries_go(cache: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def used(age_s: float, key: CacheKey) -> None:
        moment = time.time() - age_s
        os.utime(cache.path / key.folder_name, (moment, moment))

    keys = [dataclasses.replace(KEY, model_sha256=f"{n:02x}" * 32) for n in range(MAX_ENTRIES + 1)]
    for age_s, key in enumerate(keys[:MAX_ENTRIES]):
        assert keep(cache, key)
        used(100.0 - age_s, key)
    assert cache.find(keys[0]) is not None  # which uses it
    (cache.path / ".draft-old").mkdir()
    os.utime(cache.path / ".draft-old", (0, 0))
    (cache.path / "of somebody else").mkdir()
    assert keep(cache, keys[-1])
    assert cache.find(keys[0]) is not None
    assert cache.find(keys[1]) is None  # the least recently used
    newer = dataclasses.replace(keys[-1], facts={"engine": "x 2.0"})
    assert keep(cache, newer)
    # Two installations, or two kinds of machine with one home, do not throw out each other's.
    assert cache.find(keys[-1]) is not None
    assert sum(cache.find(key) is not None for key in (*keys, newer)) == MAX_ENTRIES
    expected = [keys[n] for n in (0, 3, 4)] + [newer]
    assert names(cache) == sorted([*(key.folder_name for key in expected), "of somebody else"])


def test_the_first_of_two_writers_wins(cache: CacheFolder) -> None:
    with cache.draft(KEY) as slow:
        assert slow is not None
        (slow.folder / "graph.onnx").write_bytes(b"slow")
        assert keep(cache, content=b"fast")
        assert slow.publish()  # a sound one is there
    entry = cache.find(KEY)
    assert entry is not None
    assert (entry / "graph.onnx").read_bytes() == b"fast"
    assert names(cache) == [KEY.folder_name]


@posix_only
def test_only_this_account_can_read_or_write(cache: CacheFolder) -> None:
    old_mask = os.umask(0)
    try:
        assert keep(cache)
    finally:
        os.umask(old_mask)
    rights = {path.name: oct(path.stat().st_mode)[-3:] for path in cache.path.rglob("*")}
    assert rights == {
        KEY.folder_name: "700", "graph.onnx": "600", "weights.bin": "600", "entry.json": "600",
    }  # fmt: skip
    assert oct(cache.path.stat().st_mode)[-3:] == "700"


@posix_only
@pytest.mark.parametrize("what", ["folder", "parent", "entry", "file", "description"])
def test_what_others_can_write_is_not_used(cache: CacheFolder, what: str) -> None:
    assert keep(cache)
    entry = cache.path / KEY.folder_name
    path = {
        "folder": cache.path,
        "parent": cache.path.parent,
        "entry": entry,
        "file": entry / "weights.bin",
        "description": entry / "entry.json",
    }[what]
    path.chmod(path.stat().st_mode | 0o002)
    assert cache.find(KEY) is None
    if what in ("folder", "parent"):
        assert not keep(cache, dataclasses.replace(KEY, facts={}))
    path.chmod(path.stat().st_mode & ~0o002)
    assert cache.find(KEY) == entry


@posix_only
@pytest.mark.parametrize("what", ["folder", "entry", "file", "description"])
def test_links_are_not_followed(cache: CacheFolder, tmp_path: Path, what: str) -> None:
    assert keep(cache)
    entry = cache.path / KEY.folder_name
    path = {
        "folder": cache.path,
        "entry": entry,
        "file": entry / "weights.bin",
        "description": entry / "entry.json",
    }[what]
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert cache.find(KEY) is None
    if what == "folder":
        assert not keep(cache)
    else:
        assert keep(cache)
        assert elsewhere.exists()
        assert cache.find(KEY) == entry


@posix_only
def test_files_of_another_account_are_not_used(cache: CacheFolder) -> None:
    assert keep(cache)
    stranger = dataclasses.replace(cache, owners=frozenset({os.geteuid() + 1}))
    assert stranger.find(KEY) is None
    assert not keep(stranger)


def test_a_folder_that_cannot_be_made_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = CacheFolder.of_user(tmp_path / "file" / "models")
    assert cache.find(KEY) is None
    assert not keep(cache)


def test_a_full_disk_keeps_nothing(cache: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(model_cache.Path, "write_text", full)
        with cache.draft(KEY) as draft:
            assert draft is not None
            (draft.folder / "graph.onnx").write_bytes(b"graph")
            assert not draft.publish()
    assert names(cache) == []


@posix_only
def test_beside_the_package_all_accounts_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_cache, "_BESIDE_PACKAGE", tmp_path / "package" / "models")
    shared = CacheFolder.beside_package()
    assert keep(shared)
    entry = shared.find(KEY)
    assert entry is not None
    modes = {oct(path.stat().st_mode)[-3:] for path in (shared.path, entry)}
    assert modes == {"755"}
    assert {oct(path.stat().st_mode)[-3:] for path in entry.iterdir()} == {"644"}
