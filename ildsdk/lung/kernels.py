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
            for h in range(g_columns):
                total = totals[h]
                for j in range(column_start[h], column_start[h + 1]):
                    total += clipped[j]
                totals[h] = total
        n_here = row_start[g + 1] - row_start[g]
        for h in range(g_columns):
            totals[h] /= np.float32(n_here * (column_start[h + 1] - column_start[h]))


@kernel(ORDERED)
def count_grays(
    hu: npt.NDArray[np.float32],
    inside: npt.NDArray[np.bool_],
    low_hu: float,
    high_hu: float,
    counts: npt.NDArray[np.int64],
) -> None:
    """Histogram of the cells inside a mask, in whole HU from ``low_hu`` to ``high_hu``.

    Parameters
    ----------
    hu : ndarray
        float32 ``(g_rows, g_columns)``, finite; clipped to the range.
    inside : ndarray
        bool, same shape.
    counts : ndarray
        int64 ``(high_hu - low_hu + 1,)``, zeros on entry.
    """
    low = np.float32(low_hu)
    high = np.float32(high_hu)
    for i in range(hu.shape[0]):
        for j in range(hu.shape[1]):
            value = min(max(hu[i, j], low), high)
            counts[np.int64(np.rint(value - low))] += 1 if inside[i, j] else 0


