"""Sessions from a cached optimized graph: the same bits, never stale, never an error."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import ModelError
from ildsdk.runtime import ort_optimized
from ildsdk.runtime.cpu_features import CpuFeatures
from ildsdk.runtime.model_cache import CacheFolder, ModelCache
from ildsdk.runtime.ort_optimized import cache_key, open_optimized
from ildsdk.settings import RuntimeSettings
from tests.bundle_factory import INPUT_SIZE, write_tiny_bundle

IMAGE = np.random.default_rng(1).random((2, 1, INPUT_SIZE, INPUT_SIZE), np.float32)
SHA256 = "ab" * 32


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", with_int8=True)


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    folder = CacheFolder.of_user(tmp_path / "models")
    return ModelCache(read=(folder,), write=(folder,))


def answer(bundle: Bundle, cache: ModelCache) -> list[bytes]:
    session = open_optimized(bundle.backbone, SHA256, 2, cache)
    assert session.provider == "cpu"
    outputs = session.run_all(["deep_features", "feature_map"], {"image": IMAGE})
    return [output.tobytes() for output in outputs]


def test_a_cached_session_gives_the_same_bits_without_the_model(
    bundle: Bundle, cache: ModelCache, tmp_path: Path
) -> None:
    expected = answer(bundle, ModelCache())
    assert answer(bundle, cache) == expected
    (entry,) = cache.read[0].path.iterdir()
    assert {path.name for path in entry.iterdir()} >= {"graph.onnx", "entry.json"}
    # The model is not read again.
    elsewhere = dataclasses.replace(bundle, folder=tmp_path / "gone")
    assert answer(elsewhere, cache) == expected


def test_the_key_changes_with_whatever_the_graph_depends_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [cache_key(SHA256), cache_key("cd" * 32)]
    with monkeypatch.context() as changed:
        changed.setattr(ort_optimized.ort, "__version__", "0.0")
        keys.append(cache_key(SHA256))
    with monkeypatch.context() as changed:
        changed.setattr(ort_optimized.ort, "get_build_info", lambda: "another build")
        keys.append(cache_key(SHA256))
    for names in ({"avx2"}, {"avx2", "avx512vnni"}):
        cpu = CpuFeatures(machine="x86_64", names=frozenset(names))
        with monkeypatch.context() as changed:
            changed.setattr(ort_optimized, "cpu_features", lambda cpu=cpu: cpu)
            keys.append(cache_key(SHA256))
    assert None not in keys
    assert len({key.folder_name for key in keys if key is not None}) == len(keys)


def test_a_processor_that_cannot_be_told_has_no_cache(
    bundle: Bundle, cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = CpuFeatures(machine="x86_64", names=frozenset())
    monkeypatch.setattr(ort_optimized, "cpu_features", lambda: unknown)
    assert answer(bundle, cache) == answer(bundle, ModelCache())
    assert not cache.read[0].path.exists()


@pytest.mark.parametrize("name", ["graph.onnx", "entry.json"])
def test_a_damaged_entry_costs_time_only(bundle: Bundle, cache: ModelCache, name: str) -> None:
    expected = answer(bundle, cache)
    (entry,) = cache.read[0].path.iterdir()
    (entry / name).write_bytes(b"no model")
    assert answer(bundle, cache) == expected
    assert b"no model" not in (entry / name).read_bytes()


def test_a_graph_that_would_answer_otherwise_is_not_kept(
    bundle: Bundle, cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answer(bundle, ModelCache())
    monkeypatch.setattr(ort_optimized, "_answer_alike", lambda *_: False)
    assert answer(bundle, cache) == expected
    assert not list(cache.read[0].path.iterdir())


def test_a_full_disk_is_no_error(bundle: Bundle, cache: ModelCache, tmp_path: Path) -> None:
    """A child that may write files of 200 bytes at most."""
    code = f"""
import resource, signal
from pathlib import Path
from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.settings import RuntimeSettings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
bundle = Bundle.open({str(bundle.folder)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
Encoder(bundle, RuntimeSettings(provider="cpu", model_cache=Path({str(tmp_path / "c")!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not list((tmp_path / "c").iterdir())


def test_a_broken_model_is_an_error_with_and_without_a_cache(
    cache: ModelCache, tmp_path: Path
) -> None:
    (tmp_path / "backbone.onnx").write_bytes(b"no model")
    for one in (cache, ModelCache()):
        with pytest.raises(ModelError, match=r"backbone.onnx does not load") as caught:
            open_optimized(tmp_path / "backbone.onnx", SHA256, 1, one)
        assert str(tmp_path) not in str(caught.value)
    assert not list(cache.read[0].path.iterdir())


def test_an_encoder_keeps_and_uses_its_backbone(bundle: Bundle, tmp_path: Path) -> None:
    settings = RuntimeSettings(provider="cpu", model_cache=tmp_path / "models")
    Encoder(bundle, settings).self_test()
    (entry,) = (tmp_path / "models").iterdir()
    stamps = {path.name: path.stat().st_mtime_ns for path in entry.iterdir()}
    Encoder(bundle, settings).self_test()
    assert {path.name: path.stat().st_mtime_ns for path in entry.iterdir()} == stamps


def test_an_8_bit_backbone_is_not_kept(bundle: Bundle, tmp_path: Path) -> None:
    settings = RuntimeSettings(provider="cpu", model_cache=tmp_path / "models", precision="int8")
    encoder = Encoder(bundle, settings)
    encoder.self_test()
    assert encoder.precision == "int8"
    assert not (tmp_path / "models").exists()
