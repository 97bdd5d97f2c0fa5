"""An index of version 1, written by ildsdk 0.1.0 before version 2 was, stays readable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ildsdk.errors import IndexFileError, InputError
from ildsdk.index import Index, repair_index, verify_index
from tests.index_factory import add_items, make_items, unit_embeddings

FIXTURE = Path(__file__).parent / "fixtures" / "index-v1"  # make_index(path, 6, 5, d=8)
HASH = "8c518135754d0abeba810bb56638ad8cd2c9e87a957499446e0b67ff3c33c913"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_it_is_read_and_searched_in_place(engine) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in FIXTURE.iterdir()}
    report = verify_index(FIXTURE, engine=engine)
    assert report.problems == report.leftovers == ()
    assert (report.n_items, report.n_files) == (11, 6)
    with Index.open(FIXTURE, expected_bundle_hash="b" * 64, engine=engine) as index:
        assert index.hash == HASH
        assert len(index) == index.n_rows == 11
        matrix = np.concatenate([unit_embeddings(0, 6, 8), unit_embeddings(6, 5, 8)])
        assert index.embeddings().tobytes() == matrix.tobytes()
        for mode in ("exact", "paper"):
            assert index.search(matrix, 3, mode=mode).rows[:, 0].tolist() == list(range(11))
        items = index.items(range(11))
        assert [item.item_id for item in items] == [item.item_id for item in make_items(0, 11)]
        assert index.thumbnail(7) == b"picture 7"
        assert np.flatnonzero(index.rows_of_patient("patient-1", None)).tolist() == [5, 6, 7, 8, 9]
        assert index.case_scores(matrix[:1]).case_ids == ("case-0", "case-1", "case-2")
        assert index.no_match_threshold == 0.25
        assert index.info().items_by_site == {"north": 5}
        assert np.isnat(index.added_on()).all()
    assert {file.name: file.stat().st_mtime_ns for file in FIXTURE.iterdir()} == before


def test_the_first_change_upgrades_the_manifest_only(path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with Index.open(path) as index:
        with pytest.raises(InputError, match="1 of 1 slices to add are in the index already"):
            add_items(index, 3, 1)
        with pytest.raises(InputError, match="1 of 1 items are not"):
            index.remove(item_ids=["unknown"])
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before
        index.set_calibration(0.5, "new")
        assert index.hash == HASH
        add_items(index, 20, 5)
        assert index.remove(case_ids=["case-1"]) == 5
        assert np.isnat(index.added_on()).sum() == 11
    assert json.loads((path / "manifest.json").read_text())["schema"] == "ildsdk.index/3"
    for name, content in before.items():
        assert name == "manifest.json" or (path / name).read_bytes() == content
    assert verify_index(path).is_intact
    with Index.open(path) as index:
        assert len(index) == 11
        assert index.search(unit_embeddings(6, 5, 8), 1).rows[:, 0].tolist()[-1] == 10


def test_compacting_brings_segments_to_version_2(path: Path) -> None:
    with Index.open(path) as index:
        keys = [item.patient_key for item in index.items(range(11))]
        assert index.compact().n_segments_after == 1
        assert [item.patient_key for item in index.items(range(11))] == keys
        assert np.isnat(index.added_on()).all()
    assert (path / "columns-000005.safetensors").exists()
    assert verify_index(path).is_intact


def test_damage_costs_a_segment_for_there_are_no_row_checks(path: Path) -> None:
    for name in ("hyperplanes.safetensors", "items-000003.sqlite"):
        content = bytearray((path / name).read_bytes())
        content[-1] ^= 1
        (path / name).write_bytes(content)
    report = repair_index(path)
    assert report.n_items_lost == 5
    assert "items-000003.sqlite does not match" in report.losses[0].reason
    assert "drawn anew" in report.repaired[0]
    assert (path / str(report.kept_aside) / "arrays-000003.safetensors").exists()
    assert verify_index(path).is_intact
    with Index.open(path) as index:
        assert len(index) == 6


def test_compacting_refuses_to_copy_damage(path: Path) -> None:
    content = bytearray((path / "arrays-000003.safetensors").read_bytes())
    content[-100] ^= 1
    (path / "arrays-000003.safetensors").write_bytes(content)
    with Index.open(path) as index, pytest.raises(IndexFileError, match="damaged; run"):
        index.compact()
