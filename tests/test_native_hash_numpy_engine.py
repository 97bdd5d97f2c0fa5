"""The numpy engine leaves rows out; what it answers is what the definition answers."""

from __future__ import annotations

import numpy as np
import pytest

from native_hash import numpy_engine, reference
from native_hash.neighbors import slack_of


def scanned(scan, matrices, queries, excluded, n):
    """State after all matrices, sorted: scores, rows, fill."""
    n_queries, d = queries.shape
    best = np.zeros((n_queries, n), np.float32), np.zeros((n_queries, n), np.int64)
    n_filled = np.zeros(n_queries, np.int64)
    first_row = 0
    for matrix, left_out in zip(matrices, excluded, strict=True):
        max_norm = float(np.linalg.norm(matrix.astype(float), axis=1).max(initial=0))
        relative, least = slack_of(d, max_norm)
        slacks = relative * np.linalg.norm(queries.astype(float), axis=1) + least
        scan(matrix, queries, first_row, slacks, left_out, *best, n_filled)
        first_row += len(matrix)
    reference.sort_answers(*best, n_filled)
    return *best, n_filled


def vectors(kind: str, n: int, d: int, generator: np.random.Generator) -> np.ndarray:
    rows = generator.standard_normal((n, d)).astype(np.float32)
    if kind == "ties":  # a few vectors, each many times, some of them one ulp off
        rows = rows[generator.integers(0, 3, n)]
        is_moved = generator.random((n, d)) < 0.02
        rows[is_moved] = np.nextafter(rows[is_moved], np.float32(9))
    if kind == "cancelling":  # large products that nearly add up to nothing
        rows[:, 1::2] = -rows[:, : 2 * (d // 2) : 2] * (1 + np.float32(1e-6))
        rows *= np.float32(1e3)
    if kind == "tiny":
        rows *= np.float32(1e-20)
    return np.ascontiguousarray(rows)


@pytest.mark.parametrize("kind", ["plain", "ties", "cancelling", "tiny"])
@pytest.mark.parametrize("d", [1, 7, 64, 129])
@pytest.mark.parametrize("n", [1, 10, 300])
def test_answers_are_those_of_the_definition(kind: str, d: int, n: int) -> None:
    generator = np.random.default_rng(d * 1000 + n)
    matrices = [vectors(kind, size, d, generator) for size in (500, 3, 0, 200)]
    queries = np.concatenate([matrices[0][:3], vectors("plain", 2, d, generator)])
    queries[0] = 0
    excluded = [
        (generator.random(len(matrix)) < 0.3).astype(np.uint8) if i % 2 else np.empty(0, np.uint8)
        for i, matrix in enumerate(matrices)
    ]
    found = scanned(numpy_engine.scan, matrices, queries, excluded, n)
    expected = scanned(reference.scan, matrices, queries, excluded, n)
    for ours, definition in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, definition)


def test_most_rows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    matrix, query = (vectors("plain", n, 128, generator) for n in (5000, 1))
    scored = []
    as_ever = reference.canonical_dots

    def counted(rows: np.ndarray, one: np.ndarray) -> np.ndarray:
        scored.append(len(rows))
        return as_ever(rows, one)

    monkeypatch.setattr(reference, "canonical_dots", counted)
    scanned(numpy_engine.scan, [matrix], query, [np.empty(0, np.uint8)], 10)
    assert 10 <= sum(scored) < 20
