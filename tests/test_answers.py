from __future__ import annotations

import numpy as np
import pytest

from ildsdk.answers import is_no_similar_case, label_statistics, rank_cases
from ildsdk.records import Neighbor


def neighbors(*entries: tuple[str, str, float]) -> tuple[Neighbor, ...]:
    return tuple(
        Neighbor(
            rank=rank,
            score=score,
            item_id=f"{case}-{rank}",
            case_id=case,
            label=label,
            study_instance_uid="1",
            series_instance_uid="2",
            sop_instance_uid="3",
            position_mm=None,
        )
        for rank, (case, label, score) in enumerate(entries, start=1)
    )


def test_cases_rank_by_mean_best_cosine() -> None:
    scores = np.array([[0.9, 0.7, 0.4], [0.5, 0.95, 0.6]], np.float32)
    ranked = rank_cases(scores, ["a", "b", "c"], top_n=2)
    assert [column for column, _ in ranked] == [1, 0]
    assert [score for _, score in ranked] == pytest.approx([0.825, 0.7])


def test_a_case_no_slice_reached_gains_nothing() -> None:
    # What a case did reach counts on every slice, however few neighbors are shown.
    scores = np.array([[0.9, 0.1], [0.4, 0.5]], np.float32)
    assert [column for column, _ in rank_cases(scores, ["a", "b"], 5)] == [0, 1]


def test_ties_go_by_case_id_and_slice_order_does_not_matter() -> None:
    scores = np.array([[0.5, 0.25], [0.25, 0.5]], np.float32)
    assert [column for column, _ in rank_cases(scores, ["b", "a"], 5)] == [1, 0]
    assert rank_cases(scores, ["b", "a"], 5) == rank_cases(scores[::-1], ["b", "a"], 5)


def test_label_statistics_beside_prevalence() -> None:
    shown = [
        neighbors(("a", "X", 0.9), ("b", "Y", 0.8)),
        neighbors(("a", "X", 0.7), ("a", "X", 0.6)),
        (),
    ]
    statistics = label_statistics(shown, {"X": 0.25, "Y": 0.5, "Z": 0.25})
    assert [entry.label for entry in statistics] == ["X", "Y", "Z"]
    assert [entry.n_neighbors for entry in statistics] == [3, 1, 0]
    assert [entry.share for entry in statistics] == [0.75, 0.25, 0.0]
    assert [entry.n_top1_slices for entry in statistics] == [2, 0, 0]
    assert [entry.prevalence for entry in statistics] == [0.25, 0.5, 0.25]


def test_no_similar_case() -> None:
    found = neighbors(("a", "X", 0.5))
    assert is_no_similar_case((), None)
    assert is_no_similar_case(found, 0.51)
    assert not is_no_similar_case(found, 0.5)
    assert not is_no_similar_case(found, None)
