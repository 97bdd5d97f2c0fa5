"""How far a search must look for which recall, measured on the matrix itself.

For every true neighbor of a query the least breadth and depth that surely finds it follow from
the final threshold alone: the threshold of a running search is never above it. So one pass
measures every setting, and what it reports is a lower bound of what the search finds on these
queries.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from native_hash.codes import Codes
from native_hash.sample_queries import (
    MARGIN,
    MEASURED_N,
    RECALLS,
    sample_queries,
    standard_error,
    true_neighbors,
)
from native_hash.sketch import Sketch

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_LOSSES = np.array([0.05, 0.03, 0.02, 0.013, 0.008, 0.006, 0.0045, 0.003,
                    0.002, 0.0014, 0.001, 0.0007, 0.0005, 0.0002, 0.0])  # fmt: skip
_FEWEST_ROWS = 256
_N_BACKGROUND_ROWS = 8192
_N_BACKGROUND_QUERIES = 48
_NEVER = 1e6
_CODE_ERROR = 0.002  # of a dot product with a center's code, over both norms
# Costs relative to estimating one row (0.95 ns), as measured at d = 128 and 100,000 rows on a CPU
# with AVX-512; they choose between settings of equal recall, or the exact search, and change no
# recall.
_COST_OF_SCORING = 150.0
_COST_OF_VISIT = 200.0
_COST_OF_CENTER = 6.0
_COST_OF_EXACT_CODE, _COST_OF_EXACT_ROW = 3.0, 28.0
_EXACT_ROWS_SCORED = 3.0  # for each answer


def measure_ladder(
    sketch: Sketch, codes: Codes | None, generator: np.random.Generator, n_threads: int
) -> Float32:
    """Cheapest settings by length of answer and recall.

    Returns
    -------
    ndarray
        float32 ``(3, n_settings, 4)``, one ladder for each of ``MEASURED_N``: breadth, depth,
        measured recall (of the worse kind of queries), and the same less the sampling error,
        by which settings are picked; -1 there where no setting that costs less than the exact
        codes reaches the step. No settings for fewer than 256 rows.
    """
    vectors = sketch.vectors
    n = vectors.values.shape[0]
    if n < _FEWEST_ROWS:
        return np.zeros((len(MEASURED_N), 0, 4), np.float32)
    queries, own = sample_queries(vectors.values, generator)
    longest = min(MEASURED_N[-1], n - 1)
    rows, scores, n_read = true_neighbors(vectors, codes, queries, own, longest, n_threads)
    places = _places(sketch.arrays["rows"], n)
    background = places[generator.integers(0, n, _N_BACKGROUND_ROWS)]
    near = [_Offsets(sketch, q, places[found]) for q, found in zip(queries, rows, strict=True)]
    step = max(1, len(queries) // _N_BACKGROUND_QUERIES)
    far = {i: _Offsets(sketch, queries[i], background) for i in range(0, len(own), step)}
    exact_reading = n_read * (_COST_OF_EXACT_ROW if codes is None else _COST_OF_EXACT_CODE)
    ladder = np.zeros((len(MEASURED_N), len(RECALLS), 4), np.float32)
    ladder[:, :, 3] = -1
    for number, length in enumerate(MEASURED_N):
        if length * 4 > n:
            break
        ends = scores[:, length - 1]
        needs = np.stack([o.needs(end)[:, :length] for o, end in zip(near, ends, strict=True)])
        others = [(o.needs(ends[i]), o.visits(ends[i])) for i, o in far.items()]
        limit = exact_reading + _COST_OF_SCORING * _EXACT_ROWS_SCORED * length
        ladder[number] = _cheapest(needs, own >= 0, others, n, limit)
    return ladder


def _places(rows: npt.NDArray[np.int32], n: int) -> Int64:
    """Where each row stands in the blocks, int64 ``(n,)``."""
    places = np.empty(n, np.int64)
    listed = rows.reshape(-1)
    places[listed[listed >= 0]] = np.flatnonzero(listed >= 0)
    return places


class _Offsets:
    """What decides whether a search for one query finds each of some rows."""

    def __init__(self, sketch: Sketch, query: Float32, places: Int64) -> None:
        arrays = sketch.arrays
        rotation, centers, starts = arrays["rotation"], arrays["centers"], arrays["starts"]
        n_buckets = centers.shape[0]
        radii, squares = arrays["shapes"][1:, :n_buckets].astype(np.float64)
        rotated = np.empty(rotation.shape[1], np.float32)
        sketch.functions.accumulate(rotation, query, rotated)
        tables = np.empty((rotated.size // 4, 16), np.uint8)
        step, span = sketch.functions.quantise(rotated, tables)
        square = float(np.square(query.astype(np.float64)).sum())
        dots = (centers @ query).astype(np.float64)
        distances = np.sqrt(np.maximum(square - 2 * dots + squares, 0.0))
        self._lowest = dots - _CODE_ERROR * np.sqrt(square * squares)
        self._radii = np.maximum(radii, 1e-30)
        self._sizes = np.diff(starts) * arrays["rows"].shape[1]
        blocks, lanes = np.divmod(places, arrays["rows"].shape[1])
        self._buckets = np.searchsorted(starts, blocks, side="right") - 1
        codes = arrays["codes"][blocks, :, lanes]
        numbers = np.arange(codes.shape[1])
        sums = tables[2 * numbers, codes & 15].sum(axis=1, dtype=np.int64)
        sums += tables[2 * numbers + 1, codes >> 4].sum(axis=1, dtype=np.int64)
        factor, shift = arrays["factors"][blocks, 0, lanes], arrays["factors"][blocks, 1, lanes]
        self._estimates = dots[self._buckets] + shift + factor * (float(step) * (2 * sums - span))
        self._depths = factor * distances[self._buckets]

    def visits(self, threshold: float) -> Float64:
        """Least breadth at which each bucket is visited, and its size, ``(2, n_buckets)``."""
        breadths = np.clip((threshold - self._lowest) / self._radii, 0.0, _NEVER)
        return np.stack([breadths, self._sizes])

    def needs(self, threshold: float) -> Float64:
        """Least breadth and least depth at which a row is found, float64 ``(2, n_places)``."""
        gap = threshold - self._estimates
        with np.errstate(divide="ignore", invalid="ignore"):
            depths = np.where(gap <= 0, 0.0, gap / self._depths)
        breadths = self.visits(threshold)[0, self._buckets]
        return np.stack([breadths, np.minimum(depths, _NEVER)])


def _cheapest(
    needs: Float64,
    is_own: npt.NDArray[np.bool_],
    others: list[tuple[Float64, Float64]],
    n: int,
    limit: float,
) -> Float32:
    """One ladder from the needs of neighbors ``(m, 2, N)``.

    ``others``: for some queries, the needs of random rows ``(2, r)`` and of buckets. Settings
    that cost more than ``limit`` are left out.
    """
    slack = 1 + 1e-4  # float32 of the search against float64 here
    breadths, depths = (np.quantile(needs[:, axis], 1 - _LOSSES) * slack + 1e-6 for axis in (0, 1))
    random = np.stack([rows for rows, _ in others])
    buckets = np.stack([visits for _, visits in others])
    settings = []
    for breadth in breadths:
        is_visited = needs[:, 0] <= breadth
        visited = buckets[:, 0] <= breadth
        visiting = (visited * (_COST_OF_VISIT + buckets[:, 1])).sum() / len(others)
        visiting += _COST_OF_CENTER * buckets.shape[2]
        estimated = np.sort(random[:, 1][random[:, 0] <= breadth])
        for depth in depths:
            share = np.searchsorted(estimated, depth, side="right") / random[:, 1].size
            cost = visiting + _COST_OF_SCORING * float(share) * n
            if cost >= limit:
                continue
            found = (is_visited & (needs[:, 1] <= depth)).mean(axis=1)
            kinds = [found[is_own], found[~is_own]]
            mean = min(float(kind.mean()) for kind in kinds)
            lower = min(float(kind.mean() - MARGIN * standard_error(kind)) for kind in kinds)
            settings.append((cost, breadth, depth, mean, lower))
    settings.sort()
    ladder = np.zeros((len(RECALLS), 4), np.float32)
    ladder[:, 3] = -1
    for step, recall in enumerate(RECALLS):
        reached = [setting for setting in settings if setting[4] >= recall]
        if reached:
            ladder[step] = reached[0][1:]
    return ladder
