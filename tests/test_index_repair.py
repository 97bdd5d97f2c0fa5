"""Repair: derived data anew, only damaged rows dropped, everything said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ildsdk.errors import IndexFileError
from ildsdk.index import Index, ItemRecord, repair_index, verify_index
from ildsdk.index import coding as coding_module
from tests.index_factory import add_items, make_index, make_items, unit_embeddings

N_ITEMS = 12 + 7 - 2  # two are removed


def _codes(embeddings: np.ndarray, n_threads: int) -> dict[str, np.ndarray]:
    return {"bytes": np.rint(embeddings * 127).astype(np.int8)}


def _codes_problems(embeddings: np.ndarray, codes: dict[str, np.ndarray]) -> list[str]:
    is_right = np.array_equal(codes["bytes"], _codes(embeddings, 1)["bytes"])
    return [] if is_right else ["not those of the embeddings"]


@pytest.fixture(autouse=True)
def stand_in_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("segment_writing", "diagnosis", "verification"):
        for name, function in (
            ("segment_codes", _codes), ("codes_problems", _codes_problems),
        ):  # fmt: skip
            monkeypatch.setattr(f"ildsdk.index.{module}.{name}", function, raising=False)
    assert coding_module.segment_codes is not _codes


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    """Two segments; of the first, two items of case-1 are removed."""
    path = tmp_path / "index"
    with make_index(path, 12, 7) as index:
        index.remove(item_ids=["1.2.3.6", "1.2.3.8"])
    assert verify_index(path, engine="numpy").is_intact
    return path


def _everything(path: Path) -> dict[str, tuple[ItemRecord, bytes, bytes]]:
    with Index.open(path, engine="numpy") as index:
        rows = index.rows()
        return {
            item.item_id: (item, index.embeddings([row]).tobytes(), index.thumbnail(row))
            for row, item in zip(rows, index.items(rows), strict=True)
        }


def _flip(path: Path, place: int, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


NAMES = (
    "manifest.json", "manifest.copy.json", "hyperplanes.safetensors",
    "arrays-000002.safetensors", "columns-000002.safetensors", "codes-000002.safetensors",
    "items-000002.sqlite", "removed-000004.safetensors",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_flipped_bit_costs_one_item_at_most(
    index_path: Path, tmp_path: Path, name: str
) -> None:
    before = _everything(index_path)
    size = (index_path / name).stat().st_size
    generator = np.random.default_rng(5)
    n_lost = 0
    for place in {0, 9, size - 1, *generator.choice(size, 12, replace=False).tolist()}:
        path = tmp_path / "damaged"
        shutil.copytree(index_path, path)
        _flip(path / name, place, int(generator.integers(8)))
        assert not verify_index(path, engine="numpy").is_intact
        report = repair_index(path, engine="numpy")
        found = verify_index(path, engine="numpy")
        assert found.is_intact, (place, found.problems)
        assert report.is_changed
        assert report.n_items == found.n_items == len(before) - report.n_items_lost
        assert report.n_items_lost <= 1, (place, report)
        after = _everything(path)
        assert after == {key: before[key] for key in after}
        if report.n_items_lost:
            n_lost += 1
            assert report.kept_aside
            assert (path / report.kept_aside / name).exists()
            assert all(loss.n_items and name in loss.reason for loss in report.losses)
        else:
            assert any(name in line for line in report.repaired)
            assert report.kept_aside is None
        with Index.open(path, engine="numpy") as index:
            add_items(index, 30, 5)
        assert verify_index(path, engine="numpy").is_intact
        shutil.rmtree(path)
    if not name.startswith(("arrays", "items", "columns")):
        assert n_lost == 0


def test_nothing_is_written_where_nothing_is_damaged(index_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in index_path.iterdir()}
    report = repair_index(index_path, engine="numpy")
    assert not report.is_changed
    assert (report.n_items, report.n_items_lost, report.kept_aside) == (N_ITEMS, 0, None)
    assert {file.name: file.read_bytes() for file in index_path.iterdir()} == before


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_costs_what_only_it_had(index_path: Path, name: str) -> None:
    before = _everything(index_path)
    (index_path / name).unlink()
    report = repair_index(index_path, engine="numpy")
    # Without the bitmap nobody knows who was removed: nobody comes back.
    is_lost = name.startswith(("arrays", "items", "removed"))
    assert report.n_items_lost == (10 if is_lost else 0)
    assert verify_index(index_path, engine="numpy").is_intact
    assert _everything(index_path).items() <= before.items()
    if is_lost:
        assert len(list((index_path / str(report.kept_aside)).iterdir())) == 4


@pytest.mark.parametrize("n_bytes", [0, 20, 400, 1000])
def test_a_truncated_file_keeps_the_rows_before_the_end(index_path: Path, n_bytes: int) -> None:
    before = _everything(index_path)
    file = index_path / "arrays-000002.safetensors"
    file.write_bytes(file.read_bytes()[:n_bytes])
    report = repair_index(index_path, engine="numpy")
    assert verify_index(index_path, engine="numpy").is_intact
    after = _everything(index_path)
    assert after.items() <= before.items()
    assert len(after) == N_ITEMS - report.n_items_lost
    assert report.n_items_lost == {0: 10, 20: 10, 400: 7, 1000: 0}[n_bytes]


def test_many_damages_at_once(index_path: Path) -> None:
    before = _everything(index_path)
    items = (index_path / "items-000002.sqlite").read_bytes()
    arrays = (index_path / "arrays-000002.safetensors").read_bytes()
    _flip(index_path / "items-000002.sqlite", items.index(b"picture 3"))
    _flip(index_path / "arrays-000002.safetensors", arrays.index(before["1.2.3.10"][1]) + 20)
    for name in NAMES[:3] + NAMES[5:6] + NAMES[7:]:
        if name != "manifest.copy.json":
            _flip(index_path / name, 200)
    (index_path / "codes-000003.safetensors").unlink()
    report = repair_index(index_path, engine="numpy")
    assert report.n_items_lost == 2
    assert verify_index(index_path, engine="numpy").is_intact
    assert _everything(index_path) == {
        key: value for key, value in before.items() if key not in ("1.2.3.3", "1.2.3.10")
    }


def test_sqlite_that_cannot_walk_its_tree_loses_nothing(index_path: Path) -> None:
    """Large pictures on overflow pages; the roots of all tables are overwritten."""
    with Index.open(index_path, engine="numpy") as index:
        index.add(
            unit_embeddings(5, 300), make_items(1000, 300),
            [bytes([i % 251]) * (i * 40) for i in range(300)],
        )  # fmt: skip
    before = _everything(index_path)
    path = index_path / "items-000005.sqlite"
    content = bytearray(path.read_bytes())
    for page in range(4):  # schema, roots of items and thumbnails, of the index
        content[4096 * page : 4096 * page + 8] = b"\xff" * 8
    path.write_bytes(content)
    report = repair_index(index_path, engine="numpy")
    assert report.n_items_lost == 0, report
    assert verify_index(index_path, engine="numpy").is_intact
    assert _everything(index_path) == before


def test_wrong_codes_of_right_bytes_are_built_anew(
    index_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Index.open(index_path, engine="numba") as index:
        codes = index._snapshot.segments[0].codes()
        assert codes is not None
        assert codes["bytes"].shape == (12, 16)
        monkeypatch.setattr(
            "ildsdk.index.segment_writing.segment_codes",
            lambda rows, n: {"bytes": np.zeros(rows.shape, np.int8)},
        )
        add_items(index, 30, 5)
    problems = verify_index(index_path, engine="numba").problems
    assert problems == ("codes-000005.safetensors: not those of the embeddings",)
    monkeypatch.setattr("ildsdk.index.segment_writing.segment_codes", _codes)
    assert repair_index(index_path, engine="numba").n_items_lost == 0
    assert verify_index(index_path, engine="numba").is_intact


def test_a_manifest_that_is_not_damaged_is_not_replaced(index_path: Path) -> None:
    manifest = index_path / "manifest.json"
    newer = manifest.read_bytes().replace(b"ildsdk.index/3", b"ildsdk.index/4")
    manifest.write_bytes(newer)
    with pytest.raises(IndexFileError, match="newer ildsdk"):
        repair_index(index_path, engine="numpy")
    assert manifest.read_bytes() == newer


def test_files_newer_than_the_copy_are_kept_and_told(index_path: Path) -> None:
    older = (index_path / "manifest.copy.json").read_bytes()
    with Index.open(index_path, engine="numpy") as index:
        add_items(index, 30, 5)
    (index_path / "manifest.copy.json").write_bytes(older)  # as an older ildsdk may leave it
    added = {file.name for file in index_path.glob("*-000005.*")}
    (index_path / "manifest.json").write_bytes(b"{}")
    report = repair_index(index_path, engine="numpy")
    assert "older than" in report.losses[0].reason
    assert added == {file.name for file in (index_path / "damaged-000005").iterdir()} != set()


def test_what_was_kept_aside_is_named_until_it_is_deleted(index_path: Path) -> None:
    (index_path / "items-000002.sqlite").unlink()
    name = repair_index(index_path, engine="numpy").kept_aside
    assert name is not None
    n_bytes = sum(file.stat().st_size for file in (index_path / name).iterdir())
    (index_path / "damaged-folder").mkdir()  # not ours
    (index_path / "damaged-000099").write_bytes(b"no folder")
    assert verify_index(index_path, engine="numpy").kept_aside == (name,)
    with Index.open(index_path, engine="numpy") as index:
        assert index.info().kept_aside == {name: n_bytes}
        assert index.compact().kept_aside == (name,)
    shutil.rmtree(index_path / name)
    with Index.open(index_path, engine="numpy") as index:
        assert index.info().kept_aside == {}
        assert index.compact().kept_aside == ()
    assert verify_index(index_path, engine="numpy").kept_aside == ()


def test_bitmaps_changed_alike_are_not_believed(index_path: Path) -> None:
    file = next(index_path.glob("removed-*"))
    content = file.read_bytes()
    file.write_bytes(
        content[:-66]
        + bytes(b ^ 4 for b in content[-66:-64])
        + content[-64:-2]
        + bytes(b ^ 4 for b in content[-2:])
    )
    assert repair_index(index_path, engine="numpy").n_items_lost == 10


def test_both_manifests_lost_is_a_clear_error(index_path: Path) -> None:
    for name in ("manifest.json", "manifest.copy.json"):
        _flip(index_path / name, 50)
    with pytest.raises(IndexFileError, match="ildsdk index repair"):
        Index.open(index_path)
    with pytest.raises(IndexFileError, match="restore one of the two from a backup"):
        repair_index(index_path)
    with pytest.raises(IndexFileError, match="no such folder"):
        repair_index(index_path / "nothing")


def test_damage_of_an_open_index_is_told_with_what_to_do(index_path: Path) -> None:
    (index_path / "codes-000002.safetensors").write_bytes(b"")
    with pytest.raises(IndexFileError, match=r"codes-000002.*run `ildsdk index repair`"):
        Index.open(index_path)


@pytest.mark.slow
def test_every_byte_of_the_items_and_columns_of_a_larger_segment(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with make_index(path, 200, 7) as index:
        index.remove(item_ids=["1.2.3.6", "1.2.3.8"])
    before = _everything(path)
    generator = np.random.default_rng(0)
    for name in ("items-000002.sqlite", "columns-000002.safetensors"):
        size = (path / name).stat().st_size
        for place in generator.choice(size, 500, replace=False).tolist():
            shutil.copytree(path, tmp_path / "damaged")
            _flip(tmp_path / "damaged" / name, place, int(generator.integers(8)))
            assert repair_index(tmp_path / "damaged", engine="numpy").n_items_lost <= 1
            assert verify_index(tmp_path / "damaged", engine="numpy").is_intact
            after = _everything(tmp_path / "damaged")
            assert after == {key: before[key] for key in after}
            shutil.rmtree(tmp_path / "damaged")


@pytest.mark.parametrize(
    ("name", "needle", "within"),
    [
        ("items-000002.sqlite", b"1.2.3.51.9.1", 9),  # sop_instance_uid follows series and study
        ("items-000002.sqlite", b"picture 5", 3),
        ("arrays-000002.safetensors", None, 30),
    ],
)
def test_a_flipped_bit_in_a_row_costs_exactly_its_item(
    index_path: Path, name: str, needle: bytes | None, within: int
) -> None:
    before = _everything(index_path)
    content = (index_path / name).read_bytes()
    if needle is None:
        needle = before["1.2.3.5"][1]
    elif needle not in content:
        needle = b"case-1"  # of the last row written with it
    _flip(index_path / name, content.index(needle) + min(within, len(needle) - 1), 0)
    report = repair_index(index_path, engine="numpy")
    assert report.n_items_lost == 1
    assert _everything(index_path).items() < before.items()
