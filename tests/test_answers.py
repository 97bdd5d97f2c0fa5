from __future__ import annotations

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


def test_case_score_is_mean_of_best_with_floor_where_not_reached() -> None:
    first = neighbors(("a", "X", 0.9), ("a", "X", 0.8), ("b", "Y", 0.7))
    second = neighbors(("b", "Y", 0.95), ("c", "X", 0.6), ("c", "X", 0.5))
    ranks = rank_cases([first, second], top_n=10)
    assert [rank.case_id for rank in ranks] == ["b", "a", "c"]
    scores = {rank.case_id: rank.score for rank in ranks}
    assert scores["a"] == pytest.approx((0.9 + 0.5) / 2)
    assert scores["b"] == pytest.approx((0.7 + 0.95) / 2)
    assert scores["c"] == pytest.approx((0.7 + 0.6) / 2)
    assert [rank.rank for rank in ranks] == [1, 2, 3]
    assert ranks[0].n_slices == 2
    assert ranks[0].best_score == 0.95
    assert len(rank_cases([first, second], top_n=2)) == 2


def test_ties_go_by_case_id_and_slice_order_does_not_matter() -> None:
    first = neighbors(("b", "Y", 0.9), ("a", "X", 0.9))
    second = neighbors(("a", "X", 0.4), ("b", "Y", 0.4))
    assert [rank.case_id for rank in rank_cases([first, second], 5)] == ["a", "b"]
    assert rank_cases([first, second], 5) == rank_cases([second, first], 5)


def test_slices_without_neighbors_do_not_count() -> None:
    only = neighbors(("a", "X", 0.9))
    assert rank_cases([only, ()], 5) == rank_cases([only], 5)
    assert rank_cases([(), ()], 5) == ()


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
