"""Engines on disk: complete, private, unchanged, and found for exactly what they were built for."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest

from ildsdk.errors import ModelError
from ildsdk.runtime.engine_cache import MANIFEST_NAME, Engine, EngineCache
from ildsdk.runtime.engine_key import EngineKey, engine_key, model_sha256
from ildsdk.runtime.nvidia import Gpu, NvidiaDriver
from ildsdk.runtime.provider_options import ShapeProfile

DRIVER = NvidiaDriver(
    version="580.65.06",
    cuda_version="13.0",
    gpus=(
        Gpu(index=0, name="Test GPU", compute_capability="9.0", memory_bytes=8 << 30),
        Gpu(index=1, name="Other GPU", compute_capability="8.6", memory_bytes=8 << 30),
    ),
)
PROFILE = ShapeProfile.of_batches({"image": ["batch", 1, 64, 64]}, optimum=1, maximum=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model" / "backbone.onnx"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def key(model: Path) -> EngineKey:
    return key_of(model)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def key_of(model: Path, device_id: int = 0) -> EngineKey:
    return engine_key(
        model,
        "fp16",
        batch_max=1,
        driver=DRIVER,
        device_id=device_id,
        tensorrt="10.13.2",
        builder_level=3,
        workspace_bytes=1 << 30,
    )


def built(cache: EngineCache, key: EngineKey, content: bytes = b"engine") -> Engine:
    with cache.draft(key) as draft:
        (draft / "ildsdk_1_sm90.engine").write_bytes(content)
        (draft / "ildsdk_1_sm90.profile").write_bytes(b"profile")
        return cache.commit(draft, key, PROFILE, 12.34)


def test_an_engine_is_found_again(cache: EngineCache, key: EngineKey) -> None:
    assert cache.find(key) is None
    engine = built(cache, key)
    assert cache.find(key) == engine
    assert engine.profile == PROFILE
    assert (engine.n_bytes, engine.build_seconds) == (13, 12.3)
    assert cache.scan() == ([engine], [])
    assert [path.name for path in cache.folder.iterdir()] == [key.folder_name]


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "0" * 64},
        {"precision": "fp32"},
        {"tensorrt": "10.14.0"},
        {"onnxruntime": "1.0"},
        {"driver": "590.1"},
        {"cuda": "13.1"},
        {"compute_capability": "8.9"},
        {"gpu": "Test GPU, more memory"},
        {"builder_level": 5},
        {"workspace_bytes": 1 << 31},
    ],
)
def test_an_engine_serves_for_its_key_only(
    cache: EngineCache, key: EngineKey, change: dict[str, object]
) -> None:
    built(cache, key)
    other = dataclasses.replace(key, **change)
    assert other.folder_name != key.folder_name
    assert cache.find(other) is None


def test_every_field_of_a_key_was_changed_above() -> None:
    marks = test_an_engine_serves_for_its_key_only.pytestmark  # type: ignore[attr-defined]
    changed = {name for change in marks[0].args[1] for name in change}
    fields = {field.name for field in dataclasses.fields(EngineKey)}
    assert fields - changed == {"batch_max"}


def test_the_smallest_engine_that_takes_the_batch(cache: EngineCache, key: EngineKey) -> None:
    for batch_max in (8, 2):
        built(cache, key.with_batch_max(batch_max))
    found = [cache.find(key, batch=batch) for batch in (1, 3, 9)]
    assert [engine and engine.key.batch_max for engine in found] == [2, 8, None]


@pytest.mark.parametrize("name", ["backbone-int8.onnx", "backbone-int8-symmetric.onnx"])
def test_the_key_of_an_8_bit_graph_covers_the_file_of_its_weights(model: Path, name: str) -> None:
    graph = model.with_name(name)
    graph.write_bytes(b"graph")
    before, of_weights = model_sha256(graph), model_sha256(model)
    model.write_bytes(b"other weights")
    assert model_sha256(graph) != before
    assert model_sha256(model) != of_weights


def test_the_key_names_the_device(model: Path) -> None:
    other = key_of(model, device_id=1)
    assert (other.gpu, other.compute_capability) == ("Other GPU", "8.6")
    with pytest.raises(ModelError, match="device_id is 2"):
        key_of(model, device_id=2)


def test_a_new_build_takes_the_place_of_the_old(cache: EngineCache, key: EngineKey) -> None:
    built(cache, key, b"old")
    engine = built(cache, key, b"newer")
    assert cache.scan()[0] == [engine]
    assert (engine.folder / "ildsdk_1_sm90.engine").read_bytes() == b"newer"


def test_an_unfinished_build_leaves_nothing(cache: EngineCache, key: EngineKey) -> None:
    def is_interrupted() -> None:
        with cache.draft(key) as draft:
            (draft / "ildsdk_1_sm90.engine").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        is_interrupted()
    assert list(cache.folder.iterdir()) == []


def test_what_a_killed_build_left_is_no_engine_and_goes_away(
    cache: EngineCache, key: EngineKey
) -> None:
    built(cache, key)
    for name, age_h in (("old", 25), ("new", 1)):
        left = cache.folder / f".build-{name}"
        left.mkdir()
        os.utime(left, (time.time() - age_h * 3600,) * 2)
    assert len(cache.scan()[0]) == 1
    with cache.draft(key):
        names = {path.name for path in cache.folder.iterdir()}
    assert ".build-new" in names
    assert ".build-old" not in names


def test_a_build_without_engine_is_refused(cache: EngineCache, key: EngineKey) -> None:
    with cache.draft(key) as draft, pytest.raises(ModelError, match="expected an engine"):
        cache.commit(draft, key, PROFILE, 1.0)
    assert cache.find(key) is None


def damage_engine(engine: Engine) -> None:
    (engine.folder / "ildsdk_1_sm90.engine").write_bytes(b"evil!!")


def add_file(engine: Engine) -> None:
    (engine.folder / "other.engine").write_bytes(b"x")


def lose_file(engine: Engine) -> None:
    (engine.folder / "ildsdk_1_sm90.profile").unlink()


def cut_manifest(engine: Engine) -> None:
    path = engine.folder / MANIFEST_NAME
    path.write_text(path.read_text()[:-20])


def change_key(engine: Engine) -> None:
    path = engine.folder / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    manifest["key"]["tensorrt"] = "10.0.0"
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "damage",
    [damage_engine, add_file, lose_file, cut_manifest, change_key],
    ids=lambda f: f.__name__,
)
def test_a_changed_engine_is_refused(cache: EngineCache, key: EngineKey, damage: object) -> None:
    damage(built(cache, key))  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"is damaged: .*build-engine --force") as caught:
        cache.find(key)
    assert str(cache.folder) not in str(caught.value)


def test_a_malformed_engine_does_not_hide_the_others(cache: EngineCache, key: EngineKey) -> None:
    cut_manifest(built(cache, key.with_batch_max(2)))
    engine = built(cache, key)
    assert cache.find(key) == engine
    engines, problems = cache.scan()
    assert engines == [engine]
    assert len(problems) == 1


def test_a_malformed_engine_of_another_key_is_no_obstacle(
    cache: EngineCache, model: Path, key: EngineKey
) -> None:
    """To building this one, which starts with looking for it."""
    cut_manifest(built(cache, key_of(model, device_id=1)))
    assert cache.find(key) is None
    assert len(cache.scan()[1]) == 1


posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX owners and modes")


@posix
def test_engines_are_for_their_owner_only(cache: EngineCache, key: EngineKey) -> None:
    engine = built(cache, key)
    modes = [path.stat().st_mode & 0o077 for path in (cache.folder, engine.folder)]
    assert modes == [0, 0]
    assert all(path.stat().st_mode & 0o077 == 0 for path in engine.folder.iterdir())


@posix
@pytest.mark.parametrize("place", ["cache", "above", "engine", "file", "manifest"])
def test_what_others_can_write_is_not_loaded(
    cache: EngineCache, key: EngineKey, place: str
) -> None:
    engine = built(cache, key)
    path = {
        "cache": cache.folder,
        "above": cache.folder.parent,
        "engine": engine.folder,
        "file": engine.folder / "ildsdk_1_sm90.engine",
        "manifest": engine.folder / MANIFEST_NAME,
    }[place]
    path.chmod(0o777)
    with pytest.raises(ModelError, match="another account can change"):
        cache.find(key)


@posix
def test_an_empty_folder_others_can_write_is_refused(cache: EngineCache, key: EngineKey) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o777)
    for ask in (cache.scan, lambda: cache.find(key), lambda: cache.timing_folder(key)):
        with pytest.raises(ModelError, match="folder 'engines' is a link, or another account"):
            ask()


@posix
def test_links_are_not_followed(cache: EngineCache, key: EngineKey, tmp_path: Path) -> None:
    engine = built(cache, key)
    outside = tmp_path / "outside"
    engine.folder.rename(outside)
    engine.folder.symlink_to(outside)
    with pytest.raises(ModelError, match="is a link"):
        cache.find(key)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_what_belongs_to_another_account_is_not_loaded(cache: EngineCache, key: EngineKey) -> None:
    engine = built(cache, key)
    os.chown(engine.folder / "ildsdk_1_sm90.engine", 12345, 12345)
    with pytest.raises(ModelError, match="another account can change"):
        cache.find(key)
