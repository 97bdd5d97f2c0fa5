"""Order of rows in which near ones stand together, for the tree of balls (``tree.py``).

Any order gives right answers; that it is a permutation is what the tests hold it to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.code_layout import BLOCK_ROWS
from native_hash.jit import SCAN_FASTMATH, kernel

SHARE_CUT = 16  # no part is smaller than a sixteenth of what is cut
SAMPLE_ROWS, ROUNDS = 1024, 6  # of k-means, per cut
PENDING = 64  # the smaller part is cut first, so at most log2(n) are pending

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


@kernel(SCAN_FASTMATH)
def order_rows(heads: Float32, order: Int32, keys: Float32) -> None:
    """Put rows in an order in which near ones stand together: cut in two, again and again.

    Each part is cut between the two centers that some rounds of k-means on a sample of it find,
    at a multiple of 16 rows. Any order gives right answers; this one gives small balls.

    Parameters
    ----------
    heads : ndarray
        float32 ``(n, h)``.
    order : ndarray
        State and output, int32 ``(n,)``: at first each row once.
    keys : ndarray
        Work space, float32 ``(n,)``.
    """
    n, h = heads.shape
    ends = np.empty((PENDING, 2), np.int64)
    centers, sums = np.empty((2, h), np.float32), np.empty((2, h), np.float32)
    n_pending = 1
    ends[0, 0], ends[0, 1] = 0, n
    while n_pending > 0:
        n_pending -= 1
        start, end = ends[n_pending, 0], ends[n_pending, 1]
        n_blocks = (end - start + BLOCK_ROWS - 1) // BLOCK_ROWS
        if n_blocks < 2:
            continue
        two_centers(heads, order, start, end, centers, sums)
        middle = np.float32(0.0)
        for j in range(h):
            middle += centers[1, j] * centers[1, j] - centers[0, j] * centers[0, j]
        n_left = 0
        for i in range(start, end):
            row = order[i]
            key = np.float32(0.0)
            for j in range(h):
                key += heads[row, j] * (centers[1, j] - centers[0, j])
            keys[i] = key
            if key < middle * np.float32(0.5):
                n_left += 1
        fewest = max(n_blocks // SHARE_CUT, 1)
        n_left_blocks = (n_left + BLOCK_ROWS // 2) // BLOCK_ROWS
        n_left_blocks = min(max(n_left_blocks, fewest), n_blocks - fewest)
        cut = start + n_left_blocks * BLOCK_ROWS
        part_rows(order, keys, start, end - 1, cut)
        # The smaller part is cut first: so few parts are pending at a time.
        first, second = (start, cut), (cut, end)
        if cut - start < end - cut:
            first, second = second, first
        ends[n_pending, 0], ends[n_pending, 1] = first
        ends[n_pending + 1, 0], ends[n_pending + 1, 1] = second
        n_pending += 2


@kernel(SCAN_FASTMATH)
def square_distance(heads: Float32, row: Any, centers: Float32, c: Any) -> Any:
    """Of a row to one of the centers."""
    total = np.float32(0.0)
    for j in range(heads.shape[1]):
        rest = heads[row, j] - centers[c, j]
        total += rest * rest
    return total


@kernel(SCAN_FASTMATH)
def two_centers(
    heads: Float32, order: Int32, start: Any, end: Any, centers: Float32, sums: Float32
) -> None:
    """Two centers of some rows: first two far apart, then a few rounds of k-means on a sample."""
    h = heads.shape[1]
    step = max(1, (end - start) // SAMPLE_ROWS)
    n_sampled = np.float32((end - start + step - 1) // step)
    centers[0] = np.float32(0.0)
    for i in range(start, end, step):
        for j in range(h):
            centers[0, j] += heads[order[i], j] / n_sampled
    for c in range(2):  # the row farthest from the mean, and the one farthest from that
        farthest, distance = order[start], np.float32(-1.0)
        for i in range(start, end, step):
            here = square_distance(heads, order[i], centers, 0)
            if here > distance:
                farthest, distance = order[i], here
        for j in range(h):
            centers[c, j] = heads[farthest, j]
    for _ in range(ROUNDS):
        sums[:] = np.float32(0.0)
        n_first = n_second = 0
        for i in range(start, end, step):
            row = order[i]
            c = 0
            if square_distance(heads, row, centers, 1) < square_distance(heads, row, centers, 0):
                c = 1
            n_second += c
            n_first += 1 - c
            for j in range(h):
                sums[c, j] += heads[row, j]
        if n_first == 0 or n_second == 0:
            break
        for j in range(h):
            centers[0, j] = sums[0, j] / np.float32(n_first)
            centers[1, j] = sums[1, j] / np.float32(n_second)


@kernel(SCAN_FASTMATH)
def part_rows(order: Int32, keys: Float32, first: Any, last: Any, cut: Any) -> None:
    """Move the smallest keys, and their rows, before ``cut`` (quickselect)."""
    while first < last:
        low, middle, high = keys[first], keys[(first + last) // 2], keys[last]
        pivot = max(min(low, middle), min(max(low, middle), high))
        i, j = first, last
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if cut <= j:
            last = j
        elif cut >= i:
            first = i
        else:
            return
