"""Rows and queries meant to break bounds, and the answer by comparing with every row."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from native_hash import CheckedRows, Codes, NeighborHeap, reference, unit_rows
from native_hash.codes import codes_with_tree

Float32 = npt.NDArray[np.float32]
Answer = tuple[npt.NDArray[np.int64], Float32, npt.NDArray[np.int64]]


def clustered(generator: np.random.Generator, n: int, d: int, n_clusters: int = 20) -> Float32:
    centers = generator.standard_normal((n_clusters, d))
    return unit_rows(
        centers[generator.integers(0, n_clusters, n)] + 0.15 * generator.standard_normal((n, d))
    )


def uniform(generator: np.random.Generator, n: int, d: int) -> Float32:
    return unit_rows(generator.standard_normal((n, d)))


def with_tree(rows: CheckedRows, n_axes: int = 15) -> dict[str, npt.NDArray[Any]]:
    return codes_with_tree(rows, n_axes, np.random.default_rng(0))


def with_unmeasured_tree(rows: CheckedRows, n_axes: int) -> dict[str, npt.NDArray[Any]]:
    """As :func:`with_tree` in a tenth of the time: exact searches need no depths."""
    with mock.patch(
        "native_hash.tree_tuning.measure_depths", return_value=np.zeros((3, 0, 3), "f4")
    ):
        return with_tree(rows, n_axes)


def by_codes(
    rows: CheckedRows, codes: Codes, queries: Float32, n: int, excluded: Any = None
) -> Answer:
    heap = NeighborHeap(queries, n)
    heap.offer(rows, codes=codes, excluded=excluded)
    return heap.result()


def brute_force(
    vectors: Float32, queries: Float32, n: int, excluded: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.int64], Float32]:
    """Every row in float64, ordered by score, then row: nothing of native_hash's search."""
    answers = np.full((len(queries), n), -1, np.int64)
    scores = np.full((len(queries), n), -np.inf, np.float32)
    for i, query in enumerate(queries):
        exact = reference.canonical_dots(vectors, query).astype(np.float32)
        left = np.arange(len(vectors)) if excluded is None else np.flatnonzero(~excluded)
        best = left[np.lexsort((left, -exact[left]))][:n]
        answers[i, : best.size], scores[i, : best.size] = best, exact[best]
    return answers, scores


def in_float64(vectors: Float32, queries: Float32, n: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """As :func:`brute_force`: a product in float64 finds the rows worth a canonical dot."""
    answers = np.empty((len(queries), n), np.int64)
    scores = np.empty((len(queries), n), np.float32)
    wide = vectors.astype(np.float64)
    for start in range(0, len(queries), 256):
        part = queries[start : start + 256]
        products = part.astype(np.float64) @ wide.T
        least = np.partition(products, -n, axis=1)[:, -n] - 1e-6  # float32 rounding and ties
        for i, query in enumerate(part):
            rows = np.flatnonzero(products[i] >= least[i])
            exact = reference.canonical_dots(vectors[rows], query).astype(np.float32)
            best = np.lexsort((rows, -exact))[:n]
            answers[start + i], scores[start + i] = rows[best], exact[best]
    return answers, scores


def expected_answers(
    vectors: Float32, queries: Float32, n: int, excluded: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.int64], Float32]:
    """As :func:`in_float64` among the rows that are left, padded where they are fewer than n."""
    left = np.arange(len(vectors)) if excluded is None else np.flatnonzero(~excluded)
    answers = np.full((len(queries), n), -1, np.int64)
    scores = np.full((len(queries), n), -np.inf, np.float32)
    size = min(n, left.size)
    found = in_float64(vectors[left], queries, size)
    answers[:, :size], scores[:, :size] = left[found[0]], found[1]
    return answers, scores


def adversarial(generator: np.random.Generator, vectors: Float32, n_each: int) -> Float32:
    """Queries meant to break bounds: rows, near rows, opposites, means, axes, codes' own grid."""
    rows = vectors[generator.integers(0, len(vectors), n_each)]
    others = vectors[generator.integers(0, len(vectors), n_each)]
    d = vectors.shape[1]
    noise = generator.standard_normal(rows.shape)
    grid = np.rint(rows * 127 / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-9))
    axes = np.eye(d)[generator.integers(0, d, n_each)]
    return unit_rows(
        np.concatenate(
            [rows, rows + 1e-4 * noise, rows + 1e-7 * noise, -rows, rows + others, rows - others,
             noise, grid, axes]
        )
    )  # fmt: skip


def adversarial_set(generator: np.random.Generator, kind: str, n: int, d: int) -> Float32:
    """Rows with duplicates, near duplicates, opposites and a zero row among them."""
    vectors = (clustered if kind == "clustered" else uniform)(generator, n, d)
    vectors[n // 4 : n // 4 + 60] = vectors[:60]
    vectors[n // 2 : n // 2 + 60] = unit_rows(
        vectors[:60] + 1e-4 * generator.standard_normal((60, d))
    )
    vectors[-60:] = -vectors[:60]
    vectors[7] = 0
    return vectors


HARD_KINDS = (
    "blend 0.3", "blend 0.5", "blend 0.7", "plane", "curve", "duplicates", "giant", "two scales",
)  # fmt: skip
"""Between clustered and uniform, and beyond both; see :func:`hard_set`."""


def hard_set(generator: np.random.Generator, kind: str, n: int, d: int) -> Float32:
    """Unit rows of which a tree prunes some, most or hardly any."""
    noise = generator.standard_normal((n, d))
    if kind.startswith("blend"):  # so much of a cluster in each row
        share = float(kind.split()[1])
        return unit_rows(share * clustered(generator, n, d) + (1 - share) * unit_rows(noise))
    if kind == "plane":  # all but rounding lies in two dimensions
        return unit_rows(generator.standard_normal((n, 2)) @ generator.standard_normal((2, d)))
    if kind == "curve":  # three dimensions, one parameter, a little noise
        angles = 2 * np.pi * generator.random(n)
        curve = np.stack([np.cos(angles), np.sin(angles), np.cos(3 * angles)], axis=1)
        return unit_rows(curve @ generator.standard_normal((3, d)) + 1e-3 * noise)
    if kind == "duplicates":  # thirty rows, again and again
        return uniform(generator, 30, d)[generator.integers(0, 30, n)]
    is_outlier = generator.random(n) < 0.05
    if kind == "giant":  # one ball of nearly equal rows, and outliers
        return unit_rows(np.where(is_outlier[:, np.newaxis], noise, 5 + 1e-3 * noise))
    if kind == "two scales":  # clusters of a wide and of a tiny spread
        spread = np.where(generator.random(n) < 0.5, 1e-5, 0.3)[:, np.newaxis]
        centers = generator.standard_normal((8, d))
        return unit_rows(centers[generator.integers(0, 8, n)] + spread * noise)
    raise ValueError(kind)
