"""Certified exact search: a scan of int8 codes that leaves out only what provably cannot win.

``code_reference.py`` is the definition of the codes, ``reference.scan`` of the answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.block_hits import block_hits, lowest_bit, prefetch_row
from native_hash.code_layout import BLOCK_ROWS
from native_hash.jit import CANONICAL_FASTMATH, ORDERED, SCAN_FASTMATH, kernel
from native_hash.kernels import canonical_dot, offer

QUERY_TILE_BLOCKS = 64  # blocks that stay in the cache while all queries of a batch read them
SURVIVORS = 512  # rows a query keeps for exact scoring, beside four for each answer
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


@kernel(ORDERED)
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


@kernel(ORDERED)
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


@kernel(ORDERED)
def spread_of(norm: Any, cutoff: Any, max_norm: Any) -> Any:
    """Largest part of the query across a row whose score reaches the cutoff.

    The error of an estimate is ``rest . q``. Along the row it is known and part of the row's
    scale; across it is at most ``|rest| * sqrt(|q|^2 - (score / |row|)^2)``: the better the
    scores to beat, the smaller the doubt.
    """
    along = max(cutoff / max_norm, np.float32(0.0))
    return np.sqrt(max(norm - along, np.float32(0.0))) * np.sqrt(norm + along)


@kernel(ORDERED)
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
    cutoff = cutoff_of(lowers, n_lower, best_scores, filled, q, slack)
    n_kept = 0
    for i in range(n_survivors):
        if survivor_bounds[q, i, 0] >= cutoff:
            prefetch_row(matrix, np.int64(survivors[q, i]))
            survivors[q, n_kept] = survivors[q, i]
            survivor_bounds[q, n_kept, 0] = survivor_bounds[q, i, 0]
            survivor_bounds[q, n_kept, 1] = survivor_bounds[q, i, 1]
            n_kept += 1
    for turn in range(2):
        for i in range(n_kept):
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
    codes: Int8, scales: Float32, errors: Float32, rows: Int32,
    query_codes: Int16, factors: Float32, estimates: Float32,
    lowers: Float32, survivors: Int32, survivor_bounds: Float32, counts: Int64,
    best_scores: Float32, best_rows: Int64, n_filled: Int64,
) -> None:  # fmt: skip
    """Collect the rows of some blocks that may be among the N best of query q.

    ``factors[q]``: scale, rounding error and norm
    of the query, and its cutoff. ``counts[q]``: lower bounds kept, survivors collected, rows read.
    """
    scale, error, norm, cutoff = factors[q, 0], factors[q, 1], factors[q, 2], factors[q, 3]
    spread = spread_of(norm, cutoff, max_norm)
    n_lower, n_survivors = counts[q, 0], counts[q, 1]
    capacity = survivors.shape[1]
    has_excluded = excluded.shape[0] > 0
    own_codes = query_codes[q]
    for block in range(first_block, last_block):
        mask = block_hits(
            codes, block, own_codes, scales, errors, scale, spread, cutoff - error, estimates
        )
        while mask != 0:
            lane = lowest_bit(np.int32(mask))
            mask &= mask - 1
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
            survivors[q, n_survivors] = row
            survivor_bounds[q, n_survivors, 0] = upper
            survivor_bounds[q, n_survivors, 1] = lower
            n_survivors += 1
            n_lower = push_lower(lower, lowers, q, n_lower)
            cutoff = cutoff_of(lowers, n_lower, best_scores, n_filled[q], q, slack)
            spread = spread_of(norm, cutoff, max_norm)
    factors[q, 3] = cutoff
    counts[q, 0], counts[q, 1] = n_lower, n_survivors
    counts[q, 2] += (last_block - first_block) * BLOCK_ROWS


@kernel(SCAN_FASTMATH)
def search_codes(
    matrix: Float32, queries: Float32, first_row: int, excluded: UInt8,
    relative_slack: float, least_slack: float,
    codes: Int8, scales: Float32, errors: Float32, rows: Int32,
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
    relative_slack, least_slack : float
        A float32 dot product is off by at most ``relative_slack * |query| + least_slack``.
    codes, scales, errors, rows : ndarray
        As ``codes.Codes`` holds them.
    limit : int
        ``code_layout.query_code_limit(d)``.
    norm_limit : float
        At least the norm of any row.
    n_read : ndarray
        Output, int64 ``(m,)``, to which the number of codes read is added.
    """
    m, n_answers = best_scores.shape
    max_norm = np.float32(norm_limit)
    query_codes = np.empty((m, 2 * codes.shape[1]), np.int16)
    factors, counts = np.empty((m, 4), np.float32), np.zeros((m, 3), np.int64)
    lowers, estimates = np.empty((m, n_answers), np.float32), np.empty(BLOCK_ROWS, np.float32)
    capacity = SURVIVORS + 4 * n_answers
    survivors = np.empty((m, capacity), np.int32)
    survivor_bounds = np.empty((m, capacity, 2), np.float32)
    slacks = np.empty(m, np.float32)
    for q in range(m):
        scale, rest, norm = encode_query(queries, q, limit, query_codes[q])
        slack = np.float32(np.float64(norm) * relative_slack + least_slack)
        factors[q, 0], factors[q, 2] = scale, norm
        factors[q, 1] = rest * np.float32(3.0) * max_norm + slack
        factors[q, 3], slacks[q] = cutoff_of(lowers, 0, best_scores, n_filled[q], q, slack), slack
    for start in range(0, codes.shape[0], QUERY_TILE_BLOCKS):
        end = min(start + QUERY_TILE_BLOCKS, codes.shape[0])
        for q in range(m):
            scan_blocks(
                start, end, q, matrix, queries, first_row, slacks[q], max_norm,
                excluded, codes, scales, errors, rows, query_codes, factors, estimates,
                lowers, survivors, survivor_bounds, counts, best_scores, best_rows, n_filled,
            )  # fmt: skip
    for q in range(m):
        settle(
            matrix, queries, q, first_row, slacks[q], survivors, survivor_bounds,
            counts[q, 1], lowers, counts[q, 0], best_scores, best_rows, n_filled,
        )  # fmt: skip
        n_read[q] += counts[q, 2]
