"""A threshold measured on too few cases comes with a caution, everywhere it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ildsdk.index import Index, ItemRecord, build_from_arrays
from ildsdk.index.threshold import (
    FEWEST_CASES,
    FEWEST_ITEMS,
    ONE_CASE_LEFT_OUT,
    calibrate,
    threshold_caution,
)
from ildsdk.notice import notice
from native_hash import unit_rows

HOW = f"percentile 1 of best scores, {ONE_CASE_LEFT_OUT}"


@pytest.mark.parametrize(
    ("n_items", "cases_by_label", "told"),
    [
        (FEWEST_ITEMS, {"a": FEWEST_CASES - 2, "b": 2}, None),
        (FEWEST_ITEMS - 1, {"a": 10, "b": 10}, "(99 slices, expected at least 100)"),
        (FEWEST_ITEMS, {"a": 10, "b": 9}, "(19 cases, expected at least 20)"),
        (500, {"a": 20, "b": 1, "c": 1, "d": 9}, "(2 of 4 diagnoses with a single case)"),
        (12, {"a": 1, "b": 3}, "(4 cases, expected at least 20; 12 slices, expected at least 100;"),
    ],
)
def test_when_a_threshold_is_not_to_be_relied_on(
    n_items: int, cases_by_label: dict[str, int], told: str | None
) -> None:
    found = threshold_caution(0.5, HOW, n_items=n_items, cases_by_label=cases_by_label)
    assert (found is None) if told is None else (found is not None and told in found)


def test_other_thresholds_are_others_to_answer_for() -> None:
    for threshold, how in ((None, HOW), (0.5, "held-out cases of the bundle's training")):
        assert threshold_caution(threshold, how, n_items=3, cases_by_label={"a": 1}) is None


def test_the_notice_of_an_answer_carries_it() -> None:
    plain = notice(model_is_synthetic=False, cases_are_synthetic=False)
    assert (
        notice(model_is_synthetic=False, cases_are_synthetic=False, threshold_caution="Too few.")
        == f"{plain} Too few."
    )


def made(path: Path, n_cases: int, of_label: int) -> Index:
    """Five slices a case, cases near their label."""
    generator = np.random.default_rng(0)
    labels = np.arange(n_cases) // of_label
    centers = generator.standard_normal((n_cases, 32))
    cases = 3 * centers[labels] + generator.standard_normal((n_cases, 32))
    rows = unit_rows(
        np.repeat(cases, 5, axis=0) + 0.3 * generator.standard_normal((5 * n_cases, 32))
    )
    records = [
        ItemRecord(
            item_id=str(i), case_id=str(i // 5), label=str(labels[i // 5]), study_instance_uid="",
            series_instance_uid="", sop_instance_uid=str(i),
        )
        for i in range(len(rows))
    ]  # fmt: skip
    index = build_from_arrays(path, rows, records, name="t", bundle_hash="b", is_synthetic=True)
    index.set_calibration(*calibrate(index))
    return index


def test_a_single_case_of_each_label_gives_a_threshold_far_too_low(tmp_path: Path) -> None:
    """Why the caution is there: left out, it is compared with other diagnoses only."""
    with made(tmp_path / "alone", 20, 1) as alone, made(tmp_path / "many", 40, 10) as many:
        assert alone.no_match_threshold is not None
        assert many.no_match_threshold is not None
        assert alone.no_match_threshold < many.no_match_threshold - 0.3
        assert "20 of 20 diagnoses" in str(alone.info().threshold_caution)
        assert many.info().threshold_caution is None
        many.remove(case_ids=[str(i) for i in range(1, 30)])
        assert "11 cases" in str(many.info().threshold_caution)
