"""Queries made of a matrix itself, on which recalls are measured when codes are made.

Rows of the matrix (with themselves left out of their answers), and blends of many related rows
that keep their spread: these imitate queries from cases that are not in the matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from native_hash.neighbors import CheckedRows, NeighborHeap, unit_rows
from native_hash.tasks import in_threads

if TYPE_CHECKING:
    from native_hash.codes import Codes

MEASURED_N = (1, 10, 100)
"""Lengths of answers for which the recall is measured."""

RECALLS = (0.95, 0.96, 0.965, 0.97, 0.975, 0.98, 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999)
"""Recalls for which the cheapest setting is kept."""

MARGIN = 1.645
"""Standard errors by which a recall must be surpassed: 95 %, one-sided."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_N_BLENDED = 48
QUERIES_AT_ONCE = 32
"""Of a batch while sample queries are answered."""


def sample_queries(
    values: Float32, generator: np.random.Generator, most: int = 384
) -> tuple[Float32, Int64]:
    """Queries float32 ``(m, d)``, and the row that each is, int64 ``(m,)``, -1 for blends.

    Rows come first, then as many blends; ``most`` of each.
    """
    n = values.shape[0]
    size = min(int(np.clip(1e8 / n, 192, most)), n)
    picked = generator.choice(n, size, replace=False)
    queries = np.concatenate([values[picked], _blends(values, picked, generator)])
    return queries, np.concatenate([picked, np.full(size, -1)])


def _blends(values: Float32, picked: Int64, generator: np.random.Generator) -> Float32:
    """Per picked row, a random blend of it and related rows, float32 ``(m, d)``.

    Related: the nearest quarter of random rows. Offsets from their mean are added with random
    weights whose squares sum to 1, so that blends are as spread as rows and near none of them.
    """
    blends = np.empty((len(picked), values.shape[1]))
    for i, row in enumerate(picked):
        others = values[generator.integers(0, values.shape[0], 4 * _N_BLENDED)].astype(np.float64)
        x = values[row].astype(np.float64)
        order = np.argsort(np.square(others - x).sum(axis=1), kind="stable")
        related = np.concatenate([x[np.newaxis], others[order[: _N_BLENDED - 1]]])
        middle = related.mean(axis=0)
        weights = generator.standard_normal(_N_BLENDED)
        blends[i] = middle + (weights / np.sqrt(np.square(weights).sum())) @ (related - middle)
    norms = np.linalg.norm(values[picked].astype(np.float64), axis=1, keepdims=True)
    scaled: Float32 = (unit_rows(blends.astype(np.float32)) * norms).astype(np.float32)
    return scaled


def true_neighbors(
    vectors: CheckedRows,
    codes: Codes | None,
    queries: Float32,
    own: Int64,
    length: int,
    n_threads: int,
) -> tuple[Int64, Float32, float]:
    """Exact answers, best first, without the row that a query is (``own``; -1 for none).

    The last number is the mean of rows that a query reads for them.
    """
    rows = np.empty((len(queries), length + 1), np.int64)
    scores = np.empty(rows.shape, np.float32)
    n_read = np.empty(len(queries), np.int64)

    def search(first: int) -> None:
        part = slice(first, first + QUERIES_AT_ONCE)
        heap = NeighborHeap(queries[part], length + 1)
        heap.offer(vectors, codes=codes)
        rows[part], scores[part], n_read[part] = heap.result()

    in_threads(search, range(0, len(queries), QUERIES_AT_ONCE), n_threads)
    is_kept = rows != own[:, np.newaxis]
    is_kept[is_kept.all(axis=1), -1] = False
    shape = (len(queries), length)
    near: Int64 = rows[is_kept].reshape(shape)
    return near, scores[is_kept].reshape(shape), float(n_read.mean())


def standard_error(values: npt.NDArray[np.float64]) -> float:
    """Of the mean of some values."""
    return float(values.std() / max(1, values.size) ** 0.5)
