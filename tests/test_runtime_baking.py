"""Where a warm-up keeps the network, and that queries find it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import ConfigError
from ildsdk.runtime import model_cache, ort_optimized
from ildsdk.runtime.baking import keep_backbone
from ildsdk.settings import RuntimeSettings
from tests.bundle_factory import write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", with_int8=True)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "package" / "models"
    monkeypatch.setattr(model_cache, "_BESIDE_PACKAGE", folder)
    return folder


def test_beside_the_package_first(bundle: Bundle, package: Path, tmp_path: Path) -> None:
    user = tmp_path / "user"
    look = {"n_threads": 1, "may_write": False}
    assert keep_backbone(bundle, "fp32", user, **look) == "nowhere"
    assert not package.exists()
    assert keep_backbone(bundle, "fp32", user, n_threads=1, may_write=True) == "package"
    assert keep_backbone(bundle, "fp32", None, **look) == "package"
    assert not user.exists()


def test_the_users_folder_where_the_package_is_sealed(
    bundle: Bundle, package: Path, tmp_path: Path
) -> None:
    package.parent.write_text("sealed")
    user = tmp_path / "user"
    assert keep_backbone(bundle, "fp32", user, n_threads=1, may_write=True) == "user"
    assert keep_backbone(bundle, "fp32", user, n_threads=1, may_write=False) == "user"
    assert keep_backbone(bundle, "fp32", None, n_threads=1, may_write=True) == "nowhere"


def test_a_query_uses_what_is_baked_and_writes_nothing(
    bundle: Bundle, package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keep_backbone(bundle, "fp32", None, n_threads=1, may_write=True)
    opened: list[str] = []
    start = ort_optimized._start
    monkeypatch.setattr(
        ort_optimized,
        "_start",
        lambda path, options: opened.append(path.name) or start(path, options),
    )
    user = tmp_path / "user"
    Encoder(bundle, RuntimeSettings(provider="cpu", model_cache=user)).self_test()
    assert opened == ["graph.onnx"]
    assert not user.exists()


def test_precisions(bundle: Bundle, package: Path) -> None:
    assert keep_backbone(bundle, "int8", None, n_threads=1, may_write=True) == "not-needed"
    assert not package.exists()
    with pytest.raises(ConfigError, match="'fp16' does not run"):
        keep_backbone(bundle, "fp16", None, n_threads=1, may_write=True)
