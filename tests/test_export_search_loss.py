"""What the paper's hashing loses: counted as its equations and a real search give it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

import native_hash
from export.reporting.search_loss import PAPER_BITS, assert_exact_search, paper_searches
from native_hash.probing import Tables


def lsh_by_hand(queries, stored, truth, classes, planes, top_n):
    """Eqs. 6-10 in plain numpy, query by query."""
    powers = 2 ** np.arange(PAPER_BITS)
    row_keys = (stored.astype(np.float64) @ planes.T.astype(np.float64) > 0) @ powers
    scores = (queries.astype(np.float64) @ stored.astype(np.float64).T).astype(np.float32)
    predicted, precision, recall, selectivity = [], [], [], []
    for query, score, label in zip(queries, scores, truth, strict=True):
        key = (planes.astype(np.float64) @ query > 0) @ powers
        bucket = [row for row in range(len(stored)) if row_keys[row] == key]
        best = sorted(bucket, key=lambda row: (-score[row], row))[:top_n]
        predicted.append(classes[best[0]] if best else -1)
        precision.append(sum(classes[row] == label for row in best) / top_n)
        tenth = sorted(score.tolist(), reverse=True)[top_n - 1]
        recall.append(sum(score[row] >= tenth for row in best) / top_n)
        selectivity.append(len(bucket) / len(stored))
    return predicted, precision, recall, selectivity


def searched(queries, stored, truth, classes, top_n, seeds):
    scores = (queries.astype(np.float64) @ stored.astype(np.float64).T).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = classes[order] == truth[:, None]
    return paper_searches(
        queries, stored, scores, order, hits, classes, top_n=top_n, seeds=seeds
    ), scores, order  # fmt: skip


def test_paper_preset_equals_its_equations_and_a_search_through_native_hash():
    rng = np.random.default_rng(2)
    center = np.array([1.0, 0, 0, 0, 0, 0])
    stored = native_hash.unit_rows(center + rng.normal(size=(40, 6)))
    stored[20:25] = stored[0:5]  # ties
    queries = native_hash.unit_rows(rng.normal(size=(25, 6)))
    truth, classes = rng.integers(3, size=25), rng.integers(3, size=40)
    found, _, _ = searched(queries, stored, truth, classes, 5, range(6))
    n_empty = 0
    for seed, outcome in enumerate(found):
        planes = native_hash.draw_hyperplanes(1, PAPER_BITS, 6, seed=seed)
        expected = lsh_by_hand(queries, stored, truth, classes, planes[0], 5)
        assert outcome.predicted.tolist() == expected[0]
        np.testing.assert_allclose(outcome.precision, expected[1])
        np.testing.assert_allclose(outcome.recall, expected[2])
        np.testing.assert_allclose(outcome.selectivity, expected[3])
        n_empty += expected[0].count(-1)
        tables = Tables.build(native_hash.signatures(stored, planes), planes)
        rows = native_hash.checked_rows(stored)
        heap = native_hash.NeighborHeap(queries, 5)
        for number, query in enumerate(queries):
            heap.offer_candidates(number, rows, tables.candidates(query, 1))
        best, _, n_scored = heap.result()
        through = np.where(best[:, 0] >= 0, classes[best[:, 0]], -1)
        assert outcome.predicted.tolist() == through.tolist()
        np.testing.assert_allclose(outcome.selectivity, n_scored / 40)
    assert n_empty > 0, "the test is to see an empty bucket"


def test_a_wrong_ranking_is_noticed():
    rng = np.random.default_rng(3)
    stored = native_hash.unit_rows(rng.normal(size=(60, 8)).astype(np.float32))
    queries = native_hash.unit_rows(rng.normal(size=(9, 8)).astype(np.float32))
    none = np.zeros(9, np.int64), np.zeros(60, np.int64)
    _, scores, order = searched(queries, stored, *none, 10, range(1))
    assert_exact_search(queries, stored, scores, order, 10)
    order[4, [0, 1]] = order[4, [1, 0]]
    with pytest.raises(RuntimeError, match="1 of 9"):
        assert_exact_search(queries, stored, scores, order, 10)
