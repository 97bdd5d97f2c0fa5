"""The fast twins of ``reference.py``: same names, same arguments, same bits.

Preconditions are those of the reference, not checked here: C-contiguous, finite, dtypes as
named, candidates distinct and in range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.jit import CANONICAL_FASTMATH, SCAN_FASTMATH, kernel

BLOCK_ROWS = 128  # rows kept in cache while all queries of a batch look at them

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
UInt8 = npt.NDArray[np.uint8]


@kernel(CANONICAL_FASTMATH)
def canonical_dot(left: Float32, i: int, right: Float32, k: int) -> Any:
    """Dot product of two rows in float64, in the fixed order of ``reference.canonical_dots``.

    Matrix and row number, not a row view: views cost reference counts per call.
    """
    d = left.shape[1]
    end = d - d % 8
    l0 = l1 = l2 = l3 = l4 = l5 = l6 = l7 = tail = np.float64(0.0)
    for j in range(0, end, 8):
        l0 += np.float64(left[i, j]) * np.float64(right[k, j])
        l1 += np.float64(left[i, j + 1]) * np.float64(right[k, j + 1])
        l2 += np.float64(left[i, j + 2]) * np.float64(right[k, j + 2])
        l3 += np.float64(left[i, j + 3]) * np.float64(right[k, j + 3])
        l4 += np.float64(left[i, j + 4]) * np.float64(right[k, j + 4])
        l5 += np.float64(left[i, j + 5]) * np.float64(right[k, j + 5])
        l6 += np.float64(left[i, j + 6]) * np.float64(right[k, j + 6])
        l7 += np.float64(left[i, j + 7]) * np.float64(right[k, j + 7])
    for j in range(end, d):
        tail += np.float64(left[i, j]) * np.float64(right[k, j])
    return (((l0 + l1) + (l2 + l3)) + ((l4 + l5) + (l6 + l7))) + tail


@kernel(SCAN_FASTMATH)
def row_norms(values: Float32, norms: npt.NDArray[np.float64]) -> Any:
    """Twin of ``reference.row_norms``; the last bits depend on the order of summation."""
    largest = np.float64(0.0)
    for row in range(values.shape[0]):
        total = np.float64(0.0)
        for j in range(values.shape[1]):
            total += np.float64(values[row, j]) * np.float64(values[row, j])
        norms[row] = np.sqrt(total)
        if not norms[row] <= largest:  # also where it is NaN, which then stays
            largest = norms[row] if largest == largest else largest
    return largest


@kernel(CANONICAL_FASTMATH)
def sign_bits(vectors: Float32, hyperplanes: Float32, signatures: UInt64) -> None:
    """Twin of ``reference.sign_bits`` (Chen et al. 2025, eqs. 6 and 7)."""
    n_tables, n_bits, d = hyperplanes.shape
    planes = hyperplanes.reshape(n_tables * n_bits, d)
    for row in range(vectors.shape[0]):
        for table in range(n_tables):
            bits = np.uint64(0)
            for bit in range(n_bits):
                if canonical_dot(vectors, row, planes, table * n_bits + bit) > 0.0:
                    bits |= np.uint64(1) << np.uint64(bit)
            signatures[row, table] = bits


@kernel(SCAN_FASTMATH)
def sort_by_signature(
    signatures: UInt64, n_bits: int, rows: Int64, scratch: Int64, counts: Int64
) -> None:
    """Twin of ``reference.sort_by_signature``: counting sort, eight bits a pass, stable."""
    n = signatures.shape[0]
    for i in range(n):
        rows[i] = i
    for shift in range(0, n_bits, 8):
        counts[:] = 0
        for i in range(n):
            digit = np.int64((signatures[rows[i]] >> np.uint64(shift)) & np.uint64(255))
            counts[digit] += 1
        total = 0
        for value in range(256):
            n_here = counts[value]
            counts[value] = total
            total += n_here
        for i in range(n):
            digit = np.int64((signatures[rows[i]] >> np.uint64(shift)) & np.uint64(255))
            scratch[counts[digit]] = rows[i]
            counts[digit] += 1
        rows[:] = scratch


@kernel(SCAN_FASTMATH)
def mark_buckets(signatures: UInt64, rows: Int64, keys: UInt64, starts: Int64) -> int:
    """Twin of ``reference.mark_buckets``."""
    n_buckets = 0
    for i in range(rows.shape[0]):
        key = signatures[rows[i]]
        if n_buckets == 0 or key != keys[n_buckets - 1]:
            keys[n_buckets] = key
            starts[n_buckets] = i
            n_buckets += 1
    starts[n_buckets] = rows.shape[0]
    return n_buckets


@kernel(SCAN_FASTMATH)
def approximate_dot(left: Float32, i: int, right: Float32, k: int) -> Any:
    """Dot product of two rows in float32, in whatever order is fastest."""
    total = np.float32(0.0)
    for j in range(left.shape[1]):
        total += left[i, j] * right[k, j]
    return total


@kernel(SCAN_FASTMATH)
def is_worse(score: Any, row: Any, than_score: Any, than_row: Any) -> Any:
    """Order of answers: lower score first, of equal scores the higher row first."""
    return score < than_score or (score == than_score and row > than_row)


@kernel(SCAN_FASTMATH)
def offer(score: Any, row: Any, scores: Float32, rows: Int64, q: int, n_filled: Any) -> Any:
    """Put one answer into the heap of query q, worst at its root; returns the new fill.

    Parameters
    ----------
    scores, rows : ndarray
        State, float32 and int64 ``(m, N)``; the first ``n_filled`` entries of row q are
        the heap.
    """
    size = scores.shape[1]
    if n_filled < size:
        i = n_filled
        while i > 0:
            parent = (i - 1) // 2
            if not is_worse(score, row, scores[q, parent], rows[q, parent]):
                break
            scores[q, i] = scores[q, parent]
            rows[q, i] = rows[q, parent]
            i = parent
        scores[q, i] = score
        rows[q, i] = row
        return n_filled + 1
    if not is_worse(scores[q, 0], rows[q, 0], score, row):
        return n_filled
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and is_worse(
            scores[q, child + 1], rows[q, child + 1], scores[q, child], rows[q, child]
        ):
            child += 1
        if not is_worse(scores[q, child], rows[q, child], score, row):
            break
        scores[q, i] = scores[q, child]
        rows[q, i] = rows[q, child]
        i = child
    scores[q, i] = score
    rows[q, i] = row
    return n_filled


@kernel(SCAN_FASTMATH)
def threshold_of(scores: Float32, q: int, n_filled: Any, slack: Any) -> Any:
    """Approximate score below which no row can enter the heap of query q."""
    if n_filled < scores.shape[1]:
        return np.float32(-np.inf)
    return np.float32(np.float64(scores[q, 0]) - slack)


@kernel(SCAN_FASTMATH)
def scan(
    matrix: Float32,
    queries: Float32,
    first_row: int,
    slacks: npt.NDArray[np.float64],
    excluded: UInt8,
    best_scores: Float32,
    best_rows: Int64,
    n_filled: Int64,
) -> None:
    """Twin of ``reference.scan``: fused, no score vector.

    A float32 dot product decides only whether a row is worth a canonical one: rows below the
    worst kept score by more than the rounding bound ``slacks`` cannot be among the N
    best, so the answer is that of the definition.
    """
    n = matrix.shape[0]
    has_excluded = excluded.shape[0] > 0
    for start in range(0, n, BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, n)
        for q in range(queries.shape[0]):
            filled = n_filled[q]
            threshold = threshold_of(best_scores, q, filled, slacks[q])
            for row in range(start, end):
                if approximate_dot(queries, q, matrix, row) >= threshold:
                    if has_excluded and excluded[row] != 0:
                        continue
                    score = np.float32(canonical_dot(matrix, row, queries, q))
                    filled = offer(score, first_row + row, best_scores, best_rows, q, filled)
                    threshold = threshold_of(best_scores, q, filled, slacks[q])
            n_filled[q] = filled


@kernel(SCAN_FASTMATH)
def scan_candidates(
    matrix: Float32,
    queries: Float32,
    q: int,
    candidates: Int64,
    first_row: int,
    slacks: npt.NDArray[np.float64],
    excluded: UInt8,
    best_scores: Float32,
    best_rows: Int64,
    n_filled: Int64,
) -> int:
    """Twin of ``reference.scan_candidates``."""
    has_excluded = excluded.shape[0] > 0
    filled = n_filled[q]
    threshold = threshold_of(best_scores, q, filled, slacks[q])
    n_scored = 0
    for c in range(candidates.shape[0]):
        row = candidates[c]
        if has_excluded and excluded[row] != 0:
            continue
        n_scored += 1
        if approximate_dot(queries, q, matrix, row) >= threshold:
            score = np.float32(canonical_dot(matrix, row, queries, q))
            filled = offer(score, first_row + row, best_scores, best_rows, q, filled)
            threshold = threshold_of(best_scores, q, filled, slacks[q])
    n_filled[q] = filled
    return n_scored


@kernel(SCAN_FASTMATH)
def sort_answers(best_scores: Float32, best_rows: Int64, n_filled: Int64) -> None:
    """Twin of ``reference.sort_answers``: heap sort."""
    for q in range(best_scores.shape[0]):
        for i in range(n_filled[q], best_scores.shape[1]):
            best_scores[q, i] = -np.inf
            best_rows[q, i] = -1
        for end in range(n_filled[q] - 1, 0, -1):
            score, row = best_scores[q, end], best_rows[q, end]
            best_scores[q, end], best_rows[q, end] = best_scores[q, 0], best_rows[q, 0]
            i = 0
            while True:
                child = 2 * i + 1
                if child >= end:
                    break
                if child + 1 < end and is_worse(
                    best_scores[q, child + 1], best_rows[q, child + 1],
                    best_scores[q, child], best_rows[q, child],
                ):  # fmt: skip
                    child += 1
                if not is_worse(best_scores[q, child], best_rows[q, child], score, row):
                    break
                best_scores[q, i], best_rows[q, i] = best_scores[q, child], best_rows[q, child]
                i = child
            best_scores[q, i], best_rows[q, i] = score, row
