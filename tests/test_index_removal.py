"""Removing and compacting: removed items are nowhere, readers are not disturbed."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ildsdk.errors import IndexFileError, InputError
from ildsdk.index import Index, ItemRecord, verify_index
from ildsdk.index import compacting as compacting_module
from tests.index_factory import add_items, make_index, make_items, unit_embeddings

DAY = datetime.date(2024, 2, 29)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Cases 0 to 4, of five items each; case-1 lies in both segments."""
    make_index(tmp_path / "index", 8, 17).close()
    return tmp_path / "index"


@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_removed_items_are_in_no_answer_and_no_count(path: Path, mode: str) -> None:
    gone = [2, 5, 6, 7, 8, 9, 24]
    with Index.open(path) as index:
        matrix = index.embeddings()
        assert index.remove(item_ids=["1.2.3.2", "1.2.3.24"], case_ids=["case-1"]) == len(gone)
        kept = np.setdiff1d(np.arange(25), gone)
        assert (len(index), index.n_rows) == (18, 25)
        assert index.rows().tolist() == kept.tolist()
        assert index.embeddings().tobytes() == matrix[kept].tobytes()
        found = index.search(matrix, 25, mode=mode)
        assert not np.isin(found.rows, gone).any()
        if mode == "exact":
            assert found.n_candidates.tolist() == [18] * 25
        own = np.zeros(25, bool)
        own[[0, 1]] = True
        found = index.search(matrix, 25, mode=mode, excluded_rows=own)
        assert not np.isin(found.rows, [*gone, 0, 1]).any()
        scores = index.case_scores(matrix[:3])
        assert scores.case_ids == ("case-0", "case-2", "case-3", "case-4")
        assert scores.first_rows.tolist() == [0, 10, 15, 20]
        assert np.allclose(scores.scores[2, 0], (matrix[[0, 1, 3, 4]] @ matrix[2]).max())
        assert not index.rows_of_patient("patient-1", None).any()
        assert np.flatnonzero(index.rows_of_patient("patient-0", "1.9.1")).tolist() == [0, 1, 3, 4]
        info = index.info()
        assert (info.n_items, info.n_removed, info.n_cases, info.n_patients) == (18, 7, 4, 4)
        assert info.items_by_label == {"ASS-ILD": 8, "DM/RP-ILD": 5, "Normal": 5}
        assert info.items_by_site == {"north": 5}
        assert index.prevalence() == {"ASS-ILD": 8 / 18, "DM/RP-ILD": 5 / 18, "Normal": 5 / 18}
        assert sum(index.prevalence(own).values()) == pytest.approx(1)
        assert index.thumbnail_of_item("1.2.3.6") is None
        for call in (index.items, lambda rows: index.thumbnail(rows[0]), index.embeddings):
            with pytest.raises(IndexError, match="row 6 was removed"):
                call([6])
        assert index.verify() == []
    report = verify_index(path)
    assert report.n_items == 18


def test_lowest_row_of_a_case_is_one_that_is_left(path: Path) -> None:
    with Index.open(path) as index:
        index.remove(item_ids=["1.2.3.0", "1.2.3.1"])
        scores = index.case_scores(unit_embeddings(1, 1))
        assert scores.first_rows.tolist() == [2, 5, 10, 15, 20]
        assert index.items(scores.first_rows)[0].case_id == "case-0"


def test_removed_items_may_come_back_with_another_label(path: Path) -> None:
    with Index.open(path) as index:
        before = index.hash
        index.remove(case_ids=["case-1"])
        assert index.hash != before
        again = [
            ItemRecord(**{name: getattr(item, name) for name in item.__dataclass_fields__}
                       | {"label": "Normal"})
            for item in make_items(5, 5)
        ]  # fmt: skip
        with pytest.raises(InputError, match="1 cases would have two labels"):
            index.add(unit_embeddings(5, 6), [*again, *_relabeled(0)], [b""] * 6)
        index.add(unit_embeddings(5, 5), again, [b"again"] * 5)
        assert index.thumbnail_of_item("1.2.3.6") == b"again"
        assert index.items([25])[0].label == "Normal"
        assert len(index) == 25
        with pytest.raises(InputError, match="5 of 5 slices to add are in the index already"):
            index.add(unit_embeddings(5, 5), again, [b"again"] * 5)
        assert index.remove(item_ids=["1.2.3.6"]) == 1  # the new one
        assert index.thumbnail_of_item("1.2.3.6") is None
        assert index.verify() == []


def _relabeled(i: int) -> list[ItemRecord]:
    (item,) = make_items(i, 1)
    return [
        ItemRecord(
            item_id="1.7", case_id=item.case_id, label="other", study_instance_uid="1",
            series_instance_uid="1", sop_instance_uid="1.7",
        )
    ]  # fmt: skip


