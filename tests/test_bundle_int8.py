"""The int8 forms of the backbone in a bundle: kept by reference, outside the hash, checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ildsdk.bundle import Bundle
from ildsdk.errors import ModelError
from tests.bundle_factory import INPUT_SIZE, edit_manifest, replace_file, write_tiny_bundle


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_tiny_bundle(folder, with_int8=True, with_symmetric=True, default_precision="int8")
    return folder


@pytest.fixture
def copy(intact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(intact, tmp_path / "copy")


def test_round_trip(intact: Path) -> None:
    bundle = Bundle.open(intact)
    assert bundle.backbone_int8 == intact / "backbone-int8.onnx"
    assert bundle.default_precision == "int8"
    assert bundle.backbone_int8_symmetric == intact / "backbone-int8-symmetric.onnx"
    measured = {"measured_by": "tests"}
    assert bundle.int8_agreement == {**measured, "symmetric": measured}
    assert set(bundle.checksums) == {
        "backbone.onnx", "backbone-int8.onnx", "backbone-int8-symmetric.onnx", "fusion.onnx",
    }  # fmt: skip


def without(folder: Path, *names: str, **changes: object) -> Bundle:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    for name in names:
        (folder / name).unlink()
        del files[name]
    edit_manifest(folder, files=files, **changes)
    return Bundle.open(folder)


def test_they_are_not_part_of_the_hash(copy: Path) -> None:
    """A bundle that gains int8 forms goes on answering with the indexes it has."""
    expected = Bundle.open(copy).bundle_hash
    one = without(copy, "backbone-int8-symmetric.onnx", int8_agreement={"measured_by": "tests"})
    assert one.backbone_int8_symmetric is None
    assert one.bundle_hash == expected
    none = without(copy, "backbone-int8.onnx", default_precision="fp32", int8_agreement=None)
    assert none.bundle_hash == expected


def test_a_symmetric_form_alone_is_refused(copy: Path) -> None:
    with pytest.raises(ModelError, match="without its int8_agreement"):
        without(copy, "backbone-int8.onnx", default_precision="fp32")


@pytest.mark.parametrize("name", ["backbone-int8.onnx", "backbone-int8-symmetric.onnx"])
def test_weights_are_those_of_the_backbone_and_not_stored_twice(intact: Path, name: str) -> None:
    graph = onnx.load(intact / name, load_external_data=False)
    (weight,) = (tensor for tensor in graph.graph.initializer if tensor.name == "w.int8")
    assert not weight.raw_data
    assert {entry.key: entry.value for entry in weight.external_data}["location"] == "backbone.onnx"
    image = np.random.default_rng(0).random((2, 1, INPUT_SIZE, INPUT_SIZE), np.float32)
    found, expected = (
        onnxruntime.InferenceSession(
            str(intact / one), providers=["CPUExecutionProvider"]
        ).run(["deep_features"], {"image": image})[0]
        for one in (name, "backbone.onnx")
    )  # fmt: skip
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert not np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"default_precision": "fp16"}, "expected one of fp32, int8"),
        ({"default_precision": None}, "expected one of fp32, int8"),
        ({"int8_agreement": None}, "without its int8_agreement"),
        ({"int8_agreement": 1}, "incomplete or malformed"),
        ({"int8_agreement": {}}, "symmetric.onnx without its agreement"),
        ({"schema": "ildsdk.bundle/2"}, "bundle lists files"),
    ],
)
def test_refuses_manifest(copy: Path, changes: dict[str, object], message: str) -> None:
    edit_manifest(copy, **changes)
    with pytest.raises(ModelError, match=message):
        Bundle.open(copy)


def test_int8_as_default_needs_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"it has no backbone-int8\.onnx"):
        write_tiny_bundle(tmp_path / "bad", default_precision="int8")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("name", ["backbone-int8", "backbone-int8-symmetric"])
def test_a_reference_beyond_the_backbone_is_refused(copy: Path, name: str) -> None:
    graph = onnx.load(copy / f"{name}.onnx", load_external_data=False)
    (weight,) = (tensor for tensor in graph.graph.initializer if tensor.name == "w.int8")
    (offset,) = (entry for entry in weight.external_data if entry.key == "offset")
    offset.value = str((copy / "backbone.onnx").stat().st_size - 1)
    replace_file(copy, f"{name}.onnx", graph.SerializeToString())
    with pytest.raises(ModelError, match=rf"{name}\.onnx refers to bytes"):
        Bundle.open(copy)
