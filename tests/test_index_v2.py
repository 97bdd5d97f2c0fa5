"""An index of version 2, written before version 3 was, stays readable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ildsdk.index import Index, repair_index, verify_index
from tests.index_factory import GRAPH, add_items, make_items, unit_embeddings

# make_index(path, 6, 5, 256, d=8), case-1 removed, calibrated
FIXTURE = Path(__file__).parent / "fixtures" / "index-v2"
HASH = "2a4c0994840f84d85723da02e63500952fbb4f5aa166a453574941eb1cbb1940"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "index")
    return tmp_path / "index"


def matrix() -> np.ndarray:
    return np.concatenate(
        [unit_embeddings(first, n, 8) for first, n in ((0, 6), (6, 5), (11, 256))]
    )


@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_it_is_read_and_searched_in_place(engine) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in FIXTURE.iterdir()}
    report = verify_index(FIXTURE, engine=engine)
    assert report.problems == report.leftovers == ()
    assert (report.n_items, report.n_files) == (262, 15)
    with Index.open(FIXTURE, expected_bundle_hash="b" * 64, engine=engine) as index:
        assert index.hash == HASH
        assert (len(index), index.n_rows) == (262, 267)
        assert index.maps_format is None
        assert index.location_codes(0) is None
        kept = [row for row in range(267) if not 5 <= row < 10]
        assert index.rows().tolist() == kept
        assert index.embeddings().tobytes() == matrix()[kept].tobytes()
        for mode in ("exact", "fast", "paper"):
            assert index.search(matrix()[kept], 1, mode=mode).rows[:, 0].tolist() == kept
        items = index.items(kept)
        expected = make_items(0, 267)
        assert [item.item_id for item in items] == [expected[row].item_id for row in kept]
        assert index.thumbnail(200) == b"picture 200"
        assert index.no_match_threshold == 0.25
        assert not np.isnat(index.added_on()).any()
    assert {file.name: file.stat().st_mtime_ns for file in FIXTURE.iterdir()} == before


def test_the_first_change_upgrades_the_manifest_only(path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with Index.open(path) as index:
        index.set_calibration(0.5, "new")
        assert index.hash == HASH
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["schema"] == "ildsdk.index/3"
    assert manifest["maps"] is None
    for name, content in before.items():
        assert name.startswith("manifest") or (path / name).read_bytes() == content
    assert verify_index(path).is_intact


def test_maps_may_be_added_and_compacting_keeps_them(path: Path) -> None:
    with Index.open(path) as index:
        add_items(index, 300, 5, with_maps=True)
        assert index.info().explain_sha256 == GRAPH
        assert index.info().n_maps == 4
        index.compact()
        assert index.info().n_maps == 4
        assert len(index) == 267
    assert verify_index(path).is_intact


def test_it_is_repaired_as_before(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"{")
    report = repair_index(path)
    assert report.repaired == ("manifest.json: restored from its copy",)
    assert json.loads((path / "manifest.json").read_text())["schema"] == "ildsdk.index/2"
    content = bytearray((path / "items-000004.sqlite").read_bytes())
    content[content.index(b"picture 100")] ^= 1
    (path / "items-000004.sqlite").write_bytes(content)
    report = repair_index(path)
    assert report.n_items_lost == 1
    assert verify_index(path).is_intact
