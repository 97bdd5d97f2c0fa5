"""Activation maps in an index: kept, moved with their rows, refused where they do not compare."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ildsdk.errors import IndexFileError
from ildsdk.explain import LocationCodes
from ildsdk.index import (
    Index,
    export_index,
    import_index,
    merge_indexes,
    repair_index,
    verify_index,
)
from tests.index_factory import GRAPH, add_items, make_index, make_items, make_map, unit_embeddings

FILE = "maps-000002.safetensors"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two segments of 12 and 7 rows with maps; of the first, two items are removed."""
    with make_index(tmp_path / "index", 12, 7, with_maps=True) as index:
        index.remove(item_ids=["1.2.3.6", "1.2.3.8"])
    return tmp_path / "index"


def same(found: LocationCodes | None, expected: LocationCodes | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return (
        np.array_equal(found.codes, expected.codes)
        and found.scale == expected.scale
        and found.box == expected.box
    )


def check_all(index: Index, lost: tuple[int, ...] = ()) -> None:
    """Each item has its own map, found by what its id says, or none."""
    rows = index.rows()
    assert len(rows)
    for row, item in zip(rows, index.items(rows), strict=True):
        number = int(item.item_id.rsplit(".", 1)[1])
        expected = None if number in lost else make_map(number, index.embedding_size)
        assert same(index.location_codes(row), expected), number


def test_maps_come_back_and_change_no_answer(tmp_path: Path, path: Path) -> None:
    with Index.open(path) as index, make_index(tmp_path / "bare", 12, 7) as bare:
        check_all(index)
        info = index.info()
        assert info.n_maps == sum(make_map(i) is not None for i in range(19) if i not in (6, 8))
        assert info.explain_sha256 == GRAPH
        assert bare.info().n_maps == 0
        assert bare.maps_format is None
        assert bare.location_codes(0) is None
        bare.remove(item_ids=["1.2.3.6", "1.2.3.8"])
        assert bare.hash == index.hash
        with pytest.raises(IndexError, match="was removed"):
            index.location_codes(6)
    assert verify_index(path).is_intact


def test_a_map_costs_its_vectors_and_28_bytes(tmp_path: Path) -> None:
    """And 8 bytes for every row of a segment with maps, beside a header."""
    with make_index(tmp_path / "index", 50, d=128, with_maps=True):
        pass
    n_maps = sum(make_map(i) is not None for i in range(50))
    size = (tmp_path / "index" / FILE).stat().st_size
    assert 0 <= size - n_maps * (2 * 3 * 128 + 20) - 50 * 8 < 1024


def test_rows_without_maps_may_stand_among_others(path: Path) -> None:
    with Index.open(path) as index:
        add_items(index, 40, 5)
        assert index.location_codes(20) is None
        assert json.loads((path / "manifest.json").read_text())["segments"][2]["maps"] is None
        assert index.compact().n_segments_after == 1
        check_all(index, lost=tuple(range(40, 45)))
        assert index.info().n_maps == 13
    assert verify_index(path).is_intact


def test_the_last_map_that_goes_takes_the_graph_with_it(path: Path) -> None:
    with Index.open(path) as index:
        cases = sorted({item.case_id for item in index.items(index.rows())})
        index.remove(case_ids=cases)
        assert index.maps_format is not None  # still in the files
        index.compact()
        assert index.maps_format is None
        add_items(index, 50, 5, with_maps=True, explain_sha256="f" * 64)
        assert index.info().explain_sha256 == "f" * 64
    assert verify_index(path).is_intact


def test_maps_of_another_graph_or_grid_are_refused(path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with Index.open(path) as index:
        with pytest.raises(IndexFileError, match="do not compare"):
            add_items(index, 40, 5, with_maps=True, explain_sha256="f" * 64)
        wide = [
            codes and dataclasses.replace(codes, codes=np.repeat(codes.codes, 2, axis=0))
            for codes in map(make_map, range(40, 45))
        ]
        with pytest.raises(IndexFileError, match=r"eeeeeeeeeeee \(4 x 3\)"):
            add_items(index, 40, 5, with_maps=True, maps=wide)
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before
        add_items(index, 40, 5, with_maps=True, maps=[None] * 5, explain_sha256="f" * 64)
        assert index.info().explain_sha256 == GRAPH
        check_all(index, lost=tuple(range(40, 45)))


def with_codes(shape: tuple[int, ...], dtype: type) -> LocationCodes:
    return dataclasses.replace(make_map(0), codes=np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"explain_sha256": None}, ValueError),
        ({"maps": None}, ValueError),
        ({"maps": [None] * 4}, ValueError),
        ({"maps": [make_map(0, d=8)] * 5}, ValueError),
        ({"maps": [make_map(0), with_codes((1, 3, 16), np.int8), None, None, None]}, ValueError),
        ({"maps": [with_codes((2, 3, 16), np.float64)] * 5}, TypeError),
        ({"maps": [dataclasses.replace(make_map(0), scale=0.0)] * 5}, ValueError),
        ({"maps": [dataclasses.replace(make_map(0), scale=float("nan"))] * 5}, ValueError),
    ],
)  # fmt: skip
def test_maps_that_do_not_fit_their_items_are_refused(
    path: Path, changes: dict[str, object], error: type[Exception]
) -> None:
    before = sorted(file.name for file in path.iterdir())
    with Index.open(path) as index, pytest.raises(error):
        add_items(index, 40, 5, with_maps=True, **changes)
    assert sorted(file.name for file in path.iterdir()) == before