def test_a_larger_addition_finds_what_is_there_too(path: Path) -> None:
    with Index.open(path) as index:
        index.remove(item_ids=["1.2.3.3"])
        with pytest.raises(InputError, match="24 of 40 slices to add are in the index already"):
            add_items(index, 0, 40)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"item_ids": ["1.2.3.0", "1.2.3.99"]},
            r"1 of 2 items are not in the index \(for example '1.2.3.99'\)",
        ),
        (
            {"case_ids": ["case-0", "case-9", "case-8"]},
            r"2 of 3 cases are not in the index \(for example 'case-8'\)",
        ),
        ({"item_ids": ["1.2.3.0"], "case_ids": [""]}, "1 of 1 cases"),
        ({"item_ids": ["1.2.3.4"], "case_ids": ["case-1"]}, "1 of 1 items"),
    ],
)
def test_unknown_keys_remove_nothing(
    path: Path, arguments: dict[str, list[str]], told: str
) -> None:
    with Index.open(path) as index:
        index.remove(item_ids=["1.2.3.4"])
        before = {file.name: file.read_bytes() for file in path.iterdir()}
        with pytest.raises(InputError, match=told):
            index.remove(**arguments)
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before
        with pytest.raises(TypeError, match="single text"):
            index.remove(case_ids="case-0")
        assert index.remove() == 0
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_segments_are_not_touched_by_a_removal(path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with Index.open(path) as index:
        index.remove(case_ids=["case-0"])
        assert (path / "removed-000004.safetensors").exists()
        index.remove(case_ids=["case-1"])  # of both segments: two files
    after = {file.name: file.read_bytes() for file in path.iterdir()}
    assert all(after[name] == content for name, content in before.items() if "manifest" not in name)
    assert sorted(after.keys() - before.keys()) == [
        "removed-000005.safetensors", "removed-000006.safetensors",
    ]  # fmt: skip


def test_compact_drops_removed_rows_and_merges(path: Path) -> None:
    with Index.open(path) as index:
        index.add(
            unit_embeddings(40, 2), make_items(40, 2), [b"x", b"y"],
            patient_hashes=["a", None], added_on=DAY,
        )  # fmt: skip
        index.remove(case_ids=["case-1"])
        before = _content(index)
        report = index.compact()
        assert (report.n_segments_before, report.n_segments_after) == (3, 1)
        assert (report.n_rows_dropped, report.n_rows_rewritten) == (5, 22)
        on_disk = sum(file.stat().st_size for file in path.iterdir() if "manifest" not in file.name)
        assert on_disk == report.n_bytes_after < report.n_bytes_before
        assert (len(index), index.n_rows) == (22, 22)
        assert _content(index) == before
        assert index.added_on()[-1] == np.datetime64(DAY)
        assert index.added_on()[0] > np.datetime64(DAY)
        assert b"1.2.3.6\x00" not in b"".join(file.read_bytes() for file in path.iterdir())
        assert index.verify() == []
        nothing = index.compact()
        assert (nothing.n_rows_dropped, nothing.n_rows_rewritten) == (0, 0)
        assert nothing.n_bytes_after == nothing.n_bytes_before == report.n_bytes_after
    with Index.open(path) as index:
        assert _content(index) == before
        index.remove(case_ids=[f"case-{i}" for i in (0, 2, 3, 4, 8)])
        assert index.compact().n_segments_after == 0
        assert len(index) == index.n_rows == 0
        assert index.verify() == []
        add_items(index, 0, 5)


def _content(index: Index) -> list[tuple[ItemRecord, bytes, bytes]]:
    rows = index.rows()
    return [
        (item, index.embeddings([row]).tobytes(), index.thumbnail(row))
        for row, item in zip(rows, index.items(rows), strict=True)
    ]


def test_compact_leaves_large_segments_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting_module, "SMALL_SEGMENT_ROWS", 10)
    with Index.open(path) as index:  # segments of 8, 17, 3, 4, 12 and 5 rows
        for first, n in ((25, 3), (30, 4), (35, 12), (50, 5)):
            add_items(index, first, n)
        before = _content(index)
        report = index.compact()
        assert (report.n_segments_before, report.n_segments_after) == (6, 5)
        assert report.n_rows_rewritten == 7
        assert _content(index) == before
        index.remove(item_ids=["1.2.3.36"])  # of a large one, between two small ones
        report = index.compact()
        assert report.n_rows_dropped == 1
        assert report.n_segments_after == 3  # 8 | 17 | 7 + 11 + 5
        assert [item for item, *_ in _content(index)] == [
            item for item, *_ in before if item.item_id != "1.2.3.36"
        ]


