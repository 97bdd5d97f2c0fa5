from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ildsdk.bundle import Bundle, write_bundle
from ildsdk.errors import ModelError
from tests.bundle_factory import write_tiny_bundle


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_tiny_bundle(folder)
    return folder


@pytest.fixture
def copy(intact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(intact, tmp_path / "copy")


def edit_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.update(changes)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_round_trip(intact: Path) -> None:
    bundle = Bundle.open(intact)
    assert bundle.name == "tiny"
    assert bundle.is_synthetic
    assert bundle.scaler.mean.shape == (102,)
    assert len(bundle.bundle_hash) == 64


def test_hash_follows_weights_and_ignores_reading_matter(tmp_path: Path, copy: Path) -> None:
    first = Bundle.open(copy)
    other = write_tiny_bundle(tmp_path / "other", seed=1)
    assert other.bundle_hash != first.bundle_hash
    edit_manifest(copy, figures={"precision": 0.5}, intended_use="reading")
    assert Bundle.open(copy).bundle_hash == first.bundle_hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "ildsdk.bundle/2"}, "update ildsdk"),
        ({"pipeline_version": "ildsdk.pipeline/0"}, "this ildsdk prepares slices by"),
        ({"schema": "other"}, "expected 'ildsdk.bundle/1'"),
        ({"feature_names": ["x"]}, "1 features"),
        ({"embedding_size": 17}, "changed after it was made"),
        ({"embedding_size": "128"}, "expected 2 to 4096"),
        ({"method": {"input_sise": 64}}, "did you mean 'input_size'"),
        ({"files": {}}, "expected \\['backbone.onnx', 'fusion.onnx'\\]"),
        ({"scaler": {"mean": [0], "scale": [1], "clip": 6}}, "1 values for 102 features"),
        ({"scaler": {}}, "scaler in the manifest"),
        ({"labels": None}, "incomplete or malformed"),
    ],
)
def test_refuses_manifest(copy: Path, changes: dict[str, object], message: str) -> None:
    edit_manifest(copy, **changes)
    with pytest.raises(ModelError, match=message):
        Bundle.open(copy)


def test_refuses_a_manifest_without_any_one_key(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    for key in manifest:
        if key == "created_with":  # for reading only
            continue
        shorter = {name: value for name, value in manifest.items() if name != key}
        (copy / "manifest.json").write_text(json.dumps(shorter))
        with pytest.raises(ModelError):
            Bundle.open(copy)


def test_refuses_files_it_does_not_name(copy: Path) -> None:
    (copy / "weights.bin").write_bytes(b"weights beside the graph")
    with pytest.raises(ModelError, match="1 file"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["backbone.onnx", "fusion.onnx"])
def test_refuses_flipped_bit(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} has SHA-256"):
        Bundle.open(copy)


def test_refuses_truncated_missing_and_foreign(copy: Path, tmp_path: Path) -> None:
    (copy / "fusion.onnx").write_bytes(b"short")
    with pytest.raises(ModelError, match="has 5 bytes"):
        Bundle.open(copy)
    (copy / "fusion.onnx").unlink()
    with pytest.raises(ModelError, match="is missing"):
        Bundle.open(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        Bundle.open(copy)
    with pytest.raises(ModelError, match="not a model bundle"):
        Bundle.open(tmp_path)


def test_failed_write_leaves_nothing(intact: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(intact)
    with pytest.raises(ModelError):
        write_bundle(
            tmp_path / "bad",
            name="bad",
            method=bundle.method,
            backbone=bundle.backbone,
            fusion=bundle.fusion,
            scaler=bundle.scaler,
            labels=bundle.labels,
            embedding_size=1,
            gem_p=3.0,
            is_synthetic=True,
            provenance={},
            figures={},
            license="x",
            intended_use="x",
        )
    assert list(tmp_path.iterdir()) == []
