"""Certified exact search in a tree of balls (``tree.py``): what cannot win is not looked at.

``tree_reference.py`` has the bounds in plain numpy; the answer is that of ``reference.scan``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.block_hits import ball_hits, head_hits, lowest_bit, prefetch_row, row_dot
from native_hash.code_kernels import (
    LOWEST,
    SURVIVORS,
    cutoff_of,
    encode_query,
    push_lower,
    settle,
    spread_of,
)
from native_hash.code_layout import AXES_ERROR, BLOCK_ROWS, HEAD_LIMIT, TOP_BLOCKS
from native_hash.jit import ORDERED, kernel
from native_hash.kernels import canonical_dot

MAX_LEVELS = 9
FIRST_BALLS = 6  # leaves read before all others, with one more for each 8 answers
MOST_FIRST_BALLS = 32
BEAM = 8  # balls of each higher level among whose parts those are looked for, at least
QUEUED = 8  # leaves whose heads are on their way from memory before the first is used
QUEUE_ROOM = 32  # a power of two, at least QUEUED + BLOCK_ROWS
WAITING = 32  # rows whose codes are on their way from memory before the first is used
STACKED = BLOCK_ROWS * MAX_LEVELS
ROUNDING = np.float32(1e-5)  # of float32 operations on numbers up to 2, with room to spare

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


@kernel(ORDERED)
def encode_head(query: Float32, axes: Float32, depth: Any, head: Float64, codes: Int16) -> Any:
    """Head of a query ``(1, d)`` as unit vector in int16; returns the norm of the head.

    Twin of ``tree_reference.encode_head``.
    """
    k = axes.shape[0]
    total, square = canonical_dot(query, 0, query, 0), np.float64(0.0)
    for i in range(k):
        head[i] = canonical_dot(axes, i, query, 0)
        square += head[i] * head[i]
    head[k] = depth * np.sqrt(max(total - square, 0.0) + AXES_ERROR * total)
    norm = np.sqrt(square + head[k] * head[k])
    codes[:] = 0
    for i in range(k + 1):
        codes[i] = np.int16(np.rint(head[i] / norm * HEAD_LIMIT))
    return norm


@kernel(ORDERED)
def list_best(key: Any, ball: Any, keys: Float32, balls: Int64, n_listed: Any) -> Any:
    """Insert a ball into a short list, best first; returns the new length."""
    if n_listed == keys.shape[0]:
        if key <= keys[n_listed - 1]:
            return n_listed
        n_listed -= 1
    i = n_listed
    while i > 0 and key > keys[i - 1]:
        keys[i], balls[i] = keys[i - 1], balls[i - 1]
        i -= 1
    keys[i], balls[i] = key, ball
    return n_listed + 1


@kernel(ORDERED)
def every_of(n_left: Any) -> Any:
    """Mask of the entries of a block of which so many are left."""
    return np.int32(0xFFFF) if n_left >= BLOCK_ROWS else np.int32((1 << n_left) - 1)


@kernel(ORDERED)
def prefetch_balls(balls: Int16, radii: Float32, shifts: Float32, block: Any) -> None:
    """Ask for what ``ball_hits`` will read of a block."""
    prefetch_row(balls, block)
    prefetch_row(radii, block * BLOCK_ROWS)
    prefetch_row(shifts, block * BLOCK_ROWS)


@kernel(ORDERED)
def nearest_leaves(
    balls: Int16, radii: Float32, shifts: Float32, sizes: Int64, firsts: Int64, n_levels: Any,
    codes: Int16, scale: Any, values: Float32, keys: Float32, listed: Int64, others: Int64,
    n_wanted: Any,
) -> Any:  # fmt: skip
    """List leaves whose centers are near the query, by following the nearest balls down.

    Writes ``listed``, nearest first; returns their number, at most ``n_wanted``.
    """
    n_listed = 0
    for level in range(n_levels - 1, 0, -1):
        is_top = level == n_levels - 1
        n_blocks = (sizes[level] + BLOCK_ROWS - 1) // BLOCK_ROWS if is_top else n_listed
        for i in range(n_listed):
            others[i] = listed[i]
            prefetch_balls(balls, radii, shifts, firsts[level] + listed[i])
        n_listed = 0
        for i in range(n_blocks):
            block = i if is_top else others[i]
            left = sizes[level] - block * BLOCK_ROWS
            least = keys[n_listed - 1] if n_listed == keys.shape[0] else LOWEST
            mask = every_of(left) & ball_hits(
                balls, firsts[level] + block, codes, radii, shifts, scale, np.float32(0.0),
                least, values,
            )  # fmt: skip
            while mask != 0:
                lane = lowest_bit(np.int32(mask))
                mask &= mask - 1
                n_listed = list_best(
                    values[lane], block * BLOCK_ROWS + lane, keys, listed, n_listed
                )
    return min(n_listed, n_wanted)


@kernel(ORDERED)
def compare_waiting(
    matrix: Float32, query: Float32, first_row: Any, slack: Any, max_norm: Any, excluded: UInt8,
    codes: Int8, bounds: Float32, rows: Int32, query_codes: Int16,
    scale: Any, rest: Any, norm: Any, waiting: Int64, n_waiting: Any,
    lowers: Float32, survivors: Int32, survivor_bounds: Float32, counts: Int64,
    best_scores: Float32, best_rows: Int64, n_filled: Int64,
) -> Any:  # fmt: skip
    """Bound the scores of waiting places by their codes, keep what may win; returns the cutoff.

    ``counts``: lower bounds kept, survivors collected.
    """
    n_lower, n_survivors = counts[0], counts[1]
    cutoff = cutoff_of(lowers, n_lower, best_scores, n_filled[0], 0, slack)
    spread = spread_of(norm, cutoff, max_norm)
    has_excluded = excluded.shape[0] > 0
    for i in range(n_waiting):
        place = waiting[i]
        doubt = bounds[place, 1]
        dot = np.float32(row_dot(codes, place, query_codes))
        estimate = dot * (bounds[place, 0] * scale)
        upper = estimate + doubt * spread + rest
        if upper < cutoff:
            continue
        row = rows[place]
        if has_excluded and excluded[row] != 0:
            continue
        # The score is at least this; the second bound uses the first.
        lower = estimate - doubt * norm - rest
        lower = estimate - doubt * spread_of(norm, lower, max_norm) - rest
        if n_survivors == survivors.shape[1]:
            settle(
                matrix, query, 0, first_row, slack, survivors, survivor_bounds, n_survivors,
                lowers, n_lower, best_scores, best_rows, n_filled,
            )  # fmt: skip
            n_survivors = 0
        survivors[0, n_survivors] = row
        survivor_bounds[0, n_survivors, 0] = upper
        survivor_bounds[0, n_survivors, 1] = lower
        n_survivors += 1
        n_lower = push_lower(lower, lowers, 0, n_lower)
        cutoff = cutoff_of(lowers, n_lower, best_scores, n_filled[0], 0, slack)
        spread = spread_of(norm, cutoff, max_norm)
    counts[0], counts[1] = n_lower, n_survivors
    return cutoff


@kernel(ORDERED)
def search_one(
    matrix: Float32, query: Float32, first_row: Any, relative_slack: Any, least_slack: Any,
    max_norm: Any, excluded: UInt8, limit: Any, depth: Any,
    codes: Int8, bounds: Float32, rows: Int32,
    axes: Float32, heads: Int16, balls: Int16, radii: Float32, shifts: Float32,
    unit: Any, sizes: Int64, firsts: Int64, n_levels: Any,
    query_codes: Int16, head: Float64, head_codes: Int16, values: Float32,
    n_first: Any, keys: Float32, leaves: Int64, others: Int64, stack: Int64, queue: Int64,
    waiting: Int64,
    lowers: Float32, survivors: Int32, survivor_bounds: Float32, counts: Int64,
    best_scores: Float32, best_rows: Int64, n_filled: Int64,
) -> Any:  # fmt: skip
    """Offer every row to the N best of one query ``(1, d)``; returns the rows looked at."""
    scale, rest, norm = encode_query(query, 0, limit, query_codes)
    slack = np.float32(np.float64(norm) * relative_slack + least_slack)
    rest = rest * np.float32(3.0) * max_norm + slack
    head_norm = encode_head(query, axes, depth, head, head_codes)
    closeness = np.float32(depth)
    to_unit = np.float32(1.0 / (head_norm * np.float64(unit)))
    step = np.float32(1.0 / (np.float64(HEAD_LIMIT) * np.float64(HEAD_LIMIT)))
    margin = np.float32(1.01 * np.sqrt(2.0 * heads.shape[1]) / HEAD_LIMIT) + ROUNDING
    counts[:] = 0
    n_leaves = nearest_leaves(
        balls, radii, shifts, sizes, firsts, n_levels, head_codes, step, values,
        keys, leaves, others, n_first,
    )  # fmt: skip
    n_stacked = n_waiting = n_read = n_top = n_queued = n_taken = 0
    for i in range(n_leaves):
        end = min(leaves[i] * BLOCK_ROWS + BLOCK_ROWS, sizes[0])
        for place in range(leaves[i] * BLOCK_ROWS, end):
            prefetch_row(codes, place)
        prefetch_row(bounds, leaves[i] * BLOCK_ROWS)
        prefetch_row(bounds, end - 1)
    for i in range(n_leaves):
        end = min(leaves[i] * BLOCK_ROWS + BLOCK_ROWS, sizes[0])
        n_read += end - leaves[i] * BLOCK_ROWS
        for place in range(leaves[i] * BLOCK_ROWS, end):
            waiting[n_waiting] = place
            n_waiting += 1
        cutoff = compare_waiting(
            matrix, query, first_row, slack, max_norm, excluded, codes, bounds, rows,
            query_codes, scale, rest, norm, waiting, n_waiting, lowers, survivors,
            survivor_bounds, counts, best_scores, best_rows, n_filled,
        )  # fmt: skip
        n_waiting = 0
    n_top_blocks = (sizes[n_levels - 1] + BLOCK_ROWS - 1) // BLOCK_ROWS
    cutoff = cutoff_of(lowers, counts[0], best_scores, n_filled[0], 0, slack)
    while True:
        # Nothing reaches beyond -1 or 1 here, whatever the cutoff says.
        least = max(min(cutoff * to_unit, np.float32(1.1)), np.float32(-1.1)) - margin
        reach = np.sqrt(max(np.float32(2.0) - np.float32(2.0) * least, np.float32(0.0)) + ROUNDING)
        reach *= closeness
        if n_queued > QUEUED or (n_stacked == 0 and n_top == n_top_blocks and n_queued > 0):
            leaf = queue[n_taken % QUEUE_ROOM]
            n_taken += 1
            n_queued -= 1
            left = sizes[0] - leaf * BLOCK_ROWS
            n_read += min(left, BLOCK_ROWS)
            mask = every_of(left) & head_hits(heads, leaf, head_codes, step, least)
            while mask != 0:
                lane = lowest_bit(np.int32(mask))
                mask &= mask - 1
                place = leaf * BLOCK_ROWS + lane
                prefetch_row(codes, place)
                prefetch_row(bounds, place)
                waiting[n_waiting] = place
                n_waiting += 1
        elif n_stacked > 0 or n_top < n_top_blocks:
            if n_stacked > 0:
                n_stacked -= 2
                level, block = stack[n_stacked] - 1, stack[n_stacked + 1]
            else:
                level, block = n_levels - 1, n_top
                n_top += 1
            mask = every_of(sizes[level] - block * BLOCK_ROWS) & ball_hits(
                balls, firsts[level] + block, head_codes, radii, shifts, step, reach, least, values
            )
            while mask != 0:
                lane = lowest_bit(np.int32(mask))
                mask &= mask - 1
                ball = block * BLOCK_ROWS + lane
                if level > 1:
                    prefetch_balls(balls, radii, shifts, firsts[level - 1] + ball)
                    stack[n_stacked], stack[n_stacked + 1] = level, ball
                    n_stacked += 2
                    continue
                is_done = False
                for i in range(n_leaves):
                    is_done |= leaves[i] == ball
                if not is_done:
                    prefetch_row(heads, ball)
                    queue[(n_taken + n_queued) % QUEUE_ROOM] = ball
                    n_queued += 1
        else:
            break
        if n_waiting >= WAITING:
            cutoff = compare_waiting(
                matrix, query, first_row, slack, max_norm, excluded, codes, bounds, rows,
                query_codes, scale, rest, norm, waiting, n_waiting, lowers, survivors,
                survivor_bounds, counts, best_scores, best_rows, n_filled,
            )  # fmt: skip
            n_waiting = 0
    compare_waiting(
        matrix, query, first_row, slack, max_norm, excluded, codes, bounds, rows,
        query_codes, scale, rest, norm, waiting, n_waiting, lowers, survivors,
        survivor_bounds, counts, best_scores, best_rows, n_filled,
    )  # fmt: skip
    settle(
        matrix, query, 0, first_row, slack, survivors, survivor_bounds, counts[1],
        lowers, counts[0], best_scores, best_rows, n_filled,
    )  # fmt: skip
    return n_read


@kernel(ORDERED)
def search_tree(
    matrix: Float32, queries: Float32, first_row: int, excluded: UInt8, depth: float,
    relative_slack: float, least_slack: float,
    codes: Int8, bounds: Float32, rows: Int32,
    axes: Float32, heads: Int16, balls: Int16, radii: Float32, shifts: Float32,
    unit: float, limit: int, norm_limit: float,
    best_scores: Float32, best_rows: Int64, n_filled: Int64, n_read: Int64,
) -> None:  # fmt: skip
    """As ``code_kernels.search_codes``, in a tree.

    Parameters
    ----------
    depth : float
        1 for the exact answer; less looks at fewer rows and may miss some
        (``tree_tuning.py``). Which rows that are is the same on every CPU.
    codes, rows, axes, heads, balls, radii, shifts, unit
        As ``codes.Codes`` and ``tree.Tree`` hold them.
    """
    m, n_answers = best_scores.shape
    sizes, firsts = np.zeros(MAX_LEVELS, np.int64), np.zeros(MAX_LEVELS, np.int64)
    sizes[0] = matrix.shape[0]
    sizes[1] = (sizes[0] + BLOCK_ROWS - 1) // BLOCK_ROWS
    n_levels = 2
    while sizes[n_levels - 1] > TOP_BLOCKS * BLOCK_ROWS:
        n_blocks = (sizes[n_levels - 1] + BLOCK_ROWS - 1) // BLOCK_ROWS
        sizes[n_levels] = n_blocks
        firsts[n_levels] = firsts[n_levels - 1] + n_blocks
        n_levels += 1
    query_codes = np.empty(codes.shape[1], np.int16)
    head, head_codes = np.empty(axes.shape[0] + 1), np.empty(2 * heads.shape[1], np.int16)
    values = np.empty(BLOCK_ROWS, np.float32)
    n_first = min(FIRST_BALLS + n_answers // 8, MOST_FIRST_BALLS)
    n_kept = max(n_first, BEAM)
    keys, leaves = np.empty(n_kept, np.float32), np.empty(n_kept, np.int64)
    others, stack = np.empty(n_kept, np.int64), np.empty(2 * STACKED, np.int64)
    queue, waiting = np.empty(QUEUE_ROOM, np.int64), np.empty(WAITING + BLOCK_ROWS, np.int64)
    lowers = np.empty((1, n_answers), np.float32)
    capacity = SURVIVORS + 4 * n_answers
    survivors = np.empty((1, capacity), np.int32)
    survivor_bounds = np.empty((1, capacity, 2), np.float32)
    counts = np.empty(2, np.int64)
    max_norm = np.float32(norm_limit)
    for q in range(m):
        n_read[q] += search_one(
            matrix, queries[q : q + 1], first_row, relative_slack, least_slack, max_norm, excluded,
            limit, depth, codes, bounds, rows, axes, heads, balls, radii, shifts,
            unit, sizes, firsts, n_levels, query_codes, head, head_codes, values,
            n_first, keys, leaves, others, stack, queue, waiting,
            lowers, survivors, survivor_bounds, counts,
            best_scores[q : q + 1], best_rows[q : q + 1], n_filled[q : q + 1],
        )  # fmt: skip
