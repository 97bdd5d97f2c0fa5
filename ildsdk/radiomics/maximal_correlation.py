"""GLCM's maximal correlation coefficient (MCC): one eigenvalue, found by Lanczos.

MCC is the square root of the second largest eigenvalue of ``Q(i, j) = sum_k P(i, k) P(j, k)
/ (px(i) py(k) + eps)`` (pyradiomics, ``glcm``). Q is similar, up to effects of second order in
``eps``, to ``B = A A^T`` with ``A(i, k) = P(i, k) / sqrt(px(i) py(k) + eps)``: symmetric, with
largest eigenvalue 1 and eigenvector ``sqrt(px)``. So B is applied in two steps, outside
that vector, until the largest eigenvalue left has converged. A dense eigenvalue solver takes
longer than all other features together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.co_occurrence import CoOccurrence
from ildsdk.radiomics.scratch import RadiomicsScratch
from native_hash.jit import SCAN_FASTMATH, kernel

_LARGEST_BASIS = 160
_MOST_DENSE_LEVELS = 256
_MOST_RESTARTS = 20
_RESIDUAL = 1e-9
_EPSILON = 2.220446049250313e-16
# below, eps is no longer small beside px py; needs weights by distance that differ widely
_SMALL_PRODUCT = 1e-13
_BY_DEFINITION = -1.0
"""Answer of the kernel where Lanczos does not apply."""


def maximal_correlations(
    matrices: CoOccurrence, scratch: RadiomicsScratch
) -> npt.NDArray[np.float64]:
    """MCC of each matrix, NaN without a cell; 1 for a single gray level, as in pyradiomics."""
    n_matrices, n_levels = matrices.row_sums.shape
    n_basis = max(min(n_levels - 1, _LARGEST_BASIS), 1)
    found = np.empty(n_matrices)
    # Few levels: a full matrix, whose rows the processor takes many numbers at a time, is faster.
    n_dense = n_levels if n_levels <= _MOST_DENSE_LEVELS else 0
    n_sparse = 0 if n_dense else matrices.shares.shape[1]
    _maximal_correlations(
        matrices,
        scratch.take("mcc_dense", (n_dense, n_dense), np.float64),
        scratch.take("mcc_cells", n_sparse, np.float64),
        scratch.take("mcc_basis", (n_basis + 1, n_levels), np.float64),
        scratch.take("mcc_vectors", (4, n_levels), np.float64),
        scratch.take("mcc_small", (4, n_basis + 1), np.float64),
        found,
    )
    for m in np.flatnonzero(found == _BY_DEFINITION):
        found[m] = _by_definition(matrices, int(m))
    return found


def _by_definition(matrices: CoOccurrence, m: int) -> float:
    """MCC of one matrix by the dense eigenvalues of Q: slow, for any margins."""
    starts, row_sums, column_sums = (
        matrices.starts[m],
        matrices.row_sums[m],
        matrices.column_sums[m],
    )
    n_levels = row_sums.size
    rows = np.repeat(np.arange(n_levels), np.diff(starts))
    dense = np.zeros((n_levels, n_levels))
    dense[rows, matrices.columns[m, : rows.size]] = matrices.shares[m, : rows.size]
    scaled = dense / (row_sums[:, None] * column_sums[None, :] + _EPSILON)
    second = np.sort(np.linalg.eigvals(scaled @ dense.T).real)[-2]
    return float(np.sqrt(max(second, 0.0)))


@kernel(SCAN_FASTMATH)
def _apply_dense(dense: Any, vector: Any, inner: Any, out: Any) -> None:
    """``inner = A^T vector`` and ``out = A inner``."""
    n_levels = vector.size
    for j in range(n_levels):
        inner[j] = 0.0
    for i in range(n_levels):
        row = dense[i]
        value = vector[i]
        for j in range(n_levels):
            inner[j] += row[j] * value
    for i in range(n_levels):
        row = dense[i]
        total = 0.0
        for j in range(n_levels):
            total += row[j] * inner[j]
        out[i] = total


@kernel(SCAN_FASTMATH)
def _apply_sparse(starts: Any, columns: Any, cells: Any, vector: Any, inner: Any, out: Any) -> None:
    """``inner = A^T vector`` and ``out = A inner``."""
    n_levels = vector.size
    for j in range(n_levels):
        inner[j] = 0.0
    for i in range(n_levels):
        value = vector[i]
        for cell in range(starts[i], starts[i + 1]):
            inner[columns[cell]] += cells[cell] * value
    for i in range(n_levels):
        total = 0.0
        for cell in range(starts[i], starts[i + 1]):
            total += cells[cell] * inner[columns[cell]]
        out[i] = total


@kernel(SCAN_FASTMATH)
def _remove(vector: Any, direction: Any) -> None:
    """Take the part along a unit vector out."""
    dot = 0.0
    for i in range(vector.size):
        dot += vector[i] * direction[i]
    for i in range(vector.size):
        vector[i] -= dot * direction[i]


@kernel(SCAN_FASTMATH)
def _unit(vector: Any) -> Any:
    """Scale to length 1 where there is any length; returns the length."""
    square = 0.0
    for i in range(vector.size):
        square += vector[i] * vector[i]
    length = np.sqrt(square)
    if length > 0.0:
        for i in range(vector.size):
            vector[i] /= length
    return length


@kernel(SCAN_FASTMATH)
def _top_of_tridiagonal(diagonal: Any, beside: Any, n: Any, pivots: Any, vector: Any) -> Any:
    """Largest eigenvalue of a symmetric tridiagonal matrix; its unit vector to ``vector``.

    Bisection on the sign of the pivots, then inverse iteration from just above.
    """
    low = diagonal[0]
    high = diagonal[0]
    for k in range(n):
        reach = 0.0
        if k > 0:
            reach += abs(beside[k - 1])
        if k + 1 < n:
            reach += abs(beside[k])
        low = max(low, diagonal[k])
        high = max(high, diagonal[k] + reach)
    # the top lies in [low, high]; above it all pivots of (shift - T) are positive
    high += 1e-15
    for _ in range(70):
        shift = 0.5 * (low + high)
        if not low < shift < high:
            break
        is_above = True
        pivot = shift - diagonal[0]
        for k in range(n):
            if k > 0:
                pivot = shift - diagonal[k] - beside[k - 1] * beside[k - 1] / pivot
            if pivot <= 0.0:
                is_above = False
                break
        if is_above:
            high = shift
        else:
            low = shift
    shift = high + 1e-13
    pivots[0] = shift - diagonal[0]
    for k in range(1, n):
        pivots[k] = shift - diagonal[k] - beside[k - 1] * beside[k - 1] / pivots[k - 1]
    for k in range(n):
        vector[k] = 1.0
    for _ in range(3):
        for k in range(1, n):
            vector[k] += vector[k - 1] * beside[k - 1] / pivots[k - 1]
        vector[n - 1] /= pivots[n - 1]
        for k in range(n - 2, -1, -1):
            vector[k] = (vector[k] + beside[k] * vector[k + 1]) / pivots[k]
        square = 0.0
        for k in range(n):
            square += vector[k] * vector[k]
        for k in range(n):
            vector[k] /= np.sqrt(square)
    return high


@kernel(SCAN_FASTMATH)
def _second_eigenvalue_root(
    starts: Any,
    columns: Any,
    shares: Any,
    row_sums: Any,
    column_sums: Any,
    dense: Any,
    cells: Any,
    basis: Any,
    vectors: Any,
    small: Any,
) -> float:
    """Square root of Q's second largest eigenvalue; the last five are scratch."""
    n_levels = row_sums.size
    is_dense = dense.shape[0] == n_levels
    dense[:] = 0.0
    n_basis = basis.shape[0] - 1
    first = vectors[0]
    inner = vectors[1]
    ritz = vectors[2]
    image = vectors[3]
    diagonal = small[0]
    beside = small[1]
    pivots = small[2]
    weights = small[3]
    for i in range(n_levels):
        first[i] = np.sqrt(row_sums[i])
        for cell in range(starts[i], starts[i + 1]):
            margins = row_sums[i] * column_sums[columns[cell]]
            value = shares[cell] / np.sqrt(margins + _EPSILON)
            if is_dense:
                dense[i, columns[cell]] = value
            else:
                cells[cell] = value
    _unit(first)
    # any start that no eigenvector is orthogonal to will do; the same one every time
    for i in range(n_levels):
        ritz[i] = 0.25 + (i * 0.6180339887498949) % 1.0 - 1.5 * ((i * 0.7548776662466927) % 1.0)
    top = 0.0
    for _ in range(_MOST_RESTARTS):
        length = 0.0
        for _repeat in range(2):
            _remove(ritz, first)
            length = _unit(ritz)
        if length == 0.0:
            return 0.0
        basis[0] = ritz
        n = 0
        residual = 0.0
        for k in range(n_basis):
            if is_dense:
                _apply_dense(dense, basis[k], inner, image)
            else:
                _apply_sparse(starts, columns, cells, basis[k], inner, image)
            dot = 0.0
            for i in range(n_levels):
                dot += image[i] * basis[k, i]
            diagonal[k] = dot
            # twice is enough to stay orthogonal in double precision
            for _repeat in range(2):
                for m in range(k + 1, -1, -1):
                    _remove(image, basis[m] if m <= k else first)
            length = _unit(image)
            beside[k] = length
            n = k + 1
            is_last = length < 1e-13 or n == n_basis
            if is_last or n % 6 == 0:
                top = _top_of_tridiagonal(diagonal, beside, n, pivots, weights)
                residual = length * abs(weights[n - 1])
                if is_last or residual < _RESIDUAL:
                    break
            basis[k + 1] = image
        for i in range(n_levels):
            ritz[i] = 0.0
        for m in range(n):
            for i in range(n_levels):
                ritz[i] += weights[m] * basis[m, i]
        # the error of the eigenvalue is about the square of the residual over the gap
        if residual < _RESIDUAL or n_basis == n_levels - 1:
            break
    return float(np.sqrt(max(top, 0.0)))


@kernel(SCAN_FASTMATH)
def _smallest(sums: Any) -> Any:
    """Smallest margin that is not 0."""
    smallest = 1.0
    for i in range(sums.size):
        if sums[i] > 0.0:
            smallest = min(smallest, sums[i])
    return smallest


@kernel(SCAN_FASTMATH)
def _maximal_correlations(
    matrices: Any, dense: Any, cells: Any, basis: Any, vectors: Any, small: Any, out: Any
) -> None:
    """MCC of each matrix; all between the first and the last argument are scratch."""
    for m in range(out.size):
        row_sums = matrices.row_sums[m]
        column_sums = matrices.column_sums[m]
        n_levels = row_sums.size
        if matrices.starts[m, n_levels] == 0:
            out[m] = np.nan
        elif n_levels == 1:
            out[m] = 1.0
        elif _smallest(row_sums) * _smallest(column_sums) < _SMALL_PRODUCT:
            out[m] = _BY_DEFINITION
        else:
            out[m] = _second_eigenvalue_root(
                matrices.starts[m],
                matrices.columns[m],
                matrices.shares[m],
                row_sums,
                column_sums,
                dense,
                cells,
                basis,
                vectors,
                small,
            )
