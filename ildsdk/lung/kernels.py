"""Kernels between pixels and the working grid; the twins are in ``reference/grid.py``.

Preconditions that are not checked: arrays C-contiguous, shapes as documented. Inputs may be
read-only. Scratch and outputs come from the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.lung.bitmap_kernels import Canvas, Words, lowest_place
from native_hash.jit import ORDERED, kernel

LOW_HU, HIGH_HU = -1024.0, 1500.0


@kernel(ORDERED)
def _cell_start(n_pixels: Any, n_cells: Any, cell: Any) -> Any:
    """First pixel of a cell: a pixel belongs to the cell its center lies in, or begins."""
    return -((n_cells - 2 * n_pixels * cell) // (2 * n_cells))


@kernel(ORDERED)
def average_on_grid(
    pixels_hu: npt.NDArray[Any],
    column_start: npt.NDArray[np.int64],
    clipped: npt.NDArray[np.float32],
    grid_hu: npt.NDArray[np.float32],
) -> None:
    """Mean of the pixels that fall in each cell of a coarser grid, clipped to [-1024, 1500] HU.

    The grid divides the image evenly: a flipped slice gives the flipped grid. Sums run in reading
    order, in float32.

    Parameters
    ----------
    pixels_hu : ndarray
        ``(n_rows, n_columns)``; NaN counts as -1024 HU.
    column_start : ndarray
        int64 ``(g_columns + 1,)`` scratch.
    clipped : ndarray
        float32 ``(n_columns + 1,)`` scratch.
    grid_hu : ndarray
        float32 ``(g_rows, g_columns)``, overwritten; no more cells than pixels either way.
    """
    n_rows, n_columns = pixels_hu.shape
    g_rows, g_columns = grid_hu.shape
    low, high = np.float32(LOW_HU), np.float32(HIGH_HU)
    for h in range(g_columns + 1):
        column_start[h] = _cell_start(n_columns, g_columns, h)
    starts, stops = column_start[:-1], column_start[1:]
    # Cells take this many pixels of a row, or one more.
    least = n_columns // g_columns
    clipped[n_columns] = np.float32(0)
    inner = clipped[:n_columns]
    for g in range(g_rows):
        totals = grid_hu[g]
        totals[:] = np.float32(0)
        first, stop = _cell_start(n_rows, g_rows, g), _cell_start(n_rows, g_rows, g + 1)
        for i in range(first, stop):
            pixels = pixels_hu[i]
            for j in range(n_columns):
                value = np.float32(pixels[j])
                value = value if value >= low else low
                inner[j] = high if value > high else value
            _add_row(clipped, starts, stops, least, totals)
        for h in range(g_columns):
            totals[h] /= np.float32((stop - first) * (stops[h] - starts[h]))


@kernel(ORDERED)
def _add_row(clipped: Any, starts: Any, stops: Any, least: Any, totals: Any) -> None:
    """Add a row of pixels to its cells, one by one from left to right.

    The usual numbers have loops without a branch in them: minus zero changes no sum.
    """
    none = np.float32(-0.0)
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    if least == 2:
        for h in range(totals.size):
            place = np.uint64(starts[h])
            total = totals[h] + clipped[place] + clipped[place + one]
            more = clipped[place + two]
            totals[h] = total + (more if stops[h] - starts[h] > 2 else none)
    elif least == 3:
        for h in range(totals.size):
            place = np.uint64(starts[h])
            total = totals[h] + clipped[place] + clipped[place + one] + clipped[place + two]
            more = clipped[place + three]
            totals[h] = total + (more if stops[h] - starts[h] > 3 else none)
    else:
        for h in range(totals.size):
            total = totals[h]
            place = np.uint64(starts[h])
            stop = np.uint64(stops[h])
            while place < stop:
                total += clipped[place]
                place += one
            totals[h] = total


@kernel(ORDERED)
def _cells_before(
    n_pixels: Any, n_cells: Any, offset: Any, n_held: Any, starts: Any, shares: Any
) -> None:
    """Way from the cell at or before each pixel's center to the next; first pixel of each cell.

    Of the ``n_cells`` cells only ``n_held`` from ``offset`` on are there; pixels beyond are held
    to the outermost.
    """
    scale = n_cells / n_pixels
    cell = 0
    starts[0] = 0
    for pixel in range(n_pixels):
        position = (pixel + 0.5) * scale - 0.5 - offset
        held = min(max(position, 0.0), n_held - 1.0)
        own = int(held)
        shares[pixel] = held - own
        while cell < own:
            cell += 1
            starts[cell] = pixel
    while cell < n_held:
        cell += 1
        starts[cell] = n_pixels


@kernel(ORDERED)
def _share(corners: Any, across: Any, down: Any) -> Any:
    """A mask of four cells interpolated between them: float32, 0 to 1."""
    upper_left, upper_right, lower_left, lower_right = corners
    one = np.float32(1)
    upper = upper_left * (one - across) + upper_right * across
    lower = lower_left * (one - across) + lower_right * across
    return upper * (one - down) + lower * down


@kernel(ORDERED)
def refine_mask(
    pixels_hu: npt.NDArray[Any],
    canvas: Canvas,
    coarse: Words,
    repaired: Words,
    barred: Words,
    whole: tuple[int, int],
    offset: tuple[int, int],
    cut_hu: float,
    row_start: npt.NDArray[np.int64],
    down: npt.NDArray[np.float32],
    column_start: npt.NDArray[np.int64],
    across: npt.NDArray[np.float32],
    out: npt.NDArray[np.bool_],
) -> int:
    """Bring a coarse mask to the pixels; on its border the pixels themselves decide.

    The coarse mask is interpolated to a share between 0 and 1. Where it is 1 the pixel is
    inside, where 0 outside. Between, a pixel below the cut is inside (unless the nearest cell
    is barred), and one above it is inside if the share is at least one half and
    the nearest cell was repaired, so that its HU prove nothing.

    Parameters
    ----------
    pixels_hu : ndarray
        ``(n_rows, n_columns)``, HU.
    canvas : Canvas
        Of the bitmaps.
    coarse, repaired, barred : ndarray
        Bitmaps: the mask; its cells that are not air; cells never inside.
    whole, offset : tuple of int
        Rows and columns of the working grid, and where on it the bitmaps begin.
    cut_hu : float
        Boundary between air and tissue.
    row_start, column_start : ndarray
        int64 ``(g_rows + 1,)`` and ``(g_columns + 1,)`` scratch.
    down, across : ndarray
        float32 ``(n_rows,)`` and ``(n_columns,)`` scratch.
    out : ndarray
        bool ``(n_rows, n_columns)``, overwritten.

    Returns
    -------
    int
        Pixels of the mask.
    """
    n_rows, n_columns = pixels_hu.shape
    g_rows, g_columns, row_words = canvas.n_rows, canvas.n_columns, canvas.row_words
    _cells_before(n_rows, whole[0], offset[0], g_rows, row_start, down)
    _cells_before(n_columns, whole[1], offset[1], g_columns, column_start, across)
    cut, half = np.float32(cut_hu), np.float32(0.5)
    one = np.uint64(1)
    n_inside = 0
    for above in range(g_rows):
        first_row, stop_row = row_start[above], row_start[above + 1]
        if first_row == stop_row:
            continue
        for i in range(first_row, stop_row):
            out[i] = False
        below = min(above + 1, g_rows - 1)
        upper_start, lower_start = above * row_words, below * row_words
        for k in range((g_columns + 63) // 64):
            upper, lower = coarse[upper_start + k], coarse[lower_start + k]
            # The cell to the right of each; the last column has itself there.
            is_last = 64 * k + 64 >= g_columns
            next_upper, next_lower = upper >> one, lower >> one
            if is_last:
                end = np.uint64(g_columns - 1 - 64 * k)
                next_upper |= upper & (one << end)
                next_lower |= lower & (one << end)
            else:
                next_upper |= coarse[upper_start + k + 1] << np.uint64(63)
                next_lower |= coarse[lower_start + k + 1] << np.uint64(63)
            mixed = (upper ^ next_upper) | (upper ^ lower) | (upper ^ next_lower)
            # Pixels between four equal cells are as these are.
            whole_cells = upper & ~mixed
            while whole_cells != np.uint64(0):
                begin = lowest_place(whole_cells)
                rest = ~(whole_cells >> np.uint64(begin))
                size = lowest_place(rest) if rest != np.uint64(0) else 64
                first, stop = column_start[64 * k + begin], column_start[64 * k + begin + size]
                for i in range(first_row, stop_row):
                    out[i, first:stop] = True
                n_inside += (stop - first) * (stop_row - first_row)
                if begin + size >= 64:
                    break
                whole_cells &= ~np.uint64(0) << np.uint64(begin + size)
            while mixed != np.uint64(0):
                before = 64 * k + lowest_place(mixed)
                mixed &= mixed - one
                after = min(before + 1, g_columns - 1)
                corners = (
                    _cell(coarse, upper_start, before),
                    _cell(coarse, upper_start, after),
                    _cell(coarse, lower_start, before),
                    _cell(coarse, lower_start, after),
                )
                for i in range(first_row, stop_row):
                    row, pixels = out[i], pixels_hu[i]
                    near_start = upper_start if down[i] < half else lower_start
                    for j in range(column_start[before], column_start[before + 1]):
                        near = before if across[j] < half else after
                        is_air = np.float32(pixels[j]) < cut
                        share = _share(corners, across[j], down[i])
                        # no branch: along a border it would be a coin toss
                        is_inside = (is_air & (not _cell(barred, near_start, near))) | (
                            (not is_air) & (share >= half) & _cell(repaired, near_start, near)
                        )
                        row[j] = is_inside
                        n_inside += is_inside
    return n_inside


@kernel(ORDERED)
def _cell(words: Any, start: Any, column: Any) -> Any:
    """Whether a cell of the row that begins at a word is set."""
    return ((words[start + column // 64] >> np.uint64(column % 64)) & np.uint64(1)) != np.uint64(0)
