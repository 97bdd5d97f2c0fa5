"""What GLRLM, GLSZM and GLDM have in common: a matrix of gray level by size.

Size is the length of a run, the area of a zone, or the number of dependent pixels. The
matrix comes as its cells that are not zero, so the cost does not know how many gray
levels there could be.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from native_hash.jit import SCAN_FASTMATH, kernel

# places in the vector that `size_features` writes
(
    GRAY_NON_UNIFORMITY,
    GRAY_NON_UNIFORMITY_NORMALIZED,
    GRAY_VARIANCE,
    HIGH_GRAY,
    LARGE,
    LARGE_HIGH_GRAY,
    LARGE_LOW_GRAY,
    LOW_GRAY,
    SIZE_NON_UNIFORMITY,
    SIZE_NON_UNIFORMITY_NORMALIZED,
    SMALL,
    SMALL_HIGH_GRAY,
    SMALL_LOW_GRAY,
    ENTROPY,
    PERCENTAGE,
    SIZE_VARIANCE,
) = range(16)
N_SIZE_FEATURES = 16


@kernel(SCAN_FASTMATH)
def size_features(
    grays: Any, sizes: Any, counts: Any, n_cells: Any, by_size: Any, out: Any
) -> None:
    """All 16 features of one matrix.

    Parameters
    ----------
    grays, sizes : ndarray
        int32 ``(>= n_cells,)``; gray level and size of each cell, both from 1. Cells of one
        gray level stand together.
    counts : ndarray
        float64 ``(>= n_cells,)``, > 0: the matrix entries (counts, or weighted counts).
    by_size : ndarray
        float64, longer than the largest size; all zero on entry and on return.
    out : ndarray
        float64 ``(16,)``; NaN where there is no cell.

    Notes
    -----
    pyradiomics, ``glrlm`` / ``glszm`` / ``gldm``; entropy adds 2^-52 inside the logarithm.
    """
    if n_cells == 0:
        out[:] = np.nan
        return
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
    for cell in range(n_cells):
        by_size[sizes[cell]] = 0.0
    out[GRAY_NON_UNIFORMITY] = by_gray_square / total
    out[GRAY_NON_UNIFORMITY_NORMALIZED] = by_gray_square / (total * total)
    out[GRAY_VARIANCE] = gray_variance / total
    out[HIGH_GRAY] = high / total
    out[LARGE] = large / total
    out[LARGE_HIGH_GRAY] = large_high / total
    out[LARGE_LOW_GRAY] = large_low / total
    out[LOW_GRAY] = low / total
    out[SIZE_NON_UNIFORMITY] = by_size_square / total
    out[SIZE_NON_UNIFORMITY_NORMALIZED] = by_size_square / (total * total)
    out[SMALL] = small / total
    out[SMALL_HIGH_GRAY] = small_high / total
    out[SMALL_LOW_GRAY] = small_low / total
    out[ENTROPY] = entropy
    out[PERCENTAGE] = total / pixels
    out[SIZE_VARIANCE] = size_variance / total