@kernel(SCAN_FASTMATH)
def refine_mask(
    pixels_hu: npt.NDArray[Any],
    coarse: npt.NDArray[np.bool_],
    repaired: npt.NDArray[np.bool_],
    barred: npt.NDArray[np.bool_],
    top: npt.NDArray[np.int64],
    down: npt.NDArray[np.float32],
    column_start: npt.NDArray[np.int64],
    across: npt.NDArray[np.float32],
    cut_hu: float,
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
    top : ndarray
        int64 ``(n_rows,)``, not falling: the cell above each pixel center, from 0 to the last
        cell.
    column_start : ndarray
        int64 ``(g_columns + 1,)``, not falling: the pixels that have cell ``k`` to their left
        are those from entry ``k`` to before entry ``k + 1``; from 0 to ``n_columns``.
    down, across : ndarray
        float32 ``(n_rows,)`` and ``(n_columns,)``: way from that cell to the next, 0 to 1.
    cut_hu : float
        Boundary between air and tissue.
    mixed : ndarray
        int64 ``(g_columns + 1,)`` scratch.
    out : ndarray
        bool ``(n_rows, n_columns)``, overwritten.
    """
    n_rows, n_columns = pixels_hu.shape
    g_rows, g_columns = coarse.shape
    cut = np.float32(cut_hu)
    half = np.float32(0.5)
    one = np.float32(1)
    n_mixed = 0
    filled = 0
    for i in range(n_rows):
        above = top[i]
        below = min(above + 1, g_rows - 1)
        if i == 0 or above != top[i - 1]:
            # The rows between the same two rows of cells differ only where corners differ.
            n_mixed = 0
            for before in range(g_columns):
                after = min(before + 1, g_columns - 1)
                first = coarse[above, before]
                is_even = (
                    first == coarse[above, after]
                    and first == coarse[below, before]
                    and first == coarse[below, after]
                )
                for j in range(column_start[before], column_start[before + 1]):
                    out[i, j] = first
                mixed[n_mixed] = before
                n_mixed += 0 if is_even else 1
            filled = i
        else:
            out[i] = out[filled]
        near_i = above if down[i] < half else below
        for k in range(n_mixed):
            before = mixed[k]
            after = min(before + 1, g_columns - 1)
            for j in range(column_start[before], column_start[before + 1]):
                near_j = before if across[j] < half else after
                if np.float32(pixels_hu[i, j]) < cut:
                    out[i, j] = not barred[near_i, near_j]
                    continue
                upper = coarse[above, before] * (one - across[j]) + coarse[above, after] * across[j]
                lower = coarse[below, before] * (one - across[j]) + coarse[below, after] * across[j]
                share = upper * (one - down[i]) + lower * down[i]
                out[i, j] = share >= half and repaired[near_i, near_j]


@kernel(SCAN_FASTMATH)
def sample_rays(
    grid_hu: npt.NDArray[np.float32],
    aerated: npt.NDArray[np.bool_],
    bone: npt.NDArray[np.bool_],
    start: npt.NDArray[np.float64],
    steps: npt.NDArray[np.float64],
    is_lung: npt.NDArray[np.bool_],
    is_bone: npt.NDArray[np.bool_],
    sample_hu: npt.NDArray[np.float32],
) -> None:
    """Read three grids along rays from one point, nearest cell.

    Parameters
    ----------
    grid_hu, aerated, bone : ndarray
        ``(g_rows, g_columns)``.
    start : ndarray
        float64 ``(2,)``: row and column of the common start, in cells.
    steps : ndarray
        float64 ``(n_rays, 2)``: row and column added by one step, in cells.
    is_lung, is_bone, sample_hu : ndarray
        ``(n_rays, n_steps)``, zeros on entry; samples off the grid stay zero.
    """
    g_rows, g_columns = grid_hu.shape
    n_rays, n_steps = is_lung.shape
    for ray in range(n_rays):
        for step in range(n_steps):
            i = int(np.floor(start[0] + steps[ray, 0] * step + 0.5))
            j = int(np.floor(start[1] + steps[ray, 1] * step + 0.5))
            if i < 0 or j < 0 or i >= g_rows or j >= g_columns:
                break
            is_lung[ray, step] = aerated[i, j]
            is_bone[ray, step] = bone[i, j]
            sample_hu[ray, step] = grid_hu[i, j]


@kernel(SCAN_FASTMATH)
def fill_polar(
    start: npt.NDArray[np.float64],
    spacing_mm: npt.NDArray[np.float64],
    reach_mm: npt.NDArray[np.float64],
    bounds: npt.NDArray[np.float64],
    out: npt.NDArray[np.bool_],
) -> None:
    """Mark the cells inside a star-shaped outline.

    Parameters
    ----------
    start : ndarray
        float64 ``(2,)``: row and column of the center, in cells.
    spacing_mm : ndarray
        float64 ``(2,)``: row and column spacing.
    reach_mm : ndarray
        float64 ``(n_rays,)``: radius of the outline; ray ``k`` points ``k / n_rays`` of a turn
        from the columns' direction to the rows'. Precondition: 8 rays or more.
    bounds : ndarray
        float64 ``(2, n_rays + 1)`` scratch.
    out : ndarray
        bool ``(g_rows, g_columns)``, overwritten.
    """
    g_rows, g_columns = out.shape
    n_rays = reach_mm.shape[0]
    per_radian = n_rays / (2 * np.pi)
    least_of_all = reach_mm.min() ** 2
    greatest_of_all = reach_mm.max() ** 2
    # Squared radii that no outline between the rays around undercuts, or exceeds.
    for k in range(n_rays + 1):
        least = reach_mm[k % n_rays]
        greatest = least
        for step in range(-1, 3):
            reach = reach_mm[(k + step) % n_rays]
            least = min(least, reach)
            greatest = max(greatest, reach)
        bounds[0, k] = least * least * (1 - 1e-9)
        bounds[1, k] = greatest * greatest * (1 + 1e-9)
    for i in range(g_rows):
        down = (i - start[0]) * spacing_mm[0]
        for j in range(g_columns):
            right = (j - start[1]) * spacing_mm[1]
            square = down * down + right * right
            if square <= least_of_all or square > greatest_of_all:
                out[i, j] = square <= least_of_all
                continue
            # The angle to 0.005 radians is enough for most cells.
            longer = max(abs(down), abs(right))
            ratio = min(abs(down), abs(right)) / longer if longer > 0.0 else 0.0
            rough = ratio * (0.9724 - 0.1919 * ratio * ratio)
            rough = 0.5 * np.pi - rough if abs(down) > abs(right) else rough
            rough = np.pi - rough if right < 0.0 else rough
            rough = 2 * np.pi - rough if down < 0.0 else rough
            near = min(max(int(rough * per_radian), 0), n_rays)
            if square <= bounds[0, near] or square > bounds[1, near]:
                out[i, j] = square <= bounds[0, near]
                continue
            turn = np.arctan2(down, right) * per_radian
            # Between two rays the outline is interpolated: no saw teeth.
            below = np.floor(turn)
            share = turn - below
            first = int(below) % n_rays
            second = (first + 1) % n_rays
            reach = reach_mm[first] * (1 - share) + reach_mm[second] * share
            out[i, j] = square <= reach * reach
