"""Numba kernels of the lung mask; each has a plain twin in ``reference.py``.

Preconditions that are not checked: arrays C-contiguous, shapes as documented, index
arrays in range. Inputs may be read-only. Scratch and outputs come from the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.jit import ORDERED, SCAN_FASTMATH, kernel


@kernel(ORDERED)
def average_on_grid(
    pixels_hu: npt.NDArray[Any],
    row_start: npt.NDArray[np.int64],
    column_start: npt.NDArray[np.int64],
    low_hu: float,
    high_hu: float,
    clipped: npt.NDArray[np.float32],
    grid_hu: npt.NDArray[np.float32],
) -> None:
    """Mean of the clipped pixels that fall in each cell of a coarser grid.

    Sums run in reading order, in float32.

    Parameters
    ----------
    pixels_hu : ndarray
        ``(n_rows, n_columns)``; NaN counts as ``low_hu``.
    row_start, column_start : ndarray
        int64 ``(g_rows + 1,)`` and ``(g_columns + 1,)``, rising: cell ``k`` has the pixels
        from entry ``k`` to before entry ``k + 1``.
    clipped : ndarray
        float32 ``(n_columns,)`` scratch.
    grid_hu : ndarray
        float32 ``(g_rows, g_columns)``, overwritten.
    """
    n_columns = pixels_hu.shape[1]
    g_rows, g_columns = grid_hu.shape
    low = np.float32(low_hu)
    high = np.float32(high_hu)
    for g in range(g_rows):
        totals = grid_hu[g]
        totals[:] = np.float32(0)
        for i in range(row_start[g], row_start[g + 1]):
            pixels = pixels_hu[i]
            for j in range(n_columns):
                value = np.float32(pixels[j])
                value = value if value >= low else low
                clipped[j] = high if value > high else value
            place = np.uint64(0)  # numba asks of a signed place whether it counts from the end
            for h in range(g_columns):
                total = totals[h]
                stop = np.uint64(column_start[h + 1])
                while place < stop:
                    total += clipped[place]
                    place += np.uint64(1)
                totals[h] = total
        n_here = row_start[g + 1] - row_start[g]
        for h in range(g_columns):
            totals[h] /= np.float32(n_here * (column_start[h + 1] - column_start[h]))


@kernel(SCAN_FASTMATH)
def refine_mask(
    pixels_hu: npt.NDArray[Any],
    coarse: npt.NDArray[np.bool_],
    repaired: npt.NDArray[np.bool_],
    barred: npt.NDArray[np.bool_],
    row_start: npt.NDArray[np.int64],
    down: npt.NDArray[np.float32],
    column_start: npt.NDArray[np.int64],
    left: npt.NDArray[np.uint32],
    across: npt.NDArray[np.float32],
    cut_hu: float,
    is_even: npt.NDArray[np.bool_],
    mixed: npt.NDArray[np.int64],
    out: npt.NDArray[np.bool_],
) -> None:
    """Bring a coarse mask to the pixels; on its border the pixels themselves decide.

    The coarse mask is interpolated to a share between 0 and 1. Where it is 1 the pixel is
    inside, where 0 outside. Between, a pixel below the cut is inside (unless the nearest cell
    is barred), and one above it is inside if the share is at least one half and
    the nearest cell was repaired, so that its HU prove nothing.

    Parameters
    ----------
    pixels_hu : ndarray
        ``(n_rows, n_columns)``, HU.
    coarse, repaired, barred : ndarray
        bool ``(g_rows, g_columns)``: the mask; its cells that are not air; cells never inside.
    row_start, column_start : ndarray
        int64 ``(g_rows + 1,)`` and ``(g_columns + 1,)``, not falling, from 0 to the number of
        pixels: cell ``k`` is the one above (or left of) the centers of the pixels from entry
        ``k`` to before entry ``k + 1``.
    down, across : ndarray
        float32 ``(n_rows,)`` and ``(n_columns,)``: way from that cell to the next, 0 to 1.
    left : ndarray
        uint32 ``(n_columns,)``: the cell left of each pixel, as ``column_start`` says.
    cut_hu : float
        Boundary between air and tissue.
    is_even, mixed : ndarray
        bool and int64 ``(g_columns,)`` scratch.
    out : ndarray
        bool ``(n_rows, n_columns)``, overwritten.
    """
    n_columns = pixels_hu.shape[1]
    g_rows, g_columns = coarse.shape
    cut = np.float32(cut_hu)
    half = np.float32(0.5)
    one = np.float32(1)
    for above in range(g_rows):
        first_row = row_start[above]
        stop_row = row_start[above + 1]
        if first_row == stop_row:
            continue
        below = min(above + 1, g_rows - 1)
        upper_cells = coarse[above]
        lower_cells = coarse[below]
        row = out[first_row]
        for j in range(n_columns):
            row[j] = upper_cells[left[j]]
        for i in range(first_row + 1, stop_row):
            out[i] = row
        # These rows of pixels differ only where the four cells around do.
        for k in range(g_columns - 1):
            is_even[k] = (
                (upper_cells[k] == upper_cells[k + 1])
                & (upper_cells[k] == lower_cells[k])
                & (upper_cells[k] == lower_cells[k + 1])
            )
        is_even[g_columns - 1] = upper_cells[g_columns - 1] == lower_cells[g_columns - 1]
        n_mixed = np.uint64(0)
        for k in range(g_columns):
            mixed[n_mixed] = k
            n_mixed += np.uint64(not is_even[k])
        for i in range(first_row, stop_row):
            row = out[i]
            pixels = pixels_hu[i]
            near_row = above if down[i] < half else below
            for k in range(n_mixed):
                before = mixed[k]
                after = min(before + 1, g_columns - 1)
                for j in range(column_start[before], column_start[before + 1]):
                    near_column = before if across[j] < half else after
                    is_air = np.float32(pixels[j]) < cut
                    upper = upper_cells[before] * (one - across[j]) + upper_cells[after] * across[j]
                    lower = lower_cells[before] * (one - across[j]) + lower_cells[after] * across[j]
                    share = upper * (one - down[i]) + lower * down[i]
                    # no branch: along a border it would be a coin toss
                    row[j] = (is_air & (not barred[near_row, near_column])) | (
                        (not is_air) & (share >= half) & repaired[near_row, near_column]
                    )
