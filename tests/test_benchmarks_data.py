"""What the search benchmarks are measured on, and how recall is counted, must be right."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.search_data import (
    SLICES_PER_CASE,
    difficulty,
    exact_neighbors,
    make_data,
    recall_at_n,
)
from native_hash import unit_rows

N, D, N_QUERIES = 3_000, 32, 40


@pytest.mark.parametrize("kind", ["uniform", "clustered"])
def test_same_seed_same_data(kind: str) -> None:
    first, again, other = (make_data(kind, N, D, n_queries=N_QUERIES, seed=s) for s in (3, 3, 4))
    for name in ("vectors", "tuning", "scored", "classes", "cases"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert not np.array_equal(first.vectors, other.vectors)


@pytest.mark.parametrize("kind", ["uniform", "clustered", "phantom"])
def test_unit_vectors_and_disjoint_halves(kind: str) -> None:
    data = make_data(kind, N, D, n_queries=N_QUERIES)
    parts = (data.vectors, data.tuning, data.scored)
    for part in parts:
        assert part.dtype == np.float32
        assert part.flags.c_contiguous
        assert np.allclose(np.linalg.norm(part, axis=1), 1, atol=1e-5)
    together = np.concatenate(parts)
    assert len(np.unique(together, axis=0)) == len(together)
    if kind != "phantom":
        assert (len(data.vectors), len(data.tuning)) == (N, N_QUERIES)


def test_number_of_cases_grows_with_n() -> None:
    counts = [len(np.unique(make_data("clustered", n, D, n_queries=2).cases)) for n in (N, 4 * N)]
    assert counts[0] == pytest.approx(N / SLICES_PER_CASE, abs=2)
    assert counts[1] == pytest.approx(4 * N / SLICES_PER_CASE, abs=4)


def test_half_of_the_queries_are_of_new_cases() -> None:
    data = make_data("clustered", 20_000, 64, n_queries=200)
    nearest = exact_neighbors(data.vectors, data.scored, 1)[1][:, 0]
    assert 0.45 < np.mean(nearest > np.median(nearest)) < 0.55
    known, new = np.sort(nearest)[::-1][:100], np.sort(nearest)[:100]
    assert known.mean() - new.mean() > 0.02  # two groups, the known ones nearer


def test_clustered_is_as_hard_as_said() -> None:
    data = make_data("clustered", 20_000, 128, n_queries=100)
    hard = difficulty(data, exact_neighbors(data.vectors, data.scored, 10)[1])
    assert 0.88 < hard.within_case < 0.95
    assert 0.80 < hard.within_class < 0.90
    assert 0.25 < hard.between_classes < 0.55


def test_phantom_queries_are_of_cases_that_are_not_in_the_set() -> None:
    from ildsdk import defaults
    from ildsdk.index import Index

    data = make_data("phantom", 0, 0)
    with Index.open(defaults.index_path()) as index:
        vectors, items = index.embeddings(), index.items(range(len(index)))
    case_of = {row.tobytes(): item.case_id for row, item in zip(vectors, items, strict=True)}
    in_set, tuning, scored = (
        {case_of[row.tobytes()] for row in part}
        for part in (data.vectors, data.tuning, data.scored)
    )
    assert not in_set & (tuning | scored)
    assert not tuning & scored
    assert len(in_set) > 40
    assert min(len(tuning), len(scored)) >= 8


def test_exact_neighbors_are_brute_force_with_ties_by_row() -> None:
    generator = np.random.default_rng(0)
    rows = unit_rows(generator.standard_normal((500, 24)).astype(np.float32))
    rows[100:200] = rows[:100]  # every answer below row 100 has a twin
    queries = np.concatenate([rows[40:60], rows[300:320]])
    found, scores = exact_neighbors(rows, queries, 10)
    wide = queries.astype(np.float64) @ rows.astype(np.float64).T
    by_hand = np.argsort(-wide.astype(np.float32), axis=1, kind="stable")[:, :10]
    assert np.array_equal(found, by_hand)
    assert np.array_equal(scores, np.take_along_axis(wide.astype(np.float32), by_hand, 1))


def test_recall_counts_ties_and_not_twice() -> None:
    rows = unit_rows(np.eye(6, 4, dtype=np.float32) + 0.1)
    rows[1] = rows[0]
    queries = rows[:1].copy()
    scores = exact_neighbors(rows, queries, 1)[1]
    assert recall_at_n(rows, queries, np.array([[1]]), scores) == 1.0  # the twin of row 0
    assert recall_at_n(rows, queries, np.array([[2]]), scores) == 0.0
    assert recall_at_n(rows, queries, np.array([[-1]]), scores) == 0.0
    scores = exact_neighbors(rows, queries, 2)[1]
    with pytest.raises(ValueError, match="twice"):
        recall_at_n(rows, queries, np.array([[0, 0]]), scores)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        make_data("sift", N, D)
    with pytest.raises(ValueError, match="even"):
        make_data("uniform", N, D, n_queries=3)
