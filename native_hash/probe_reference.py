"""The definition of every kernel of ``probe_kernels.py``, in plain numpy.

Same names and arguments; scratch that only the kernels need is left alone here. The caller
has checked dtype, shape, contiguity and finiteness.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from native_hash.reference import canonical_dots

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


def plane_dots(query: Float32, hyperplanes: Float32, dots: Float64) -> None:
    """Canonical dot product of a query with every hyperplane.

    Parameters
    ----------
    query : ndarray
        float32 ``(d,)``.
    hyperplanes : ndarray
        float32 ``(n_tables, k, d)``.
    dots : ndarray
        Output, float64 ``(n_tables, k)``; above 0 where the signature has its bit, and its
        absolute value is the margin of that bit.
    """
    n_tables, n_bits, d = hyperplanes.shape
    dots[...] = canonical_dots(hyperplanes.reshape(-1, d), query).reshape(n_tables, n_bits)


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
    """The first probes of a query over all tables, by the summed margins of flipped bits.

    Inside a table, bits are ranked by margin, equal margins by bit number. A probe is a set of
    ranks; its cost is the sum of their margins, added in the order of ranks. Probes come in
    ascending order of cost; equal costs by the set written as a binary number (rank r is
    2**r), then by table. So the own buckets of all tables come first.

    Parameters
    ----------
    dots : ndarray
        float64 ``(n_tables, k)`` from :func:`plane_dots`.
    margins, bit_of_rank, heap_sums, heap_masks, heap_places : ndarray
        Scratch of the kernel: float64 and int64 ``(n_tables, k)``; with
        ``c = n_tables + n_probes``, float64 ``(2, c)``, uint64 ``(c,)``, int64 ``(2, c)``.
    tables, signatures : ndarray
        Output, int64 and uint64 ``(n_probes,)``.

    Returns
    -------
    int
        Probes written: fewer than ``n_probes`` where all buckets are named.

    Notes
    -----
    Only the ``n_probes`` cheapest sets of the lower ranks can stand under the cheapest ones
    with one rank more, because rounding keeps the order of sums; so one rank is added at
    a time, and the rest dropped. The idea of probing in this order: Lv et al. 2007,
    "Multi-Probe LSH", section 4.4 (with squared margins).
    """
    n_bits, n_probes = dots.shape[1], tables.size
    found = []
    for table, row in enumerate(dots):
        bits = np.argsort(np.abs(row), kind="stable")
        costs, masks, flips = np.zeros(1), np.zeros(1, np.uint64), np.zeros(1, np.uint64)
        for rank, bit in enumerate(bits):
            costs = np.concatenate([costs, costs + abs(row[bit])])
            masks = np.concatenate([masks, masks | (np.uint64(1) << np.uint64(rank))])
            flips = np.concatenate([flips, flips | (np.uint64(1) << np.uint64(bit))])
            kept = np.lexsort((masks, costs))[:n_probes]
            costs, masks, flips = costs[kept], masks[kept], flips[kept]
        is_set = (row > 0).astype(np.uint64)
        own = np.bitwise_or.reduce(is_set << np.arange(n_bits, dtype=np.uint64))
        found.append((costs, masks, np.full(costs.size, table), flips ^ own))
    costs, masks, of_table, probed = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((of_table, masks, costs))[:n_probes]
    tables[: order.size] = of_table[order]
    signatures[: order.size] = probed[order]
    return int(order.size)


def mark_rows(
    tables: Int64,
    signatures: UInt64,
    keys: UInt64,
    first_key: Int64,
    starts: Int64,
    rows: Int64,
    bitmap: UInt64,
) -> int:
    """Mark the rows of probed buckets.

    Parameters
    ----------
    tables, signatures : ndarray
        int64 and uint64 ``(n_probes,)``.
    keys, first_key : ndarray
        uint64 signatures that occur, table after table, ascending inside each; those
        of table t are ``keys[first_key[t]:first_key[t + 1]]``.
    starts, rows : ndarray
        int64; bucket b holds ``rows[starts[b]:starts[b + 1]]``.
    bitmap : ndarray
        State, uint64; bit ``r % 64`` of word ``r // 64`` is set for a marked row r.

    Returns
    -------
    int
        Rows that were not marked before.
    """
    is_marked = np.unpackbits(bitmap.view(np.uint8), bitorder="little")
    n_before = int(is_marked.sum())
    for table, signature in zip(tables, signatures, strict=True):
        own_keys = keys[first_key[table] : first_key[table + 1]]
        for bucket in first_key[table] + np.flatnonzero(own_keys == signature):
            is_marked[rows[starts[bucket] : starts[bucket + 1]]] = 1
    bitmap[...] = np.packbits(is_marked, bitorder="little").view(np.uint64)
    return int(is_marked.sum()) - n_before


def marked_rows(bitmap: UInt64, candidates: Int64) -> None:
    """List marked rows, ascending.

    Parameters
    ----------
    candidates : ndarray
        Output, int64, one entry longer than there are marked rows; the last is scratch.
    """
    candidates[:-1] = np.flatnonzero(np.unpackbits(bitmap.view(np.uint8), bitorder="little"))
