"""Certified exact search: a scan of int8 codes that leaves out only what provably cannot win.

``code_reference.py`` is the definition of the codes, ``reference.scan`` of the answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.block_hits import block_hits, prefetch_row
from native_hash.code_layout import BLOCK_ROWS
from native_hash.jit import CANONICAL_FASTMATH, SCAN_FASTMATH, kernel
from native_hash.kernels import approximate_dot, canonical_dot, offer

FIRST_BUCKETS = 8  # nearest buckets are read first: they raise the threshold for the others
QUERY_TILE_BLOCKS = 64  # blocks that stay in the cache while all queries of a batch read them
SURVIVORS = 512  # rows a query keeps for exact scoring, beside four for each answer
ROUNDING = np.float32(4e-6)  # of a few float32 operations on cosines
LOWEST = np.float32(-3.0e38)  # finite: the upper bound of padding, -inf, never reaches it

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


@kernel(CANONICAL_FASTMATH)
def encode_rows(
    vectors: Float32, rows: Int32, codes: Int8, scales: Float32, errors: Float32
) -> None:
    """Twin of ``code_reference.encode_rows``."""
    d = vectors.shape[1]
    for place in range(rows.shape[0]):
        row = np.int64(rows[place])
        block, lane = place // BLOCK_ROWS, place % BLOCK_ROWS
        for pair in range(codes.shape[1]):
            codes[block, pair, lane, 0] = 0
            codes[block, pair, lane, 1] = 0
        scales[place] = np.float32(0.0)
        errors[place] = np.float32(-np.inf)
        if row < 0:
            continue
        largest = np.float32(0.0)
        for j in range(d):
            largest = max(largest, abs(vectors[row, j]))
        scale = np.float32(largest / np.float32(127.0))
        norm = rest_square = along = np.float64(0.0)
        for j in range(d):
            value = np.float64(vectors[row, j])
            code = np.float64(0.0)
            if scale > 0.0:
                code = min(max(np.rint(value / np.float64(scale)), -127.0), 127.0)
            codes[block, j // 2, lane, j % 2] = np.int8(code)
            rest = value - code * np.float64(scale)
            norm += value * value
            rest_square += rest * rest
            along += value * rest
        share = along / norm if scale > 0.0 else 0.0
        across = max(rest_square - share * along, 0.0)
        scales[place] = np.float32(scale / (1.0 - share))
        errors[place] = np.float32((np.sqrt(across) / (1.0 - share) + 1e-9) * (1.0 + 1e-6))


@kernel(CANONICAL_FASTMATH)
def encode_query(query: Float32, q: int, limit: Any, codes: Int16) -> Any:
    """Twin of ``code_reference.encode_query``; returns scale, error and norm."""
    largest = np.float32(0.0)
    for j in range(query.shape[1]):
        largest = max(largest, abs(query[q, j]))
    scale = np.float32(largest / np.float32(limit))
    square = norm = np.float64(0.0)
    for j in range(codes.shape[0]):
        codes[j] = 0
    for j in range(query.shape[1]):
        value = np.float64(query[q, j])
        code = np.float64(0.0)
        if scale > 0.0:
            code = min(
                max(np.rint(value / np.float64(scale)), -np.float64(limit)), np.float64(limit)
            )
        codes[j] = np.int16(code)
        rest = value - code * np.float64(scale)
        square += rest * rest
        norm += value * value
    return scale, np.float32(np.sqrt(square)), np.float32(np.sqrt(norm) * (1.0 + 1e-6))


@kernel(SCAN_FASTMATH)
def push_lower(value: Any, lowers: Float32, q: int, n_lower: Any) -> Any:
    """Keep the N largest lower bounds of query q in a heap, the smallest at its root."""
    size = lowers.shape[1]
    i = n_lower
    if n_lower < size:
        while i > 0 and value < lowers[q, (i - 1) // 2]:
            lowers[q, i] = lowers[q, (i - 1) // 2]
            i = (i - 1) // 2
        lowers[q, i] = value
        return n_lower + 1
    if value <= lowers[q, 0]:
        return n_lower
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and lowers[q, child + 1] < lowers[q, child]:
            child += 1
        if value <= lowers[q, child]:
            break
        lowers[q, i] = lowers[q, child]
        i = child
    lowers[q, i] = value
    return n_lower


@kernel(SCAN_FASTMATH)
def spread_of(norm: Any, cutoff: Any, max_norm: Any) -> Any:
    """Largest part of the query across a row whose score reaches the cutoff.

    The error of an estimate is ``rest . q``. Along the row it is known and part of the row's
    scale; across it is at most ``|rest| * sqrt(|q|^2 - (score / |row|)^2)``: the better the
    scores to beat, the smaller the doubt.
    """
    along = max(cutoff / max_norm, np.float32(0.0))
    return np.sqrt(max(norm - along, np.float32(0.0))) * np.sqrt(norm + along)


@kernel(SCAN_FASTMATH)
def cutoff_of(
    lowers: Float32, n_lower: Any, best_scores: Float32, n_filled: Any, q: int, slack: Any
) -> Any:
    """Score a row must be able to reach: no row below it can be among the N best."""
    cutoff = LOWEST
    if n_lower == lowers.shape[1]:
        cutoff = max(cutoff, lowers[q, 0] - slack)
    if n_filled == best_scores.shape[1]:
        cutoff = max(cutoff, best_scores[q, 0] - slack)
    return cutoff


@kernel(SCAN_FASTMATH)
def settle(
    matrix: Float32, queries: Float32, q: int, first_row: Any, slack: Any,
    survivors: Int32, survivor_bounds: Float32, n_survivors: Any, lowers: Float32, n_lower: Any,
    best_scores: Float32, best_rows: Int64, n_filled: Int64,
) -> None:  # fmt: skip
    """Score survivors by the canonical dot, the promising ones first: they spare the others.

    ``survivor_bounds[q, i]``: upper and lower bound of the score of survivor i.
    """
    filled = n_filled[q]
    promising = lowers[q, 0] if n_lower == lowers.shape[1] else LOWEST
    for turn in range(2):
        for i in range(n_survivors):
            upper, lower = survivor_bounds[q, i, 0], survivor_bounds[q, i, 1]
            if (lower >= promising) == (turn == 0) and upper >= cutoff_of(
                lowers, n_lower, best_scores, filled, q, slack
            ):
                row = np.int64(survivors[q, i])
                score = np.float32(canonical_dot(matrix, row, queries, q))
                filled = offer(score, first_row + row, best_scores, best_rows, q, filled)
    n_filled[q] = filled


@kernel(SCAN_FASTMATH)
def scan_blocks(
    first_block: Any, last_block: Any, q: int,
    matrix: Float32, queries: Float32, first_row: Any, slack: Any, max_norm: Any, excluded: UInt8,
    codes: Int8, scales: Float32, errors: Float32, rows: Int32, block_cosines: Float32,
    narrowest: Any, widest: Any, query_codes: Int16, factors: Float32, estimates: Float32,
    lowers: Float32, survivors: Int32, survivor_bounds: Float32, counts: Int64,
    best_scores: Float32, best_rows: Int64, n_filled: Int64,
) -> None:  # fmt: skip
    """Collect the rows of some blocks that may be among the N best of query q.

    Blocks whose rows all lie outside the ring between the cosines ``narrowest`` and ``widest``
    around their bucket's center are left out. ``factors[q]``: scale, rounding error and norm
    of the query, and its cutoff. ``counts[q]``: lower bounds kept, survivors collected, rows read.
    """
    scale, error, norm, cutoff = factors[q, 0], factors[q, 1], factors[q, 2], factors[q, 3]
    spread = spread_of(norm, cutoff, max_norm)
    n_lower, n_survivors = counts[q, 0], counts[q, 1]
    capacity = survivors.shape[1]
    has_excluded = excluded.shape[0] > 0
    own_codes = query_codes[q]
    n_blocks = 0
    for block in range(first_block, last_block):
        if block_cosines[block, 1] > narrowest or block_cosines[block, 0] < widest:
            continue
        n_blocks += 1
        mask = block_hits(
            codes, block, own_codes, scales, errors, scale, spread, cutoff - error, estimates
        )
        if mask == 0:
            continue
        for lane in range(BLOCK_ROWS):
            if (mask >> lane) & 1 == 0:
                continue
            place = block * BLOCK_ROWS + lane
            row, doubt, estimate = rows[place], errors[place], estimates[lane]
            upper = estimate + doubt * spread + error
            if (has_excluded and excluded[row] != 0) or upper < cutoff:
                continue
            # The score is at least this; the second bound uses the first.
            lower = estimate - doubt * norm - error
            lower = estimate - doubt * spread_of(norm, lower, max_norm) - error
            if n_survivors == capacity:
                settle(
                    matrix, queries, q, first_row, slack, survivors, survivor_bounds, n_survivors,
                    lowers, n_lower, best_scores, best_rows, n_filled,
                )  # fmt: skip
                n_survivors = 0
            prefetch_row(matrix, np.int64(row))
            survivors[q, n_survivors] = row
            survivor_bounds[q, n_survivors, 0] = upper
            survivor_bounds[q, n_survivors, 1] = lower
            n_survivors += 1
            n_lower = push_lower(lower, lowers, q, n_lower)
            cutoff = cutoff_of(lowers, n_lower, best_scores, n_filled[q], q, slack)
            spread = spread_of(norm, cutoff, max_norm)
    factors[q, 3] = cutoff
    counts[q, 0], counts[q, 1] = n_lower, n_survivors
    counts[q, 2] += n_blocks * BLOCK_ROWS


@kernel(SCAN_FASTMATH)
def cosine_of_difference(cosine: Any, other: Any, sign: Any) -> Any:
    """cos(a - b) for sign 1, cos(a + b) for sign -1, from cosines of angles in [0, pi]."""
    sines = (np.float32(1.0) - cosine) * (np.float32(1.0) + cosine)
    sines *= (np.float32(1.0) - other) * (np.float32(1.0) + other)
    return cosine * other + sign * np.sqrt(max(sines, np.float32(0.0)))


@kernel(SCAN_FASTMATH)
def bucket_bounds(
    queries: Float32, q: int, norm: Any, max_norm: Any, rounding: Any,
    centers: Float32, cosines: Float32, bounds: Float32, dots: Float32,
    nearest: Int64, nearest_dots: Float32,
) -> None:  # fmt: skip
    """Largest score any row of each bucket can have, and the buckets nearest to query q.

    A row's angle to the query is at least that of the bucket's center less the bucket's
    radius (triangle inequality on the sphere); ``cosines`` hold the cosines of the radii.
    """
    last = nearest.shape[0] - 1
    nearest[:] = -1
    nearest_dots[:] = LOWEST
    for bucket in range(centers.shape[0]):
        dot = approximate_dot(queries, q, centers, bucket) / norm
        dots[bucket] = dot
        near = min(dot + rounding, np.float32(1.0))
        bound = np.float32(1.0)
        if near < cosines[bucket]:
            bound = cosine_of_difference(near, cosines[bucket], np.float32(1.0)) + ROUNDING
        bounds[bucket] = max(bound, np.float32(0.0)) * norm * max_norm
        if dot > nearest_dots[last]:
            i = last
            while i > 0 and dot > nearest_dots[i - 1]:
                nearest[i], nearest_dots[i] = nearest[i - 1], nearest_dots[i - 1]
                i -= 1
            nearest[i], nearest_dots[i] = bucket, dot


@kernel(SCAN_FASTMATH)
def ring_of(dot: Any, cutoff: Any, scale: Any, rounding: Any) -> Any:
    """Cosines between which a row's angle to a center must lie to reach the cutoff.

    ``dot`` is the cosine of query and center; a row within angle a of the query lies in the
    ring from (query's angle - a) to (query's angle + a) around the center.
    """
    narrowest, widest = np.float32(2.0), np.float32(-2.0)
    if cutoff > np.float32(0.0):
        reach = cutoff / scale
        near = dot + rounding
        far = dot - rounding
        if near < reach:
            narrowest = cosine_of_difference(near, reach, np.float32(1.0)) + ROUNDING
        if far > -reach:
            widest = (
                cosine_of_difference(max(far, np.float32(-1.0)), reach, np.float32(-1.0)) - ROUNDING
            )
    return narrowest, widest


@kernel(SCAN_FASTMATH)
def search_codes(
    matrix: Float32, queries: Float32, first_row: int, slacks: npt.NDArray[np.float64],
    excluded: UInt8, codes: Int8, scales: Float32, errors: Float32, rows: Int32,
    centers: Float32, cosines: Float32, block_cosines: Float32, starts: Int32,
    limit: int, norm_limit: float,
    best_scores: Float32, best_rows: Int64, n_filled: Int64, n_read: Int64,
) -> None:  # fmt: skip
    """Offer every row of a matrix to the N best of each query; the same bits as ``reference.scan``.

    Work space is made here, not by the caller: ``np.empty`` in Python costs half a microsecond
    each time, and threads cannot share it by mistake.

    Parameters
    ----------
    queries : ndarray
        float32 ``(m, d)``, each of a norm of at least 2**-60.
    codes, scales, errors, rows, centers, cosines, block_cosines, starts : ndarray
        As ``codes.Codes`` holds them.
    limit : int
        ``code_layout.query_code_limit(d)``.
    norm_limit : float
        At least the norm of any row.
    n_read : ndarray
        Output, int64 ``(m,)``, to which the number of codes read is added.
    """
    m, n_answers = best_scores.shape
    n_buckets = centers.shape[0]
    max_norm = np.float32(norm_limit)
    rounding = np.float32((matrix.shape[1] + 8) * 2.0**-23)
    query_codes = np.empty((m, 2 * codes.shape[1]), np.int16)
    factors, counts = np.empty((m, 4), np.float32), np.zeros((m, 3), np.int64)
    lowers, estimates = np.empty((m, n_answers), np.float32), np.empty(BLOCK_ROWS, np.float32)
    capacity = SURVIVORS + 4 * n_answers
    survivors = np.empty((m, capacity), np.int32)
    survivor_bounds = np.empty((m, capacity, 2), np.float32)
    bounds, dots = np.empty(n_buckets, np.float32), np.empty(n_buckets, np.float32)
    nearest = np.empty(min(FIRST_BUCKETS, n_buckets), np.int64)
    nearest_dots = np.empty(nearest.shape[0], np.float32)
    for q in range(m):
        scale, rest, norm = encode_query(queries, q, limit, query_codes[q])
        slack = np.float32(slacks[q])
        factors[q, 0], factors[q, 2] = scale, norm
        factors[q, 1] = rest * np.float32(3.0) * max_norm + slack
        factors[q, 3] = cutoff_of(lowers, 0, best_scores, n_filled[q], q, slack)
    if n_buckets == 1:
        for start in range(0, codes.shape[0], QUERY_TILE_BLOCKS):
            end = min(start + QUERY_TILE_BLOCKS, codes.shape[0])
            for q in range(m):
                scan_blocks(
                    start, end, q, matrix, queries, first_row, np.float32(slacks[q]), max_norm,
                    excluded, codes, scales, errors, rows, block_cosines,
                    np.float32(2.0), np.float32(-2.0), query_codes, factors, estimates,
                    lowers, survivors, survivor_bounds, counts, best_scores, best_rows, n_filled,
                )  # fmt: skip
    else:
        for q in range(m):
            bucket_bounds(
                queries, q, factors[q, 2], max_norm, rounding,
                centers, cosines, bounds, dots, nearest, nearest_dots,
            )  # fmt: skip
            for step in range(nearest.shape[0] + n_buckets):
                bucket = nearest[step] if step < nearest.shape[0] else step - nearest.shape[0]
                if bounds[bucket] >= factors[q, 3]:
                    bounds[bucket] = -np.float32(np.inf)  # the nearest are not read again
                    narrowest, widest = ring_of(
                        dots[bucket], factors[q, 3], factors[q, 2] * max_norm, rounding
                    )
                    scan_blocks(
                        starts[bucket], starts[bucket + 1], q, matrix, queries, first_row,
                        np.float32(slacks[q]), max_norm, excluded, codes, scales, errors, rows,
                        block_cosines, narrowest, widest, query_codes, factors, estimates, lowers,
                        survivors, survivor_bounds, counts, best_scores, best_rows, n_filled,
                    )  # fmt: skip
    for q in range(m):
        settle(
            matrix, queries, q, first_row, np.float32(slacks[q]), survivors, survivor_bounds,
            counts[q, 1], lowers, counts[q, 0], best_scores, best_rows, n_filled,
        )  # fmt: skip
        n_read[q] += counts[q, 2]
