"""The fast twins of ``probe_reference.py``: same names, same arguments, same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.jit import CANONICAL_FASTMATH, SCAN_FASTMATH, kernel
from native_hash.kernels import canonical_dot

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


@kernel(CANONICAL_FASTMATH)
def plane_dots(query: Float32, hyperplanes: Float32, dots: Float64) -> None:
    """Twin of ``probe_reference.plane_dots``."""
    n_tables, n_bits, d = hyperplanes.shape
    planes, queries = hyperplanes.reshape(n_tables * n_bits, d), query.reshape(1, d)
    for table in range(n_tables):
        for bit in range(n_bits):
            dots[table, bit] = canonical_dot(planes, table * n_bits + bit, queries, 0)


@kernel(CANONICAL_FASTMATH)
def comes_before(sums: Float64, masks: UInt64, places: Int64, i: Any, j: Any) -> Any:
    """Whether entry i of the heap is to be probed before entry j."""
    if sums[0, i] != sums[0, j]:
        return sums[0, i] < sums[0, j]
    if masks[i] != masks[j]:
        return masks[i] < masks[j]
    return places[0, i] < places[0, j]


@kernel(CANONICAL_FASTMATH)
def swap_entries(sums: Float64, masks: UInt64, places: Int64, i: Any, j: Any) -> None:
    """Exchange two entries of the heap."""
    for part in range(2):
        sums[part, i], sums[part, j] = sums[part, j], sums[part, i]
        places[part, i], places[part, j] = places[part, j], places[part, i]
    masks[i], masks[j] = masks[j], masks[i]


@kernel(CANONICAL_FASTMATH)
def sift_down(sums: Float64, masks: UInt64, places: Int64, size: Any) -> None:
    """Move the root of the heap to its place."""
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            return
        if child + 1 < size and comes_before(sums, masks, places, child + 1, child):
            child += 1
        if comes_before(sums, masks, places, i, child):
            return
        swap_entries(sums, masks, places, i, child)
        i = child


@kernel(CANONICAL_FASTMATH)
def sift_up(sums: Float64, masks: UInt64, places: Int64, i: Any) -> None:
    """Move the last entry of the heap to its place."""
    while i > 0:
        parent = (i - 1) // 2
        if comes_before(sums, masks, places, parent, i):
            return
        swap_entries(sums, masks, places, i, parent)
        i = parent


@kernel(CANONICAL_FASTMATH)
def rank_bits(dots: Float64, margins: Float64, bit_of_rank: Int64) -> None:
    """Sort the margins of each table, equal ones by bit number."""
    n_tables, n_bits = dots.shape
    for table in range(n_tables):
        for bit in range(n_bits):
            margin = abs(dots[table, bit])
            rank = bit
            while rank > 0 and margins[table, rank - 1] > margin:
                margins[table, rank] = margins[table, rank - 1]
                bit_of_rank[table, rank] = bit_of_rank[table, rank - 1]
                rank -= 1
            margins[table, rank] = margin
            bit_of_rank[table, rank] = bit


@kernel(CANONICAL_FASTMATH)
def probe_order(
    dots: Float64,
    margins: Float64,
    bit_of_rank: Int64,
    heap_sums: Float64,
    heap_masks: UInt64,
    heap_places: Int64,
    tables: Int64,
    signatures: UInt64,
) -> int:
    """Twin of ``probe_reference.probe_order``: each set of ranks is made from a cheaper one.

    A set whose highest rank is r leads to two: r moved to r + 1, and r + 1 added; each set
    is reached once. The heap holds cost and cost without the highest rank (``heap_sums``),
    the set (``heap_masks``), table and highest rank (``heap_places``).
    """
    n_tables, n_bits = dots.shape
    rank_bits(dots, margins, bit_of_rank)
    for table in range(n_tables):
        heap_sums[:, table] = 0.0
        heap_masks[table] = np.uint64(0)
        heap_places[0, table] = table
        heap_places[1, table] = -1
    size = n_tables
    n_found = 0
    while n_found < tables.shape[0] and size > 0:
        cost, cost_below = heap_sums[0, 0], heap_sums[1, 0]
        mask, table, highest = heap_masks[0], heap_places[0, 0], heap_places[1, 0]
        signature = np.uint64(0)
        for bit in range(n_bits):
            if dots[table, bit] > 0.0:
                signature |= np.uint64(1) << np.uint64(bit)
        for rank in range(highest + 1):
            if (mask >> np.uint64(rank)) & np.uint64(1) != np.uint64(0):
                signature ^= np.uint64(1) << np.uint64(bit_of_rank[table, rank])
        tables[n_found] = table
        signatures[n_found] = signature
        n_found += 1
        if highest + 1 == n_bits:
            size -= 1
            swap_entries(heap_sums, heap_masks, heap_places, 0, size)
            sift_down(heap_sums, heap_masks, heap_places, size)
            continue
        next_mask = mask | (np.uint64(1) << np.uint64(highest + 1))
        margin = margins[table, highest + 1]
        heap_sums[0, 0] = cost + margin
        heap_sums[1, 0] = cost
        heap_masks[0] = next_mask
        heap_places[1, 0] = highest + 1
        sift_down(heap_sums, heap_masks, heap_places, size)
        if highest >= 0:
            heap_sums[0, size] = cost_below + margin
            heap_sums[1, size] = cost_below
            heap_masks[size] = next_mask ^ (np.uint64(1) << np.uint64(highest))
            heap_places[0, size] = table
            heap_places[1, size] = highest + 1
            sift_up(heap_sums, heap_masks, heap_places, size)
            size += 1
    return n_found


@kernel(SCAN_FASTMATH)
def mark_rows(
    tables: Int64,
    signatures: UInt64,
    keys: UInt64,
    first_key: Int64,
    starts: Int64,
    rows: Int64,
    bitmap: UInt64,
) -> int:
    """Twin of ``probe_reference.mark_rows``."""
    n_new = np.int64(0)
    for probe in range(tables.shape[0]):
        low, end = first_key[tables[probe]], first_key[tables[probe] + 1]
        high = end
        while low < high:
            middle = (low + high) // 2
            if keys[middle] < signatures[probe]:
                low = middle + 1
            else:
                high = middle
        if low == end or keys[low] != signatures[probe]:
            continue
        for i in range(starts[low], starts[low + 1]):
            word, place = rows[i] >> 6, np.uint64(rows[i] & 63)
            n_new += np.int64(~(bitmap[word] >> place) & np.uint64(1))
            bitmap[word] |= np.uint64(1) << place
    return int(n_new)


@kernel(SCAN_FASTMATH)
def marked_rows(bitmap: UInt64, candidates: Int64) -> None:
    """Twin of ``probe_reference.marked_rows``: each row is written, and kept if marked."""
    n_found = np.int64(0)
    for word in range(bitmap.shape[0]):
        flags = bitmap[word]
        if flags == np.uint64(0):
            continue
        for place in range(64):
            candidates[n_found] = word * 64 + place
            n_found += np.int64((flags >> np.uint64(place)) & np.uint64(1))
