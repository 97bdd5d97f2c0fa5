"""Numba kernels of the lung mask; each has a plain twin in ``reference.py``.

Preconditions that are not checked: arrays C-contiguous, shapes as documented, index
arrays in range. Inputs may be read-only. Scratch and outputs come from the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.jit import SCAN_FASTMATH, kernel


@kernel(SCAN_FASTMATH)
def average_on_grid(
    pixels_hu: npt.NDArray[Any],
    row_cell: npt.NDArray[np.int64],
    column_cell: npt.NDArray[np.int64],
    low_hu: float,
    high_hu: float,
    grid_hu: npt.NDArray[np.float32],
    n_samples: npt.NDArray[np.int32],
) -> None:
    """Mean of the clipped pixels that fall in each cell of a coarser grid.

    Parameters
    ----------
    pixels_hu : ndarray
        ``(n_rows, n_columns)``; NaN counts as ``low_hu``.
    row_cell, column_cell : ndarray
        int64 ``(n_rows,)`` and ``(n_columns,)``: grid row and column of each pixel.
    grid_hu : ndarray
        float32 ``(g_rows, g_columns)``, zeros on entry, means on exit.
    n_samples : ndarray
        int32 ``(g_rows, g_columns)``, zeros on entry; every cell receives a pixel.
    """
    n_rows, n_columns = pixels_hu.shape
    low = np.float32(low_hu)
    high = np.float32(high_hu)
    for i in range(n_rows):
        cell_i = row_cell[i]
        for j in range(n_columns):
            value = np.float32(pixels_hu[i, j])
            if not value >= low:
                value = low
            elif value > high:
                value = high
            cell_j = column_cell[j]
            grid_hu[cell_i, cell_j] += value
            n_samples[cell_i, cell_j] += np.int32(1)
    g_rows, g_columns = grid_hu.shape
    for i in range(g_rows):
        for j in range(g_columns):
            grid_hu[i, j] /= np.float32(n_samples[i, j])


@kernel(SCAN_FASTMATH)
def dilate_ellipse(
    mask: npt.NDArray[np.bool_],
    half_width: npt.NDArray[np.int64],
    column_gap: npt.NDArray[np.int16],
    opened: npt.NDArray[np.int32],
    out: npt.NDArray[np.bool_],
) -> None:
    """Dilate by an upright ellipse given by its half widths, in time linear in the pixels.

    Parameters
    ----------
    mask : ndarray
        bool ``(n_rows, n_columns)``.
    half_width : ndarray
        int64 ``(n,)``: half width in columns of the ellipse ``g`` rows from its center,
        for ``g`` from 0 to n - 1; not rising.
    column_gap : ndarray
        int16 ``(n_rows, n_columns)`` scratch: rows to the nearest True pixel of the column.
    opened : ndarray
        int32 ``(n_columns + 1,)`` scratch: intervals opened minus closed at a column.
    out : ndarray
        bool ``(n_rows, n_columns)``, overwritten.
    """
    n_rows, n_columns = mask.shape
    reach = half_width.shape[0]
    # Two passes over the columns in 16 bits, which the compiler turns into vector code.
    far = np.int16(reach)
    one = np.int16(1)
    none = np.int16(0)
    for j in range(n_columns):
        column_gap[0, j] = none if mask[0, j] else far
    for i in range(1, n_rows):
        for j in range(n_columns):
            gap = min(np.int16(column_gap[i - 1, j] + one), far)
            column_gap[i, j] = none if mask[i, j] else gap
    for i in range(n_rows - 2, -1, -1):
        for j in range(n_columns):
            gap = np.int16(column_gap[i + 1, j] + one)
            column_gap[i, j] = min(column_gap[i, j], gap)
    for i in range(n_rows):
        run = column_gap[i, 0]
        first = 0
        j = 1
        while j < n_columns and column_gap[i, j] == run:
            j += 1
        if j == n_columns:  # most rows outside a mask, or deep inside
            for k in range(n_columns):
                out[i, k] = run < far
            continue
        for k in range(n_columns + 1):
            opened[k] = 0
        # A run of equal gaps makes one interval.
        while True:
            if run < far:
                width = half_width[run]
                opened[max(first - width, 0)] += 1
                opened[min(j + width, n_columns)] -= 1
            if j == n_columns:
                break
            run = column_gap[i, j]
            first = j
            j += 1
            while j < n_columns and column_gap[i, j] == run:
                j += 1
        depth = 0
        for k in range(n_columns):
            depth += opened[k]
            out[i, k] = depth > 0


@kernel(SCAN_FASTMATH)
def label_components(
    mask: npt.NDArray[np.bool_],
    by_corners: bool,
    labels: npt.NDArray[np.int32],
    parent: npt.NDArray[np.int32],
) -> int:
    """Number the connected components of a mask from 1 in reading order (union-find).

    Parameters
    ----------
    mask : ndarray
        bool ``(n_rows, n_columns)``.
    by_corners : bool
        True joins the 8 neighbors, False the 4.
    labels : ndarray
        int32 ``(n_rows, n_columns)``, overwritten; 0 is background.
    parent : ndarray
        int32 ``(n_rows * n_columns // 2 + 2,)`` scratch.

    Returns
    -------
    int
        How many components.
    """
    n_rows, n_columns = mask.shape
    n_provisional = 0
    for i in range(n_rows):
        for j in range(n_columns):
            if not mask[i, j]:
                labels[i, j] = 0
                continue
            root = 0
            for which in range(4):
                if which == 0:
                    ni, nj = i, j - 1
                elif which == 1:
                    ni, nj = i - 1, j
                elif not by_corners:
                    break
                elif which == 2:
                    ni, nj = i - 1, j - 1
                else:
                    ni, nj = i - 1, j + 1
                if ni < 0 or nj < 0 or nj >= n_columns or labels[ni, nj] == 0:
                    continue
                other = labels[ni, nj]
                while parent[other] != other:
                    parent[other] = parent[parent[other]]
                    other = parent[other]
                if root == 0 or other == root:
                    root = other
                elif other < root:
                    parent[root] = other
                    root = other
                else:
                    parent[other] = root
            if root == 0:
                n_provisional += 1
                root = n_provisional
                parent[root] = root
            labels[i, j] = root
    # A root is always the smallest of its set, so numbers rise in reading order.
    n_components = 0
    for k in range(1, n_provisional + 1):
        if parent[k] == k:
            n_components += 1
            parent[k] = -n_components
        else:
            root = parent[k]
            parent[k] = parent[root]
    for i in range(n_rows):
        for j in range(n_columns):
            if labels[i, j] != 0:
                labels[i, j] = -parent[labels[i, j]]
    return n_components


@kernel(SCAN_FASTMATH)
def refine_mask(
    pixels_hu: npt.NDArray[Any],
    coarse: npt.NDArray[np.bool_],
    repaired: npt.NDArray[np.bool_],
    barred: npt.NDArray[np.bool_],
    top: npt.NDArray[np.int64],
    down: npt.NDArray[np.float32],
    left: npt.NDArray[np.int64],
    across: npt.NDArray[np.float32],
    cut_hu: float,
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
    top, left : ndarray
        int64 ``(n_rows,)`` and ``(n_columns,)``: the cell above, or left of, each pixel center,
        from 0 to the last cell.
    down, across : ndarray
        float32 ``(n_rows,)`` and ``(n_columns,)``: way from that cell to the next, 0 to 1.
    cut_hu : float
        Boundary between air and tissue.
    out : ndarray
        bool ``(n_rows, n_columns)``, overwritten.
    """
    n_rows, n_columns = pixels_hu.shape
    g_rows, g_columns = coarse.shape
    cut = np.float32(cut_hu)
    half = np.float32(0.5)
    one = np.float32(1)
    for i in range(n_rows):
        above = top[i]
        below = min(above + 1, g_rows - 1)
        near_i = above if down[i] < half else below
        for j in range(n_columns):
            before = left[j]
            after = min(before + 1, g_columns - 1)
            first = coarse[above, before]
            if (
                first == coarse[above, after]
                and first == coarse[below, before]
                and first == coarse[below, after]
            ):
                out[i, j] = first
                continue
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
        from the columns' direction to the rows'.
    out : ndarray
        bool ``(g_rows, g_columns)``, overwritten.
    """
    g_rows, g_columns = out.shape
    n_rays = reach_mm.shape[0]
    per_radian = n_rays / (2 * np.pi)
    least = reach_mm.min() ** 2
    greatest = reach_mm.max() ** 2
    for i in range(g_rows):
        down = (i - start[0]) * spacing_mm[0]
        for j in range(g_columns):
            right = (j - start[1]) * spacing_mm[1]
            square = down * down + right * right
            if square <= least or square > greatest:
                out[i, j] = square <= least
                continue
            turn = np.arctan2(down, right) * per_radian
            # Between two rays the outline is interpolated: no saw teeth.
            below = np.floor(turn)
            share = turn - below
            first = int(below) % n_rays
            second = (first + 1) % n_rays
            reach = reach_mm[first] * (1 - share) + reach_mm[second] * share
            out[i, j] = square <= reach * reach