class TestDamage:
    def flip(self, path: Path, place: int) -> None:
        content = bytearray((path / FILE).read_bytes())
        content[place] ^= 4
        (path / FILE).write_bytes(content)

    def test_a_flipped_bit_in_a_map_costs_that_map(self, path: Path) -> None:
        size = (path / FILE).stat().st_size
        content = (path / FILE).read_bytes()
        begin = content.index(make_map(5).codes.tobytes())
        self.flip(path, begin + 50)
        assert any(FILE in problem for problem in verify_index(path).problems)
        with Index.open(path) as index:  # all else goes on answering
            assert index.search(unit_embeddings(0, 12), 1).rows[0, 0] == 0
            assert same(index.location_codes(4), make_map(4))
            with pytest.raises(IndexFileError, match="does not fit its check"):
                index.location_codes(5)
            with pytest.raises(IndexFileError, match="index repair"):
                index.compact()
        report = repair_index(path)
        assert report.n_items_lost == 0
        assert report.n_items == 17
        assert report.is_changed
        (loss,) = report.losses
        assert loss.reason == (
            f"{FILE} does not match its SHA-256: 1 activation map is lost; their items stay"
        )
        assert verify_index(path).is_intact
        with Index.open(path) as index:
            check_all(index, lost=(5,))
        assert (path / "maps-000005.safetensors").stat().st_size < size
        assert not repair_index(path).is_changed

    def test_no_flipped_bit_makes_one_map_another_ones(self, path: Path) -> None:
        content = (path / FILE).read_bytes()
        generator = np.random.default_rng(3)
        places = generator.choice(len(content), 40, replace=False).tolist()
        for place in [*places, content.index(b"places") + 20, len(content) - 30]:
            self.flip(path, place)
            report = repair_index(path, engine="numpy")
            assert report.n_items_lost == 0
            assert verify_index(path, engine="numpy").is_intact
            with Index.open(path, engine="numpy") as index:
                rows = index.rows()
                for row, item in zip(rows, index.items(rows), strict=True):
                    found = index.location_codes(row)
                    number = int(item.item_id.rsplit(".", 1)[1])
                    assert found is None or same(found, make_map(number))
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
            with make_index(path, 12, 7, with_maps=True) as index:
                index.remove(item_ids=["1.2.3.6", "1.2.3.8"])

    @pytest.mark.parametrize("content", [None, b"", b"\xff" * 400])
    def test_a_file_that_is_lost_costs_its_maps_only(
        self, path: Path, content: bytes | None
    ) -> None:
        (path / FILE).unlink()
        if content is not None:
            (path / FILE).write_bytes(content)
        report = repair_index(path)
        assert report.n_items_lost == 0
        assert "all its activation maps are lost" in report.losses[0].reason
        assert verify_index(path).is_intact
        with Index.open(path) as index:
            check_all(index, lost=tuple(range(12)))

    def test_rows_saved_from_a_damaged_segment_keep_their_maps(self, path: Path) -> None:
        items = bytearray((path / "items-000002.sqlite").read_bytes())
        items[items.index(b"picture 4")] ^= 1
        (path / "items-000002.sqlite").write_bytes(items)
        begin = (path / FILE).read_bytes().index(make_map(9).codes.tobytes())
        self.flip(path, begin)
        report = repair_index(path)
        assert report.n_items_lost == 1
        assert verify_index(path).is_intact
        with Index.open(path) as index:
            assert len(index) == 16
            check_all(index, lost=(9,))


class TestExchange:
    def test_an_exported_file_has_no_maps(self, path: Path, tmp_path: Path) -> None:
        with Index.open(path) as index:
            export_index(index, tmp_path / "out.npz")
        with import_index(tmp_path / "out.npz", tmp_path / "copy") as copy:
            assert copy.maps_format is None
            assert len(copy) == 17

    def test_merging_takes_maps_over(self, path: Path, tmp_path: Path) -> None:
        with make_index(tmp_path / "bare", 0 + 1) as other:
            other.remove(item_ids=["1.2.3.0"])
            add_items(other, 100, 10, with_maps=True)
        report = merge_indexes(tmp_path / "all", [path, tmp_path / "bare"])
        assert (report.n_maps, report.n_maps_dropped) == (13 + 8, 0)
        with Index.open(tmp_path / "all") as merged:
            check_all(merged)
            assert merged.info().explain_sha256 == GRAPH
        assert verify_index(tmp_path / "all").is_intact

    def test_merging_drops_maps_of_different_graphs(self, path: Path, tmp_path: Path) -> None:
        with make_index(tmp_path / "other") as other:
            add_items(other, 100, 10, with_maps=True, explain_sha256="f" * 64)
        report = merge_indexes(tmp_path / "all", [path, tmp_path / "other"])
        assert (report.n_maps, report.n_maps_dropped) == (0, 13 + 8)
        with Index.open(tmp_path / "all") as merged:
            assert merged.maps_format is None
            assert len(merged) == 27


def test_maps_handed_over_are_not_kept_by_reference(tmp_path: Path) -> None:
    codes = make_map(0)
    with Index.create(
        tmp_path / "index", name="t", bundle_hash="b" * 64, embedding_size=16, is_synthetic=True
    ) as index:
        index.add(
            unit_embeddings(0, 1), make_items(0, 1), [b""], maps=[codes], explain_sha256=GRAPH
        )
        codes.codes[:] = 0
        assert same(index.location_codes(0), make_map(0))
