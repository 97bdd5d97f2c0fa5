"""How much of its certainty a search in a tree may give up for which recall.

The bound of a row is ``w . z + t_q t_x`` (``tree.py``); a search of depth a takes
``w . z + a t_q t_x`` in its place and loses a neighbor only where what is left of both agrees by
more than the share a. The threshold of a running search is never above the true last score, so
that score tells the least depth that surely finds a true neighbor: one pass over the neighbors of
sample queries measures every depth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from native_hash.sample_queries import (
    MARGIN,
    MEASURED_N,
    RECALLS,
    sample_queries,
    standard_error,
    true_neighbors,
)
from native_hash.tree import heads_of

if TYPE_CHECKING:
    from native_hash.codes import Codes
    from native_hash.neighbors import CheckedRows

_LOSSES = np.array([0.05, 0.04, 0.03, 0.02, 0.013, 0.008, 0.006, 0.0045, 0.003,
                    0.002, 0.0014, 0.001, 0.0007, 0.0005, 0.0002, 0.0])  # fmt: skip
_FEWEST_ROWS = 512
_SLACK = 1e-4  # float32 of the search against float64 here


def measure_depths(
    vectors: CheckedRows, codes: Codes, generator: np.random.Generator, n_threads: int
) -> npt.NDArray[np.float32]:
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
    queries, own = sample_queries(vectors.values, generator)
    longest = min(MEASURED_N[-1], n - 1)
    rows, scores, _ = true_neighbors(vectors, codes, queries, own, longest, n_threads)
    axes, unit = codes.tree.axes, codes.tree.unit[0]
    of_queries = heads_of(queries, axes, np.float32(1)).astype(np.float64)
    near = heads_of(vectors.values[rows.ravel()], axes, unit).astype(np.float64) * float(unit)
    near = near.reshape(*rows.shape, -1)
    along = np.einsum("qk,qnk->qn", of_queries[:, :-1], near[:, :, :-1])
    across = np.maximum(of_queries[:, -1:] * near[:, :, -1], 1e-30)
    for number, length in enumerate(MEASURED_N):
        if length <= longest:
            gaps = scores[:, length - 1 : length].astype(np.float64) - along[:, :length]
            depths = np.maximum(gaps / across[:, :length], 0) + _SLACK
            ladder[number] = _least_depths(depths, own >= 0)
    return ladder


def _least_depths(
    depths: npt.NDArray[np.float64], is_own: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """One ladder from the depths that the neighbors of each query need, ``(m, N)``."""
    ladder = np.zeros((len(RECALLS), 3), np.float32)
    ladder[:, 2] = -1
    tried = np.unique(np.quantile(depths, 1 - _LOSSES))
    reached = 0
    for depth in tried[tried < 1]:
        found = (depths <= depth).mean(axis=1)
        kinds = [found[is_own], found[~is_own]]
        mean = min(float(kind.mean()) for kind in kinds)
        lower = min(float(kind.mean() - MARGIN * standard_error(kind)) for kind in kinds)
        while reached < len(RECALLS) and lower >= RECALLS[reached]:
            ladder[reached] = depth, mean, lower
            reached += 1
    return ladder
