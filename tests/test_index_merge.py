"""Merging: every item once, no patient split, no two patients joined, or nothing at all."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ildsdk.errors import ConfigError, IndexFileError, InputError
from ildsdk.index import Index, ItemRecord
from ildsdk.index.building import build_from_arrays
from ildsdk.index.merging import merge_indexes
from tests.index_factory import SALT, make_items, unit_embeddings

FACTS = {"bundle_hash": "b" * 64, "is_synthetic": False, "salt": SALT}


def write(path: Path, first: int, n: int, **changes: Any) -> Path:
    """Index of the items ``first`` to ``first + n - 1``, five to a case and patient."""
    numbers = range(first, first + n)
    arguments: dict[str, Any] = {
        "name": path.name,
        "thumbnails": [f"picture {i}".encode() for i in numbers],
        "patient_hashes": [f"patient-{i // 5}" for i in numbers],
        "no_match_threshold": 0.5,
        "threshold_how": "by hand",
        **FACTS,
    }
    embeddings = unit_embeddings(0, 100)[first : first + n]
    edit: Callable[[ItemRecord], ItemRecord] = changes.pop("edit", lambda item: item)
    records = [edit(item) for item in make_items(first, n)]
    build_from_arrays(path, embeddings, records, **{**arguments, **changes}).close()
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_merged_is_as_if_built_in_one_go(tmp_path: Path) -> None:
    sources = [
        write(tmp_path / "a", 0, 13),
        write(tmp_path / "b", 13, 12),
        write(tmp_path / "c", 25, 5),
    ]
    write(tmp_path / "whole", 0, 30)
    report = merge_indexes(tmp_path / "merged", sources)
    assert dataclasses.astuple(report) == (3, 30, 6, 0, 1, True, 0, 0, 0)
    with Index.open(tmp_path / "merged") as merged, Index.open(tmp_path / "whole") as whole:
        assert merged.items(range(30)) == whole.items(range(30))
        assert merged.embeddings().tobytes() == whole.embeddings().tobytes()
        assert merged.thumbnail(29) == b"picture 29"
        queries = unit_embeddings(9, 4)
        for mode in ("exact", "paper"):
            found, expected = (
                index.search(queries, 7, mode=mode)  # type: ignore[arg-type]
                for index in (merged, whole)
            )
            assert found.rows.tobytes() == expected.rows.tobytes()
            assert found.scores.tobytes() == expected.scores.tobytes()
        assert merged.rows_of_patient("patient-2", None).sum() == 5
        assert merged.no_match_threshold is None
        assert merged.info().threshold_how == "not calibrated: merged from 3 indexes"
        assert merged.name == "merged"
        assert merged.verify() == []
    assert names_in(tmp_path) == ["a", "b", "c", "merged", "whole"]


def test_merged_items_keep_their_days_in_one_segment(tmp_path: Path) -> None:
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(days=3 * i) for i in range(30)]
    sources = [write(tmp_path / "a", 0, 5), write(tmp_path / "b", 5, 5)]
    for source, numbers in zip(sources, (range(10, 20), range(20, 30)), strict=True):
        with Index.open(source) as index:
            index.add(
                unit_embeddings(0, 100)[numbers.start : numbers.stop],
                make_items(numbers.start, 10),
                [b""] * 10,
                added_on=[days[i] for i in numbers],
            )
    merge_indexes(tmp_path / "merged", sources)
    with Index.open(tmp_path / "merged") as merged:
        assert merged.info().n_segments == 1
        rows = [merged.row_of(f"1.2.3.{i}") for i in range(10, 30)]
        assert merged.added_on()[rows].tolist() == days[10:]


def test_removed_items_are_not_merged(tmp_path: Path) -> None:
    sources = [write(tmp_path / "a", 0, 10), write(tmp_path / "b", 5, 10)]
    with Index.open(sources[0]) as index:
        index.remove(case_ids=["case-1"])
    assert merge_indexes(tmp_path / "merged", sources).n_items == 15


def test_an_item_in_two_sources(tmp_path: Path) -> None:
    sources = [write(tmp_path / "a", 0, 12), write(tmp_path / "b", 8, 12)]
    with pytest.raises(InputError, match="4 of 12 items of source 2 stand in an earlier one"):
        merge_indexes(tmp_path / "merged", sources)
    report = merge_indexes(tmp_path / "merged", sources, on_duplicate="skip")
    assert (report.n_items, report.n_skipped_items, report.n_joined_cases) == (20, 4, 2)
    with Index.open(tmp_path / "merged") as merged:
        assert [item.item_id for item in merged.items(range(20))] == [
            f"1.2.3.{i}" for i in range(20)
        ]


def other_studies(item: ItemRecord) -> ItemRecord:
    """The same case ids at another hospital: other images, studies, patients."""
    return dataclasses.replace(
        item,
        item_id=f"9.{item.item_id}",
        sop_instance_uid=f"9.{item.sop_instance_uid}",
        study_instance_uid=f"9.{item.study_instance_uid}",
    )


def test_equal_case_ids_of_two_hospitals_need_prefixes(tmp_path: Path) -> None:
    sources = [
        write(tmp_path / "a", 0, 10),
        write(tmp_path / "b", 5, 10, edit=other_studies, patient_hashes=["x"] * 5 + ["y"] * 5),
    ]
    with pytest.raises(InputError, match="nothing shows that it is the same patient"):
        merge_indexes(tmp_path / "merged", sources)
    report = merge_indexes(tmp_path / "merged", sources, case_prefixes=["a/", "b/"])
    assert (report.n_cases, report.n_joined_cases) == (4, 0)
    with Index.open(tmp_path / "merged") as merged:
        assert {item.case_id for item in merged.items(range(20))} == {
            "a/case-0", "a/case-1", "b/case-1", "b/case-2",
        }  # fmt: skip


def test_a_later_study_of_the_same_patient_joins_his_case(tmp_path: Path) -> None:
    sources = [write(tmp_path / "a", 0, 10), write(tmp_path / "b", 5, 5, edit=other_studies)]
    assert merge_indexes(tmp_path / "merged", sources).n_joined_cases == 1
    with Index.open(tmp_path / "merged") as merged:
        assert merged.rows_of_patient(None, "9.1.9.1").sum() == 10


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda item: dataclasses.replace(item, case_id="other"), "one study stands under two"),
        (lambda item: dataclasses.replace(other_studies(item), case_id="other"), "one patient"),
        (lambda item: dataclasses.replace(other_studies(item), label="other"), "one proven"),
    ],
)
def test_sources_that_contradict_each_other_are_refused(
    tmp_path: Path, change: Callable[[ItemRecord], ItemRecord], told: str
) -> None:
    sources = [write(tmp_path / "a", 0, 8), write(tmp_path / "b", 8, 2, edit=change)]
    with pytest.raises(InputError, match=told):
        merge_indexes(tmp_path / "merged", sources)
    assert names_in(tmp_path) == ["a", "b"]


def test_prefixes_must_not_part_a_patient(tmp_path: Path) -> None:
    sources = [write(tmp_path / "a", 0, 8), write(tmp_path / "b", 6, 9)]
    with pytest.raises(InputError, match="one slice stands under two case ids"):
        merge_indexes(tmp_path / "merged", sources, on_duplicate="skip", case_prefixes=["a/", "b/"])
    assert names_in(tmp_path) == ["a", "b"]


def test_different_salts_are_refused_or_keys_dropped(tmp_path: Path) -> None:
    sources = [write(tmp_path / "a", 0, 10), write(tmp_path / "b", 10, 10, salt=None)]
    with pytest.raises(ConfigError, match="different salts"):
        merge_indexes(tmp_path / "merged", sources)
    report = merge_indexes(tmp_path / "merged", sources, drop_patient_keys=True)
    assert not report.has_patient_keys
    with Index.open(tmp_path / "merged") as merged:
        assert merged.info().n_patients == 0
        assert merged.salt not in (SALT, b"")
        # What is left: the study, and with it the case.
        assert merged.rows_of_patient("patient-1", "1.9.1").sum() == 5
        assert merged.rows_of_patient("patient-1", None).sum() == 0


def test_keys_of_the_only_source_that_has_any_are_kept(tmp_path: Path) -> None:
    sources = [
        write(tmp_path / "a", 0, 10, salt=None, patient_hashes=None),
        write(tmp_path / "b", 10, 10),
    ]
    assert merge_indexes(tmp_path / "merged", sources).has_patient_keys
    with Index.open(tmp_path / "merged") as merged:
        assert np.flatnonzero(merged.rows_of_patient("patient-3", None)).tolist() == [
            15, 16, 17, 18, 19,
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"bundle_hash": "c" * 64}, IndexFileError, "different bundles"),
        ({"is_synthetic": True}, ConfigError, "phantoms"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], told: str
) -> None:
    sources = [write(tmp_path / "a", 0, 5), write(tmp_path / "b", 5, 5, **changes)]
    with pytest.raises(error, match=told):
        merge_indexes(tmp_path / "merged", sources)
    assert names_in(tmp_path) == ["a", "b"]


def test_arguments_and_targets(tmp_path: Path) -> None:
    sources = [write(tmp_path / "a", 0, 5), write(tmp_path / "b", 5, 5)]
    for arguments in (
        {"sources": sources[:1]},
        {"sources": sources, "case_prefixes": ["x"]},
        {"sources": sources, "on_duplicate": "keep"},
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            merge_indexes(tmp_path / "merged", **arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="exists already"):
        merge_indexes(tmp_path / "a", sources)
    with pytest.raises(InputError, match="stand in an earlier one"):
        merge_indexes(tmp_path / "merged", [sources[0], sources[0]])
    assert names_in(tmp_path) == ["a", "b"]
