"""Bundles of versions 1 and 2, written by the code that wrote them, stay readable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ildsdk import defaults
from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import ModelError
from ildsdk.settings import RuntimeSettings
from tests.bundle_factory import EMBEDDING_SIZE, edit_manifest

FIXTURES = Path(__file__).parent / "fixtures"
HASHES = {
    "bundle-v1": "e15e370a8738dc691288c60e4aa0e0d537d47c5a8942d6acb239f5760320a770",
    "bundle-v2": "0af3223a6025c300362644f679c162485ceb96259807ded7aea0c552450af68c",
}
EMBEDDED_HASH = "4f68f1867db33be3b1a9499dbdb88bfde471469d21d4a4f5cec2d4756c6d5049"


@pytest.mark.parametrize("name", HASHES)
def test_it_opens_with_its_hash_and_runs(name: str) -> None:
    bundle = Bundle.open(FIXTURES / name)
    assert bundle.bundle_hash == HASHES[name]
    assert (bundle.backbone_int8, bundle.default_precision) == (None, "fp32")
    assert bundle.int8_agreement is None
    encoder = Encoder(bundle, RuntimeSettings(provider="cpu", n_threads=1))
    encoder.self_test()
    assert bundle.embedding_size == EMBEDDING_SIZE
    assert np.isfinite(bundle.scaler.mean).all()


def test_version_1_has_neither_maps_nor_card_and_version_2_has_both() -> None:
    old, newer = (Bundle.open(FIXTURES / name) for name in HASHES)
    assert (old.explain, old.model_card()) == (None, None)
    assert newer.explain == FIXTURES / "bundle-v2" / "explain.onnx"
    assert (newer.model_card() or "").startswith("# Model card")


def test_a_file_that_its_version_does_not_know_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "bundle-v2", tmp_path / "bundle")
    edit_manifest(tmp_path / "bundle", schema="ildsdk.bundle/1")
    with pytest.raises(ModelError, match=r"expected \['backbone.onnx', 'fusion.onnx'\]$"):
        Bundle.open(tmp_path / "bundle")


def test_the_same_models_have_one_hash_in_every_version(tmp_path: Path) -> None:
    """What an index remembers; the embedded one was built with the bundle of version 1."""
    assert Bundle.open(defaults.bundle_path()).bundle_hash == EMBEDDED_HASH
    folder = shutil.copytree(FIXTURES / "bundle-v1", tmp_path / "bundle")
    for version in (2, 3):
        edit_manifest(
            folder, schema=f"ildsdk.bundle/{version}", default_precision="fp32", int8_agreement=None
        )
        assert Bundle.open(folder).bundle_hash == HASHES["bundle-v1"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["bundle_hash"] == HASHES["bundle-v1"]
