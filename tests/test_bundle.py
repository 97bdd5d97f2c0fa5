from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from ildsdk.bundle import Bundle, write_bundle
from ildsdk.errors import ConfigError, ModelError
from tests.bundle_factory import edit_manifest, write_tiny_bundle


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_tiny_bundle(folder)
    return folder


@pytest.fixture
def copy(intact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(intact, tmp_path / "copy")


def test_round_trip(intact: Path) -> None:
    bundle = Bundle.open(intact)
    assert bundle.name == "tiny"
    assert bundle.is_synthetic
    assert bundle.scaler.mean.shape == (102,)
    assert len(bundle.bundle_hash) == 64


def test_threshold_of_held_out_cases_is_that_of_the_figures(copy: Path) -> None:
    with pytest.raises(ConfigError, match="no threshold measured on held-out cases"):
        _ = Bundle.open(copy).held_out_threshold
    edit_manifest(copy, figures={"systems": {"fusion": {"no_match_threshold": 0.71}}})
    assert Bundle.open(copy).held_out_threshold == 0.71
    edit_manifest(copy, figures={"systems": {"fusion": {"no_match_threshold": 7}}})
    with pytest.raises(ConfigError, match="expected a cosine"):
        _ = Bundle.open(copy).held_out_threshold


def test_hash_follows_weights_and_ignores_reading_matter(tmp_path: Path, copy: Path) -> None:
    first = Bundle.open(copy)
    other = write_tiny_bundle(tmp_path / "other", seed=1)
    assert other.bundle_hash != first.bundle_hash
    edit_manifest(copy, figures={"precision": 0.5}, intended_use="reading")
    assert Bundle.open(copy).bundle_hash == first.bundle_hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "ildsdk.bundle/4"}, "update ildsdk"),
        ({"pipeline_version": "ildsdk.pipeline/0"}, "this ildsdk prepares slices by"),
        ({"schema": "other"}, "expected 'ildsdk.bundle/3'"),
        ({"schema": ["ildsdk.bundle/3"]}, "expected 'ildsdk.bundle/3'"),
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


class TestMapsAndCard:
    CARD = "# Model card\n\nFor tests; Zürich.\n"

    @pytest.fixture
    def full(self, tmp_path: Path) -> Path:
        write_tiny_bundle(tmp_path / "full", with_maps=True, model_card=self.CARD)
        return tmp_path / "full"

    def test_they_are_kept_and_change_no_hash(self, full: Path, intact: Path) -> None:
        bundle, bare = Bundle.open(full), Bundle.open(intact)
        assert bundle.model_card() == self.CARD
        assert bundle.explain == full / "explain.onnx"
        digest = hashlib.sha256((full / "explain.onnx").read_bytes()).hexdigest()
        assert bundle.explain_sha256 == digest
        assert bundle.bundle_hash == bare.bundle_hash
        assert (bare.explain, bare.explain_sha256, bare.model_card()) == (None, None, None)

    @pytest.mark.parametrize("name", ["explain.onnx", "model_card.md"])
    def test_a_flipped_bit_and_a_lost_file_are_found(self, full: Path, name: str) -> None:
        data = bytearray((full / name).read_bytes())
        data[len(data) // 2] ^= 1
        (full / name).write_bytes(data)
        with pytest.raises(ModelError, match=f"{name} has SHA-256"):
            Bundle.open(full)
        (full / name).unlink()
        with pytest.raises(ModelError, match=f"{name} is missing"):
            Bundle.open(full)

    def test_a_card_too_long_or_not_text_is_refused(self, tmp_path: Path, full: Path) -> None:
        with pytest.raises(ModelError, match="at most 262144"):
            write_tiny_bundle(tmp_path / "long", model_card="x" * 300_000)
        assert not (tmp_path / "long").exists()
        content = b"\xff\xfe card"
        (full / "model_card.md").write_bytes(content)
        files = json.loads((full / "manifest.json").read_text())["files"]
        files["model_card.md"] = {
            "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
        }  # fmt: skip
        edit_manifest(full, files=files)
        with pytest.raises(ModelError, match="not UTF-8"):
            Bundle.open(full)
