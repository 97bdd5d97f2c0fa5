"""The engine ``"numpy"``: what ``reference.py`` defines, with less work where all rows compete."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from native_hash import reference
from native_hash.reference import (
    Float32,
    Int64,
    UInt8,
    mark_buckets,
    row_norms,
    scan_candidates,
    sign_bits,
    sort_answers,
    sort_by_signature,
)

__all__ = [
    "mark_buckets",
    "row_norms",
    "scan",
    "scan_candidates",
    "sign_bits",
    "sort_answers",
    "sort_by_signature",
]


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
    """Offer every row to the N best of each query; see :func:`native_hash.reference.scan`.

    Canonical scores, ten times slower than float32 in numpy, are made only of the rows that
    float32 leaves in doubt. The answers are the same bits.
    """
    everyone = np.arange(matrix.shape[0], dtype=np.int64)
    if excluded.size:
        everyone = everyone[excluded == 0]
    none = np.empty(0, np.uint8)
    for q, query in enumerate(queries):
        # einsum, because threads of BLAS would wait busily for a while after the product.
        dots = np.einsum("nd,d->n", matrix, query)[everyone]
        worst = best_scores[q, 0] if n_filled[q] == best_scores.shape[1] else -np.inf
        rows = everyone[_in_doubt(dots, best_scores.shape[1], slacks[q], worst)]
        reference.scan_candidates(
            matrix, queries, q, rows, first_row, slacks, none, best_scores, best_rows, n_filled
        )


def _in_doubt(dots: Float32, n: int, slack: float, worst: float) -> npt.NDArray[np.bool_]:
    """Rows whose canonical score may be among the n best.

    Each lies within ``slack`` of its dot product: n rows reach the n-th best product less one
    slack, and a row that stays two below cannot.
    """
    threshold = float(worst) - slack
    if dots.size > n:
        threshold = max(threshold, float(np.partition(dots, dots.size - n)[-n]) - 2 * slack)
    in_doubt: npt.NDArray[np.bool_] = dots.astype(np.float64) >= threshold
    return in_doubt