def test_compact_refuses_to_copy_damage(path: Path) -> None:
    name = "arrays-000002.safetensors"
    content = bytearray((path / name).read_bytes())
    content[300] ^= 1
    (path / name).write_bytes(content)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with Index.open(path) as index, pytest.raises(IndexFileError, match="damaged; run"):
        index.compact()
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_a_reader_that_opened_before_reads_on_after_everything_changed(path: Path) -> None:
    with Index.open(path) as reader, Index.open(path) as untouched, Index.open(path) as writer:
        queries = unit_embeddings(77, 6)
        uses: tuple[Callable[[Index], object], ...] = (
            lambda index: index.search(queries, 5).rows.tolist(),
            lambda index: index.search(queries, 5, mode="paper").rows.tolist(),
            lambda index: index.items(range(25)),
            lambda index: [index.thumbnail(row) for row in range(25)],
            lambda index: index.case_scores(queries).case_ids,
            lambda index: index.rows_of_patient("patient-1", None).tolist(),
            lambda index: index.info(),
            lambda index: index.prevalence(),
            lambda index: index.coded("site")[1].tolist(),
        )
        expected = [use(untouched) for use in uses]
        writer.remove(case_ids=["case-1"])
        writer.compact()
        add_items(writer, 100, 5)
        writer.remove(case_ids=["case-20"])
        writer.compact()
        assert not {file.name for file in path.iterdir()} & {
            "arrays-000002.safetensors", "items-000003.sqlite", "columns-000002.safetensors",
        }  # fmt: skip
        assert [use(reader) for use in uses] == expected  # nothing was read before
        assert len(writer) == 20
        reader.set_calibration(0.2, "now")  # a change brings it to the newest state
        assert len(reader) == 20


def test_opening_finds_the_newer_state_when_files_go_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ildsdk.index import database as database_module

    real = database_module.read_manifest

    def read_and_be_overtaken(folder: Path) -> object:
        manifest = real(folder)
        monkeypatch.setattr(database_module, "read_manifest", real)
        with Index.open(path) as writer:
            writer.compact()
        return manifest

    monkeypatch.setattr(database_module, "read_manifest", read_and_be_overtaken)
    with Index.open(path) as index:
        assert len(index.items(range(25))) == 25
        assert index.info().n_segments == 1


def test_added_with_calibration_in_one_step(path: Path) -> None:
    seen = []

    def calibrate(draft: Index) -> tuple[float, str]:
        seen.append((len(draft), draft.search(draft.embeddings([26]), 1).rows[0, 0]))
        with pytest.raises(IndexFileError, match="being written"):
            draft.set_calibration(0.9, "not now")
        return 0.375, "measured"

    with Index.open(path) as index:
        before = index.info().revision
        add_items(index, 30, 5, calibration=calibrate)
        assert seen == [(30, 26)]
        assert (index.no_match_threshold, index.info().revision) == (0.375, before + 1)
        state = {file.name: file.read_bytes() for file in path.iterdir()}

        def fail(draft: Index) -> tuple[float, str]:
            raise RuntimeError(len(draft))

        with pytest.raises(RuntimeError, match="32"):
            add_items(index, 40, 2, calibration=fail)
        with pytest.raises(ValueError, match="no_match_threshold"):
            add_items(index, 40, 2, calibration=(3.0, ""))
        assert {file.name: file.read_bytes() for file in path.iterdir()} == state


def test_items_may_be_generators_and_threads_change_nothing(tmp_path: Path) -> None:
    for n_threads in (1, 2):
        with make_index(tmp_path / f"{n_threads}") as index:
            index.add(
                unit_embeddings(0, 50),
                iter(make_items(0, 50)),
                (b"x" for _ in range(50)),
                patient_hashes=(f"p{i}" for i in range(50)),
                added_on=DAY,
                n_threads=n_threads,
            )
            for wrong in (49, 51):
                with pytest.raises(ValueError, match=r"expected the same|argument"):
                    index.add(
                        unit_embeddings(50, 50), iter(make_items(50, wrong)), iter([b"x"] * 50),
                        n_threads=n_threads,
                    )  # fmt: skip
            assert index.verify() == []
    files = [{f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in ("1", "2")]
    assert files[0] == files[1]


def test_ready_made_patient_keys_are_taken(path: Path) -> None:
    with Index.open(path) as index:
        key = index.items([0])[0].patient_key
        for keys, error in (([key, "x"], ValueError), ([key, 5], ValueError)):
            with pytest.raises(error, match="64 hex"):
                index.add(unit_embeddings(90, 2), make_items(90, 2), [b"", b""], patient_keys=keys)
        index.add(unit_embeddings(90, 2), make_items(90, 2), [b"", b""], patient_keys=[key, None])
        assert index.items([25, 26])[0].patient_key == key
        assert index.items([25, 26])[1].patient_key is None
        assert index.rows_of_patient("patient-0", None)[25]
        assert len(index.salt) == 32
