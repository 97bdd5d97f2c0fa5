"""The fast twins of ``sketch_reference.py``: same names, same arguments, same bits.

Floats that decide which rows are scored are computed in a fixed order without fused operations:
a search looks at the same rows on every CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.block_hits import block_hits
from native_hash.code_kernels import encode_query
from native_hash.code_layout import BLOCK_ROWS
from native_hash.jit import ORDERED, SCAN_FASTMATH, kernel
from native_hash.kernels import approximate_dot, canonical_dot, offer
from native_hash.sketch_blocks import block_uppers, lowest_bit, prefetch_row

__all__ = ["accumulate", "encode", "quantise", "search"]

BLOCK = 32
LOWEST = np.float32(-3.0e38)  # finite: padding has the bound -inf and must not pass
FIRST_BUCKETS = 8  # listed in order at a time
NEW_ROWS = 64  # after so many the promising ones are scored: they raise the threshold
AHEAD = 8

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]


@kernel(ORDERED)
def accumulate(matrix: Float32, x: Float32, out: Float32) -> None:
    """Twin of ``sketch_reference.accumulate``: four rows a pass, added one after the other."""
    d, m = matrix.shape
    for k in range(m):
        out[k] = np.float32(0.0)
    end = d - d % 4
    for j in range(0, end, 4):
        x0, x1, x2, x3 = x[j], x[j + 1], x[j + 2], x[j + 3]
        for k in range(m):
            total = out[k] + x0 * matrix[j, k]
            total = total + x1 * matrix[j + 1, k]
            total = total + x2 * matrix[j + 2, k]
            out[k] = total + x3 * matrix[j + 3, k]
    for j in range(end, d):
        for k in range(m):
            out[k] = out[k] + x[j] * matrix[j, k]


@kernel(ORDERED)
def encode(
    vectors: Float32,
    rotation: Float32,
    centers: Float32,
    starts: Int64,
    rows: Int32,
    first_bucket: int,
    last_bucket: int,
    scratch: Float32,
    codes: UInt8,
    factors: Float32,
) -> None:
    """Twin of ``sketch_reference.encode``."""
    d, d_pad = rotation.shape
    for bucket in range(first_bucket, last_bucket):
        for j in range(d):
            scratch[0, j] = centers[bucket, j]
        accumulate(rotation, scratch[0, :d], scratch[1])
        for block in range(starts[bucket], starts[bucket + 1]):
            for lane in range(BLOCK):
                row = rows[block, lane]
                if row < 0:
                    for byte in range(d_pad // 8):
                        codes[block, byte, lane] = np.uint8(0)
                    factors[block, 0, lane] = np.float32(0.0)
                    factors[block, 1, lane] = np.float32(-np.inf)
                    continue
                square = along = np.float64(0.0)
                for j in range(d):
                    rest = vectors[row, j] - centers[bucket, j]
                    scratch[2, j] = rest
                    square += np.float64(rest) * np.float64(rest)
                    along += np.float64(rest) * np.float64(centers[bucket, j])
                accumulate(rotation, scratch[2, :d], scratch[3])
                total = of_center = np.float64(0.0)
                for byte in range(d_pad // 8):
                    bits = np.uint8(0)
                    for bit in range(8):
                        value = scratch[3, 8 * byte + bit]
                        there = np.float64(scratch[1, 8 * byte + bit])
                        if value > np.float32(0.0):
                            bits |= np.uint8(1) << np.uint8(bit)
                            total += np.float64(value)
                            of_center += there
                        else:
                            total -= np.float64(value)
                            of_center -= there
                    codes[block, byte, lane] = bits
                factor = square / total if total > 0.0 else np.float64(0.0)
                factors[block, 0, lane] = np.float32(factor)
                factors[block, 1, lane] = np.float32(along - factor * of_center)


@kernel(ORDERED)
def quantise(rotated: Float32, tables: UInt8) -> Any:
    """Twin of ``sketch_reference.quantise``."""
    d_pad = rotated.shape[0]
    largest = np.float32(0.0)
    for j in range(d_pad):
        largest = max(largest, abs(rotated[j]))
    steps = min(31, 65535 // d_pad)
    step = largest / np.float32(steps)
    if not step > np.float32(0.0):
        step = np.float32(1.0)
    span = np.int64(0)
    for nibble in range(d_pad // 4):
        bias = np.int64(0)
        for bit in range(4):
            level = np.int64(np.rint(rotated[4 * nibble + bit] / step))
            span += np.int64(abs(level))
            if level < 0:
                bias -= level
        tables[nibble, 0] = np.uint8(bias)
        for bit in range(4):
            level = np.int64(np.rint(rotated[4 * nibble + bit] / step))
            for entry in range(1 << bit):
                tables[nibble, (1 << bit) + entry] = np.uint8(tables[nibble, entry] + level)
    return step, span


@kernel(SCAN_FASTMATH)
def score_row(
    vectors: Float32, row: Any, queries: Float32, q: int, first_row: int, slack: Any,
    best_scores: Float32, best_rows: Int64, n_filled: Any,
) -> Any:  # fmt: skip
    """Offer one row with its canonical score; returns the new fill."""
    if (
        n_filled == best_scores.shape[1]
        and approximate_dot(queries, q, vectors, row) < np.float64(best_scores[q, 0]) - slack
    ):
        return n_filled
    score = np.float32(canonical_dot(vectors, row, queries, q))
    return offer(score, first_row + row, best_scores, best_rows, q, n_filled)


@kernel(ORDERED)
def worst_kept(scores: Float32, q: int, n_filled: Any) -> Any:
    """Score that a row must reach to enter the heap of query q."""
    return scores[q, 0] if n_filled == scores.shape[1] else LOWEST


@kernel(ORDERED)
def settle(
    vectors: Float32, queries: Float32, q: int, first_row: int, slack: Any,
    waiting: Int32, keys: Float32, bounds: Float32, first: int, last: int,
    best_scores: Float32, best_rows: Int64, n_filled: Any,
) -> Any:  # fmt: skip
    """Twin of ``sketch_reference.settle``; returns the fill, the rows left and the rows scored."""
    least, most = np.float32(np.inf), np.float32(-np.inf)
    for i in range(first, last):
        least, most = min(least, keys[i]), max(most, keys[i])
    middle = least + (most - least) / np.float32(2.0)
    threshold = worst_kept(best_scores, q, n_filled)
    n_scored = 0
    kept = first
    for turn in range(2):
        for i in range(first, last):
            least = max(middle, threshold) if turn == 0 else threshold
            ahead = i + AHEAD
            if ahead < last and keys[ahead] >= least:
                prefetch_row(vectors, np.int64(waiting[ahead]))
            if keys[i] >= least:
                n_scored += 1
                n_filled = score_row(
                    vectors, np.int64(waiting[i]), queries, q, first_row, slack,
                    best_scores, best_rows, n_filled,
                )  # fmt: skip
                threshold = worst_kept(best_scores, q, n_filled)
                keys[i] = bounds[i] = np.float32(-np.inf)
            elif turn == 1 and bounds[i] >= threshold:
                waiting[kept] = waiting[i]
                keys[kept], bounds[kept] = keys[i], bounds[i]
                kept += 1
    return n_filled, kept, n_scored


@kernel(ORDERED)
def list_nearest(dots: Float32, listed: Int32) -> int:
    """Buckets with the largest dot products, best first, of equal ones the lower number first."""
    n_listed = 0
    for bucket in range(dots.shape[0]):
        dot = dots[bucket]
        if dot == np.float32(-np.inf) or (
            n_listed == listed.shape[0] and dot <= dots[listed[n_listed - 1]]
        ):
            continue
        if n_listed < listed.shape[0]:
            n_listed += 1
        i = n_listed - 1
        while i > 0 and dot > dots[listed[i - 1]]:
            listed[i] = listed[i - 1]
            i -= 1
        listed[i] = bucket
    return n_listed


@kernel(ORDERED)
def search(
    vectors: Float32, queries: Float32, q: int, rotation: Float32,
    centers: Float32, center_codes: Int8, shapes: Float32, limit: int,
    starts: Int64, codes: UInt8, factors: Float32, rows: Int32,
    breadth: float, depth: float, slack: float, excluded: UInt8, first_row: int, capacity: int,
    best_scores: Float32, best_rows: Int64, n_filled: Int64, counts: Int64,
) -> None:  # fmt: skip
    """Twin of ``sketch_reference.search``."""
    d, d_pad = rotation.shape
    n_places, size = shapes.shape[1], best_scores.shape[1]
    rotated, uppers = np.empty(d_pad, np.float32), np.empty(BLOCK, np.float32)
    tables, query_codes = (
        np.empty((d_pad // 4, 16), np.uint8),
        np.empty(2 * center_codes.shape[1], np.int16),
    )
    dots, listed = np.empty(n_places, np.float32), np.empty(FIRST_BUCKETS, np.int32)
    waiting = np.empty(capacity, np.int32)
    estimates, bounds = np.empty(capacity, np.float32), np.empty(capacity, np.float32)

    accumulate(rotation, queries[q], rotated)
    step, span = quantise(rotated, tables)
    double_step = step + step
    wide_square = np.float64(0.0)
    for j in range(d):
        wide_square += np.float64(queries[q, j]) * np.float64(queries[q, j])
    square = np.float32(wide_square)
    wide, deep = np.float32(breadth), np.float32(depth)
    scale = encode_query(queries, q, limit, query_codes)[0]
    scales, radii, squares = shapes[0], shapes[1], shapes[2]
    for block in range(center_codes.shape[0]):
        block_hits(
            center_codes, block, query_codes, scales, radii, scale, wide, LOWEST,
            dots[block * BLOCK_ROWS :],
        )  # fmt: skip
    for place in range(n_places):
        if radii[place] == np.float32(-np.inf):
            dots[place] = np.float32(-np.inf)

    filled = n_filled[q]
    threshold = worst_kept(best_scores, q, filled)
    n_waiting = n_visited = n_estimated = n_scored = 0
    position = n_listed = 0
    is_sweep = False
    while True:
        if position == n_listed and not is_sweep:
            is_sweep = n_listed > 0 and filled == size
            position = 0
            n_listed = n_places if is_sweep else list_nearest(dots, listed)
        if position == n_listed:
            break
        bucket = position if is_sweep else np.int64(listed[position])
        position += 1
        if not dots[bucket] + wide * radii[bucket] >= threshold:
            continue
        dots[bucket] = np.float32(-np.inf)
        n_visited += 1
        shift = np.float32(canonical_dot(centers, bucket, queries, q))
        rest = square - np.float32(2.0) * shift + squares[bucket]
        reach = deep * (np.sqrt(rest) if rest > np.float32(0.0) else np.float32(0.0))
        offset = reach - step * np.float32(span)
        first = n_waiting
        end = starts[bucket + 1]
        n_estimated += BLOCK * (end - starts[bucket])
        for block in range(starts[bucket], end):
            found = block_uppers(
                codes, factors, block, tables, double_step, offset, threshold - shift, uppers
            )
            while found != np.uint32(0):
                lane = lowest_bit(found)
                found &= found - np.uint32(1)
                row = rows[block, lane]
                if excluded.shape[0] > 0 and excluded[row] != 0:
                    continue
                waiting[n_waiting] = row
                bounds[n_waiting] = uppers[lane] + shift
                estimates[n_waiting] = (uppers[lane] - factors[block, 0, lane] * reach) + shift
                n_waiting += 1
            is_full = n_waiting > capacity - BLOCK
            if is_full or n_waiting - first >= NEW_ROWS or (block + 1 == end and n_waiting > first):
                keys = bounds if is_full else estimates
                filled, n_waiting, n = settle(
                    vectors, queries, q, first_row, slack, waiting, keys, bounds,
                    0 if is_full else first, n_waiting, best_scores, best_rows, filled,
                )  # fmt: skip
                n_scored += n
                first = n_waiting
                threshold = worst_kept(best_scores, q, filled)
    filled, n_waiting, n = settle(
        vectors, queries, q, first_row, slack, waiting, bounds, bounds, 0, n_waiting,
        best_scores, best_rows, filled,
    )  # fmt: skip
    n_filled[q] = filled
    counts[0] = n_visited
    counts[1] = n_estimated
    counts[2] = n_scored + n
