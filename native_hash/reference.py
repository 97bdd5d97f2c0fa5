"""The definition of every kernel, in plain numpy.

Same names and same arguments as ``kernels.py``; the caller allocates outputs and has
checked dtype, shape, contiguity and finiteness. ``numpy_engine.py`` is built on it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
UInt8 = npt.NDArray[np.uint8]

N_LANES = 8


def canonical_dots(vectors: Float32, query: Float32) -> npt.NDArray[np.float64]:
    """Dot products in float64, summed in one fixed order.

    Lane j of eight sums the products of elements j, j + 8, j + 16 ...; elements after
    the last whole block of eight are summed in order in a ninth accumulator; then
    ``((l0 + l1) + (l2 + l3)) + ((l4 + l5) + (l6 + l7)) + tail``. Each product of two float32
    is exact in float64, so the order of additions alone fixes every bit.

    Parameters
    ----------
    vectors : ndarray
        float32 ``(n, d)``.
    query : ndarray
        float32 ``(d,)``.

    Returns
    -------
    ndarray
        float64 ``(n,)``.
    """
    n, d = vectors.shape
    wide = query.astype(np.float64)
    lanes = np.zeros((n, N_LANES))
    tail = np.zeros(n)
    end = d - d % N_LANES
    for j in range(0, end, N_LANES):
        lanes += vectors[:, j : j + N_LANES].astype(np.float64) * wide[j : j + N_LANES]
    for j in range(end, d):
        tail += vectors[:, j].astype(np.float64) * wide[j]
    pairs = lanes[:, 0::2] + lanes[:, 1::2]
    total: npt.NDArray[np.float64] = (
        (pairs[:, 0] + pairs[:, 1]) + (pairs[:, 2] + pairs[:, 3])
    ) + tail
    return total


def row_norms(values: Float32, norms: npt.NDArray[np.float64]) -> float:
    """Euclidean norm of each row ``(n, d)``, summed in float64, into float64 ``(n,)``.

    Returns
    -------
    float
        Largest norm, 0 where there is no row, NaN where a value is NaN.
    """
    norms[...] = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    return float(norms.max(initial=0.0))


def sign_bits(vectors: Float32, hyperplanes: Float32, signatures: UInt64) -> None:
    """Signatures of vectors: bit i of table t is ``hyperplanes[t, i] . x > 0``.

    Chen et al. 2025, eqs. 6 and 7; the paper's tuple (h_1, h_2, h_3) is bits 0, 1, 2.

    Parameters
    ----------
    vectors : ndarray
        float32 ``(n, d)``.
    hyperplanes : ndarray
        float32 ``(n_tables, k, d)``, k from 1 to 64.
    signatures : ndarray
        Output, uint64 ``(n, n_tables)``.
    """
    signatures[...] = 0
    for table, planes in enumerate(hyperplanes):
        for bit, plane in enumerate(planes):
            is_positive = canonical_dots(vectors, plane) > 0
            signatures[:, table] |= is_positive.astype(np.uint64) << np.uint64(bit)


def sort_by_signature(
    signatures: UInt64, n_bits: int, rows: Int64, scratch: Int64, counts: Int64
) -> None:
    """Rows ordered by signature, then by row.

    Parameters
    ----------
    signatures : ndarray
        uint64 ``(n,)``, each below ``2**n_bits``.
    rows : ndarray
        Output, int64 ``(n,)``.
    scratch, counts : ndarray
        int64 ``(n,)`` and ``(256,)`` work space.
    """
    rows[...] = np.argsort(signatures, kind="stable")


def mark_buckets(signatures: UInt64, rows: Int64, keys: UInt64, starts: Int64) -> int:
    """Where each bucket begins in the sorted rows (the "CSR" form).

    Parameters
    ----------
    rows : ndarray
        int64 ``(n,)`` from :func:`sort_by_signature`.
    keys : ndarray
        Output, uint64 ``(n,)``: the distinct signatures, ascending.
    starts : ndarray
        Output, int64 ``(n + 1,)``: bucket b holds ``rows[starts[b]:starts[b + 1]]``.

    Returns
    -------
    int
        Number of buckets; outputs beyond it are not written.
    """
    found, first = np.unique(signatures[rows], return_index=True)
    n_buckets = int(found.size)
    keys[:n_buckets] = found
    starts[:n_buckets] = first
    starts[n_buckets] = rows.size
    return n_buckets


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
    """Offer every row of a matrix to the N best of each query.

    The score of a row is its canonical dot product, rounded to float32; of equal scores the
    lower row is better.

    Parameters
    ----------
    matrix : ndarray
        float32 ``(n, d)``; row r is known outside as ``first_row + r``.
    queries : ndarray
        float32 ``(m, d)``.
    slacks : ndarray
        float64 ``(m,)``: bound of the rounding error of any float32 dot product of this query
        with any row of the matrix, and of its final rounding (unused here: all rows are
        scored canonically).
    excluded : ndarray
        uint8 ``(n,)``, rows to leave out are not 0; or ``(0,)`` for none.
    best_scores, best_rows : ndarray
        State, float32 and int64 ``(m, N)``: the best so far, worst first (a valid heap).
    n_filled : ndarray
        State, int64 ``(m,)``: how many of the N are there.
    """
    candidates = np.arange(matrix.shape[0], dtype=np.int64)
    if excluded.size:
        candidates = candidates[excluded == 0]
    for q, query in enumerate(queries):
        _offer(matrix, query, q, candidates, first_row, best_scores, best_rows, n_filled)


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
    """Offer some rows to the N best of query q; see :func:`scan`.

    Parameters
    ----------
    candidates : ndarray
        int64 ``(c,)``, distinct, each in ``[0, n)``, in any order.

    Returns
    -------
    int
        Candidates that were not excluded.
    """
    if excluded.size:
        candidates = candidates[excluded[candidates] == 0]
    _offer(matrix, queries[q], q, candidates, first_row, best_scores, best_rows, n_filled)
    return int(candidates.size)


def sort_answers(best_scores: Float32, best_rows: Int64, n_filled: Int64) -> None:
    """Order the answers of each query, best first, in place.

    Parameters
    ----------
    best_scores, best_rows, n_filled : ndarray
        State of :func:`scan`; entries beyond the fill become -inf and -1.
    """
    for q, filled in enumerate(n_filled):
        order = np.lexsort((best_rows[q, :filled], -best_scores[q, :filled]))
        best_scores[q, :filled] = best_scores[q, order]
        best_rows[q, :filled] = best_rows[q, order]
        best_scores[q, filled:] = -np.inf
        best_rows[q, filled:] = -1


def _offer(
    matrix: Float32,
    query: Float32,
    q: int,
    candidates: Int64,
    first_row: int,
    best_scores: Float32,
    best_rows: Int64,
    n_filled: Int64,
) -> None:
    filled = int(n_filled[q])
    scores = canonical_dots(matrix[candidates], query).astype(np.float32)
    scores = np.concatenate([best_scores[q, :filled], scores])
    rows = np.concatenate([best_rows[q, :filled], candidates + first_row])
    kept = np.lexsort((rows, -scores))[: best_rows.shape[1]][::-1]
    best_scores[q, : kept.size] = scores[kept]
    best_rows[q, : kept.size] = rows[kept]
    n_filled[q] = kept.size
