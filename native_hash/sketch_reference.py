"""The definition of the sign sketch in plain numpy; ``sketch_kernels.py`` holds the fast twins.

A row x of bucket b is kept as the signs s of its rotated offset z = P (x - c_b) from the
bucket's center and two numbers, ``factor`` = |z|^2 / |z|_1 and ``shift``. With the rotated query
y = P q, ``factor * s.y`` is an unbiased estimate of q.(x - c_b) over random rotations P;
``shift`` = c_b.(x - c_b) - factor * s.(P c_b) moves its error from |q| to |q - c_b|, which is small
where it matters (Gao and Long 2024, "RaBitQ", section 3, with another grouping of the terms).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from native_hash.code_layout import BLOCK_ROWS
from native_hash.code_reference import block_estimates, encode_query
from native_hash.reference import canonical_dots

BLOCK = 32  # rows whose codes lie together, byte by byte
LOWEST = np.float32(-3.0e38)
FIRST_BUCKETS = 8
NEW_ROWS = 64

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]


def accumulate(matrix: Float32, x: Float32, out: Float32) -> None:
    """``x @ matrix`` in float32, summed in the order of the rows of ``matrix``.

    Parameters
    ----------
    matrix : ndarray
        float32 ``(d, m)``.
    x, out : ndarray
        float32 ``(d,)`` and ``(m,)``; ``out`` is written.
    """
    out[:] = 0
    for value, row in zip(x, matrix, strict=True):
        out += value * row


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
    """Codes and factors of the rows of some buckets.

    Parameters
    ----------
    vectors : ndarray
        float32 ``(n, d)``.
    rotation : ndarray
        float32 ``(d, d_pad)``: column i is direction i; ``d_pad`` is a multiple of 64.
    centers : ndarray
        float32 ``(n_buckets, d)``.
    starts : ndarray
        int64 ``(n_buckets + 1,)``: bucket b holds the blocks ``starts[b]`` to ``starts[b + 1]``.
    rows : ndarray
        int32 ``(n_blocks, 32)``, row numbers; -1 fills up the last block of a bucket.
    scratch : ndarray
        float32 ``(4, d_pad)``.
    codes : ndarray
        uint8 ``(n_blocks, d_pad / 8, 32)``, written: bit j % 8 of byte j // 8 is 1 where
        component j of the rotated offset is above 0.
    factors : ndarray
        float32 ``(n_blocks, 2, 32)``, written: factor and shift of each row; 0 and -inf where
        there is no row.
    """
    d_pad = rotation.shape[1]
    of_center, rotated = np.empty(d_pad, np.float32), np.empty(d_pad, np.float32)
    for bucket in range(first_bucket, last_bucket):
        center = centers[bucket]
        accumulate(rotation, center, of_center)
        for block in range(starts[bucket], starts[bucket + 1]):
            for lane, row in enumerate(rows[block]):
                codes[block, :, lane] = 0
                factors[block, :, lane] = 0, -np.inf
                if row < 0:
                    continue
                rest = vectors[row] - center
                wide = rest.astype(np.float64)
                square = _sum(wide * wide)
                along = _sum(wide * center)
                accumulate(rotation, rest, rotated)
                is_positive = rotated > 0
                sign = np.where(is_positive, 1.0, -1.0)
                total = _sum(sign * rotated)
                factor = square / total if total > 0 else 0.0
                codes[block, :, lane] = np.packbits(is_positive, bitorder="little")
                factors[block, 0, lane] = factor
                factors[block, 1, lane] = along - factor * _sum(sign * of_center)


def _sum(values: npt.NDArray[np.float64]) -> float:
    """Sum in the order of the entries."""
    return float(np.add.accumulate(values)[-1])


def quantise(rotated: Float32, tables: UInt8) -> tuple[np.float32, int]:
    """Whole-number levels k of a rotated query, as tables of sums over four signs.

    Parameters
    ----------
    rotated : ndarray
        float32 ``(d_pad,)``.
    tables : ndarray
        uint8 ``(d_pad / 4, 16)``, written: entry m of table t is the sum of the levels
        ``k[4 t + i]`` over the bits i of m, plus what makes the least entry 0.

    Returns
    -------
    step : float32
        ``rotated`` is about ``step * k``; levels are -31 to 31 (less above 2,114 dimensions).
    span : int
        Sum of ``|k|``; with S the sum of the entries that a code names, ``s.k = 2 S - span``.
    """
    steps = min(31, 65535 // rotated.size)
    step = np.abs(rotated).max() / np.float32(steps)
    if not step > 0:
        step = np.float32(1)
    levels = np.rint(rotated / step).astype(np.int64).reshape(-1, 4)
    bits = (np.arange(16)[:, np.newaxis] >> np.arange(4)) & 1
    sums = levels @ bits.T
    tables[:] = sums - sums.min(axis=1, keepdims=True)
    return step, int(np.abs(levels).sum())


def block_sums(codes: UInt8, block: int, tables: UInt8, sums: npt.NDArray[np.uint16]) -> None:
    """Per row of a block, the sum of the table entries that the nibbles of its code name.

    Parameters
    ----------
    sums : ndarray
        uint16 ``(32,)``, written.
    """
    numbers = np.arange(codes.shape[1])[:, np.newaxis]
    low = tables[2 * numbers, codes[block] & 15].astype(np.int64)
    high = tables[2 * numbers + 1, codes[block] >> 4].astype(np.int64)
    sums[:] = (low + high).sum(axis=0)


def settle(
    vectors: Float32, queries: Float32, q: int, first_row: int, slack: float,
    waiting: list[tuple[int, np.float32, np.float32]], key: int, first: int,
    best_scores: Float32, best_rows: Int64, n_filled: Int64,
) -> int:  # fmt: skip
    """Score the waiting rows from ``first`` on whose key reaches the worst kept score.

    The upper half of the range of keys goes first: it raises the score to reach. Rows whose
    bound no longer reaches it are dropped.

    Parameters
    ----------
    waiting : list of tuple
        Row, its estimate and the upper bound of that; shortened.
    key : int
        1 to go by the estimate, 2 to go by the bound.

    Returns
    -------
    int
        Rows scored.
    """
    if len(waiting) == first:
        return 0
    keys = [entry[key] for entry in waiting[first:]]
    middle = min(keys) + (max(keys) - min(keys)) / np.float32(2)
    n_scored = 0
    for turn in range(2):
        rest = waiting[first:]
        del waiting[first:]
        for entry in rest:
            threshold = worst_kept(best_scores, q, n_filled)
            if entry[key] >= (max(middle, threshold) if turn == 0 else threshold):
                n_scored += 1
                _offer(
                    vectors, queries[q], q, entry[0], first_row, best_scores, best_rows, n_filled
                )
            elif turn == 0 or entry[2] >= threshold:
                waiting.append(entry)
    return n_scored


def worst_kept(scores: Float32, q: int, n_filled: Int64) -> np.float32:
    """Score that a row must reach to enter the heap of query q."""
    return np.float32(scores[q, 0]) if n_filled[q] == scores.shape[1] else LOWEST


def search(
    vectors: Float32, queries: Float32, q: int, rotation: Float32,
    centers: Float32, center_codes: Int8, shapes: Float32, limit: int,
    starts: Int64, codes: UInt8, factors: Float32, rows: Int32,
    breadth: float, depth: float, slack: float, excluded: UInt8, first_row: int, capacity: int,
    best_scores: Float32, best_rows: Int64, n_filled: Int64, counts: Int64,
) -> None:  # fmt: skip
    """Offer the rows that may be among the N best of query q.

    A bucket is visited where ``q.c + breadth * radius`` reaches the worst kept score: nearest
    ones first until N rows were found, the others in any order. A row is scored where its
    estimate plus ``depth * factor * |q - c|`` reaches that score: soon where the estimate alone
    does, else at the end or when the list of waiting rows is full. So breadth and depth adapt
    to the query, to N, to the rows left out and to what is in the heap already.

    Parameters
    ----------
    vectors, rotation, centers, starts, codes, factors, rows
        As :func:`encode`.
    queries : ndarray
        float32 ``(m, d)``.
    center_codes : ndarray
        int8 codes of the centers, as ``code_reference.encode_rows``.
    shapes : ndarray
        float32 ``(3, n_places)``, for each place in ``center_codes``: scale of the code, radius
        of the bucket (-inf where there is none) and squared norm of its center.
    limit : int
        ``code_layout.query_code_limit(d)``.
    slack : float
        Rounding bound of a float32 dot product, see ``reference.scan``.
    excluded : ndarray
        uint8 ``(n,)``, 1 for rows to leave out, or empty.
    first_row : int
        Number under which row 0 appears in the answer.
    capacity : int
        Rows that may wait, above 32.
    best_scores, best_rows, n_filled
        State, see ``reference.scan``.
    counts : ndarray
        int64 ``(3,)``, written: buckets visited, rows estimated, rows scored.
    """
    n_answers = best_scores.shape[1]
    query = queries[q]
    rotated = np.empty(rotation.shape[1], np.float32)
    tables = np.empty((rotated.size // 4, 16), np.uint8)
    accumulate(rotation, query, rotated)
    step, span = quantise(rotated, tables)
    square = np.float32(_sum(query.astype(np.float64) ** 2))
    query_codes, scale, _ = encode_query(query, limit)
    scales, radii, squares = shapes
    blocks = range(shapes.shape[1] // BLOCK_ROWS)
    dots = np.concatenate(
        [block_estimates(center_codes, block, query_codes, scales, scale) for block in blocks]
    )
    dots[np.isneginf(radii)] = -np.inf
    sums = np.empty(BLOCK, np.uint16)
    counts[:] = 0
    waiting: list[tuple[int, np.float32, np.float32]] = []

    def score(key: int, first: int) -> None:
        counts[2] += settle(
            vectors, queries, q, first_row, slack, waiting, key, first,
            best_scores, best_rows, n_filled,
        )  # fmt: skip

    def visit(bucket: int) -> None:
        shift = np.float32(canonical_dots(centers[bucket : bucket + 1], query)[0])
        rest = square - np.float32(2) * shift + squares[bucket]
        reach = np.float32(depth) * np.sqrt(max(rest, np.float32(0)))
        offset = reach - step * np.float32(span)
        counts[0] += 1
        first = len(waiting)
        for block in range(starts[bucket], starts[bucket + 1]):
            counts[1] += BLOCK
            block_sums(codes, block, tables, sums)
            factor, own = factors[block]
            uppers = own + factor * ((step + step) * sums.astype(np.float32) + offset)
            for lane in np.flatnonzero(uppers >= worst_kept(best_scores, q, n_filled) - shift):
                row = int(rows[block, lane])
                if not (excluded.size and excluded[row]):
                    estimate = (uppers[lane] - factor[lane] * reach) + shift
                    waiting.append((row, estimate, uppers[lane] + shift))
            if len(waiting) > capacity - BLOCK:
                score(2, 0)
            elif len(waiting) - first >= NEW_ROWS or block + 1 == starts[bucket + 1]:
                score(1, first)
            else:
                continue
            first = len(waiting)

    def visit_within(buckets: Int64) -> None:
        for bucket in buckets:
            least = worst_kept(best_scores, q, n_filled)
            if dots[bucket] + np.float32(breadth) * radii[bucket] >= least:
                dots[bucket] = -np.inf
                visit(int(bucket))

    while True:
        nearest = np.lexsort((np.arange(dots.size), -dots))[:FIRST_BUCKETS]
        nearest = nearest[dots[nearest] > -np.inf]
        visit_within(nearest)
        if nearest.size == 0 or n_filled[q] == n_answers:
            break
    visit_within(np.flatnonzero(dots > -np.inf))
    score(2, 0)


def _offer(
    vectors: Float32,
    query: Float32,
    q: int,
    row: int,
    first_row: int,
    best_scores: Float32,
    best_rows: Int64,
    n_filled: Int64,
) -> None:
    """One row into the N best of query q, the worst kept at entry 0."""
    filled = int(n_filled[q])
    value = canonical_dots(vectors[row : row + 1], query).astype(np.float32)
    scores = np.concatenate([best_scores[q, :filled], value])
    numbers = np.append(best_rows[q, :filled], row + first_row)
    kept = np.lexsort((numbers, -scores))[: best_rows.shape[1]][::-1]
    best_scores[q, : kept.size] = scores[kept]
    best_rows[q, : kept.size] = numbers[kept]
    n_filled[q] = kept.size
