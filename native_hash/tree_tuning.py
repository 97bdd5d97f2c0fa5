"""How much of its certainty a search in a tree may give up for which recall.

Two doubts keep a search from leaving rows out: how far what lies outside the axes of both may agree
(``w . z + t_q t_x``, ``tree.py``), and where in its ball a row lies. A search of depth a allows for
the share a of both. How much of the answer that finds depends on the rows, so sample queries are
searched for at every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from native_hash.neighbors import NeighborHeap
from native_hash.sample_queries import (
    MARGIN,
    MEASURED_N,
    QUERIES_AT_ONCE,
    RECALLS,
    sample_queries,
    standard_error,
    true_neighbors,
)
from native_hash.tasks import in_threads

if TYPE_CHECKING:
    from native_hash.codes import Codes
    from native_hash.neighbors import CheckedRows

_DEPTHS = (0.04, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8)
_MOST_QUERIES = {1: 240, 10: 240, 100: 48}
"""Of each kind, by length of answer: building should not take much longer for them."""
_FEWEST_ROWS = 512

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def measure_depths(
    vectors: CheckedRows, codes: Codes, generator: np.random.Generator, n_threads: int
) -> Float32:
    """Least depth by length of answer and recall.

    Returns
    -------
    ndarray
        float32 ``(3, n_recalls, 3)``, for each of ``MEASURED_N`` and ``RECALLS``: depth, measured
        recall (of the worse kind of queries), and the same less the sampling error, by which
        depths are picked; -1 there where no depth below 1 reaches the recall, and for fewer than
        512 rows.
    """
    ladder = np.zeros((len(MEASURED_N), len(RECALLS), 3), np.float32)
    ladder[:, :, 2] = -1
    n = len(vectors.values)
    if codes.tree is None or n < _FEWEST_ROWS:
        return ladder
    queries, own = sample_queries(vectors.values, generator, max(_MOST_QUERIES.values()))
    longest = min(MEASURED_N[-1], n - 1)
    scores = true_neighbors(vectors, codes, queries, own, longest, n_threads)[1]
    places = np.arange(len(queries)) % (len(queries) // 2)
    for number, length in enumerate(MEASURED_N):
        if length > longest:
            continue
        asked = np.flatnonzero(places < _MOST_QUERIES[length])
        last = scores[asked, length - 1]
        reached = 0
        for depth in _DEPTHS:
            found = _found_shares(
                vectors, codes, queries[asked], own[asked], last, length, depth, n_threads
            )
            kinds = [found[own[asked] >= 0], found[own[asked] < 0]]
            mean = min(float(kind.mean()) for kind in kinds)
            lower = min(float(kind.mean() - MARGIN * standard_error(kind)) for kind in kinds)
            while reached < len(RECALLS) and lower >= RECALLS[reached]:
                ladder[number, reached] = depth, mean, lower
                reached += 1
            if reached == len(RECALLS):
                break
    return ladder


def _found_shares(
    vectors: CheckedRows,
    codes: Codes,
    queries: Float32,
    own: Int64,
    last_scores: Float32,
    length: int,
    depth: float,
    n_threads: int,
) -> npt.NDArray[np.float64]:
    """Share of each query's true answer that a search of this depth finds, float64 ``(m,)``.

    ``last_scores``: the least score of the true answer; ``own``: a row that does not count, or -1.
    """
    shares = np.empty(len(queries))

    def search(first: int) -> None:
        part = slice(first, first + QUERIES_AT_ONCE)
        heap = NeighborHeap(queries[part], length + 1)
        heap.offer(vectors, codes=codes, depth=depth)
        rows, scores, _ = heap.result()
        is_found = (scores >= last_scores[part, np.newaxis]) & (rows != own[part, np.newaxis])
        shares[part] = np.minimum(is_found.sum(axis=1), length) / length

    in_threads(search, range(0, len(queries), QUERIES_AT_ONCE), n_threads)
    return shares
