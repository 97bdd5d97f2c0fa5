"""What GLRLM, GLSZM and GLDM have in common: a matrix of gray level by size.

Size is the length of a run, the area of a zone, or the number of dependent pixels. Matrices are
kept as their cells that are not zero, so the cost does not know how many gray levels there
could be.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.scratch import RadiomicsScratch
from native_hash.jit import SCAN_FASTMATH, kernel

# places in the vector that `_features` writes: the order of pyradiomics' names for zones
(
    _GRAY_NON_UNIFORMITY,
    _GRAY_NON_UNIFORMITY_NORMALIZED,
    _GRAY_VARIANCE,
    _HIGH_GRAY,
    _LARGE,
    _LARGE_HIGH_GRAY,
    _LARGE_LOW_GRAY,
    _LOW_GRAY,
    _SIZE_NON_UNIFORMITY,
    _SIZE_NON_UNIFORMITY_NORMALIZED,
    _SMALL,
    _SMALL_HIGH_GRAY,
    _SMALL_LOW_GRAY,
    _ENTROPY,
    _PERCENTAGE,
    _SIZE_VARIANCE,
) = range(16)

# the same features in the order of its names for runs and for dependence
GLSZM_ORDER = np.arange(16)
GLRLM_ORDER = np.array(
    [
        _GRAY_NON_UNIFORMITY,
        _GRAY_NON_UNIFORMITY_NORMALIZED,
        _GRAY_VARIANCE,
        _HIGH_GRAY,
        _LARGE,
        _LARGE_HIGH_GRAY,
        _LARGE_LOW_GRAY,
        _LOW_GRAY,
        _ENTROPY,
        _SIZE_NON_UNIFORMITY,
        _SIZE_NON_UNIFORMITY_NORMALIZED,
        _PERCENTAGE,
        _SIZE_VARIANCE,
        _SMALL,
        _SMALL_HIGH_GRAY,
        _SMALL_LOW_GRAY,
    ]
)
GLDM_ORDER = np.array(
    [
        _ENTROPY,
        _SIZE_NON_UNIFORMITY,
        _SIZE_NON_UNIFORMITY_NORMALIZED,
        _SIZE_VARIANCE,
        _GRAY_NON_UNIFORMITY,
        _GRAY_VARIANCE,
        _HIGH_GRAY,
        _LARGE,
        _LARGE_HIGH_GRAY,
        _LARGE_LOW_GRAY,
        _LOW_GRAY,
        _SMALL,
        _SMALL_HIGH_GRAY,
        _SMALL_LOW_GRAY,
    ]
)


class SizeMatrices(NamedTuple):
    """Cells of one or more matrices of gray level by size.

    Attributes
    ----------
    grays, sizes : ndarray
        int32 ``(n_matrices, most cells)``: gray level and size of each cell, both from 1. Cells of
        one gray level stand together. A level has no more sizes than pixels.
    counts : ndarray
        float64, same shape, > 0: the matrix entries (counts, or weighted counts).
    n_cells : ndarray
        int64 ``(n_matrices,)``: how many cells each matrix has.
    """

    grays: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int32]
    counts: npt.NDArray[np.float64]
    n_cells: npt.NDArray[np.int64]


def size_matrices(
    name: str, n_matrices: int, n_cells: int, scratch: RadiomicsScratch
) -> SizeMatrices:
    """Room for so many matrices of at most so many cells, to be filled by a kernel."""
    shape = (n_matrices, n_cells)
    return SizeMatrices(
        grays=scratch.take(f"{name}_grays", shape, np.int32),
        sizes=scratch.take(f"{name}_sizes", shape, np.int32),
        counts=scratch.take(f"{name}_counts", shape, np.float64),
        n_cells=np.zeros(n_matrices, dtype=np.int64),
    )


def size_features(
    matrices: SizeMatrices,
    largest_size: int,
    order: npt.NDArray[np.int64],
    scratch: RadiomicsScratch,
    out: npt.NDArray[np.float64],
) -> bool:
    """Write the features in the given order, their mean over the matrices that have cells.

    Returns whether there is one; without, the features are NaN.
    """
    by_size = scratch.take("by_size", largest_size + 1, np.float64)
    return bool(_mean_features(matrices, order, by_size, out))


@kernel(SCAN_FASTMATH)
def _features(grays: Any, sizes: Any, counts: Any, n_cells: Any, by_size: Any, out: Any) -> None:
    """Features of one matrix that has a cell; ``by_size`` is scratch.

    Definitions: pyradiomics, ``glrlm``, ``glszm``, ``gldm``; entropy adds 2^-52 inside the
    logarithm.
    """
    for cell in range(n_cells):
        by_size[sizes[cell]] = 0.0
    total = 0.0
    pixels = 0.0
    gray_total = 0.0
    for cell in range(n_cells):
        total += counts[cell]
        pixels += counts[cell] * sizes[cell]
        gray_total += counts[cell] * grays[cell]
        by_size[sizes[cell]] += counts[cell]
    gray_mean = gray_total / total
    size_mean = pixels / total
    by_gray_square = 0.0
    by_size_square = 0.0
    gray_variance = 0.0
    size_variance = 0.0
    low = 0.0
    high = 0.0
    small = 0.0
    large = 0.0
    small_low = 0.0
    small_high = 0.0
    large_low = 0.0
    large_high = 0.0
    entropy = 0.0
    of_gray = 0.0
    for cell in range(n_cells):
        count = counts[cell]
        gray = np.float64(grays[cell])
        size = np.float64(sizes[cell])
        gray_square = gray * gray
        size_square = size * size
        of_size = by_size[sizes[cell]]
        by_size_square += count * of_size
        of_gray += count
        if cell + 1 == n_cells or grays[cell + 1] != grays[cell]:
            by_gray_square += of_gray * of_gray
            of_gray = 0.0
        gray_variance += count * (gray - gray_mean) * (gray - gray_mean)
        size_variance += count * (size - size_mean) * (size - size_mean)
        low += count / gray_square
        high += count * gray_square
        small += count / size_square
        large += count * size_square
        small_low += count / (gray_square * size_square)
        small_high += count * gray_square / size_square
        large_low += count * size_square / gray_square
        large_high += count * gray_square * size_square
        share = count / total
        entropy -= share * np.log2(share + 2.220446049250313e-16)
    out[_GRAY_NON_UNIFORMITY] = by_gray_square / total
    out[_GRAY_NON_UNIFORMITY_NORMALIZED] = by_gray_square / (total * total)
    out[_GRAY_VARIANCE] = gray_variance / total
    out[_HIGH_GRAY] = high / total
    out[_LARGE] = large / total
    out[_LARGE_HIGH_GRAY] = large_high / total
    out[_LARGE_LOW_GRAY] = large_low / total
    out[_LOW_GRAY] = low / total
    out[_SIZE_NON_UNIFORMITY] = by_size_square / total
    out[_SIZE_NON_UNIFORMITY_NORMALIZED] = by_size_square / (total * total)
    out[_SMALL] = small / total
    out[_SMALL_HIGH_GRAY] = small_high / total
    out[_SMALL_LOW_GRAY] = small_low / total
    out[_ENTROPY] = entropy
    out[_PERCENTAGE] = total / pixels
    out[_SIZE_VARIANCE] = size_variance / total


@kernel(SCAN_FASTMATH)
def _mean_features(matrices: Any, order: Any, by_size: Any, out: Any) -> int:
    """Mean over the matrices that have cells; their number."""
    features = np.empty(16)
    n_found = 0
    out[:] = 0.0
    for m in range(matrices.n_cells.size):
        n_cells = matrices.n_cells[m]
        if n_cells > 0:
            n_found += 1
            _features(
                matrices.grays[m], matrices.sizes[m], matrices.counts[m], n_cells, by_size, features
            )
            for k in range(order.size):
                out[k] += features[order[k]]
    for k in range(order.size):
        out[k] = out[k] / n_found if n_found > 0 else np.nan
    return n_found
