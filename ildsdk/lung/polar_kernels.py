"""Kernel that fills an outline given by its radius in each direction.

The twin is in ``reference/rays.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.lung.bitmap_kernels import Canvas, Words, mark_span
from ildsdk.lung.ray_kernels import Points
from native_hash.jit import ORDERED, kernel


@kernel(ORDERED)
def fill_polar(
    canvas: Canvas,
    start: tuple[float, float],
    reach_mm: Points,
    bounds: Points,
    near: npt.NDArray[np.int32],
    square: Points,
    out: Words,
) -> None:
    """Mark the cells inside a star-shaped outline.

    Parameters
    ----------
    canvas : Canvas
        The grid.
    start : tuple of float
        Row and column of the center, in cells.
    reach_mm : ndarray
        float64 ``(n_rays,)``: radius of the outline; ray ``k`` points ``k / n_rays`` of a turn
        from the columns' direction to the rows'. Precondition: 8 rays or more.
    bounds : ndarray
        float64 ``(2, n_rays + 1)`` scratch.
    near, square : ndarray
        int32 and float64 ``(n_columns,)`` scratch.
    out : ndarray
        Bitmap, overwritten.
    """
    n_rays = reach_mm.size
    per_radian = n_rays / (2 * np.pi)
    least_of_all, greatest_of_all = np.inf, 0.0
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
        least_of_all = min(least_of_all, least * least)
        greatest_of_all = max(greatest_of_all, greatest * greatest)
    out[:] = np.uint64(0)
    for i in range(canvas.n_rows):
        down = (i - start[0]) * canvas.row_mm
        first_word = i * canvas.row_words
        # Columns that may lie in the outer circle, and those that surely lie in the inner one.
        outer = _half_chord(greatest_of_all, down) / canvas.column_mm + 1.0
        inner = _half_chord(least_of_all, down) / canvas.column_mm - 1.0
        if outer < 1.0:
            continue
        first = max(int(np.ceil(start[1] - outer)), 0)
        stop = min(int(np.floor(start[1] + outer)) + 1, canvas.n_columns)
        sure = max(int(np.ceil(start[1] - inner)), 0)
        sure_stop = min(int(np.floor(start[1] + inner)) + 1, canvas.n_columns)
        if inner > 0 and sure < sure_stop:
            mark_span(out, first_word, sure, sure_stop)
        else:
            sure, sure_stop = stop, stop
        for begin, end in ((first, sure), (sure_stop, stop)):
            if begin >= end:
                continue
            squares, nears = square[begin:end], near[begin:end]
            for k in range(squares.size):
                right = ((begin + k) - start[1]) * canvas.column_mm
                squares[k] = down * down + right * right
                # The angle to 0.005 radians is enough for most cells.
                longer = max(abs(down), abs(right))
                ratio = min(abs(down), abs(right)) / max(longer, 1e-300)
                rough = ratio * (0.9724 - 0.1919 * ratio * ratio)
                rough = 0.5 * np.pi - rough if abs(down) > abs(right) else rough
                rough = np.pi - rough if right < 0.0 else rough
                rough = 2 * np.pi - rough if down < 0.0 else rough
                nears[k] = np.int32(rough * per_radian)
            for k in range(squares.size):
                ray = min(max(nears[k], 0), n_rays)
                is_inside = squares[k] <= bounds[0, ray]
                if not is_inside and squares[k] <= bounds[1, ray]:
                    right = ((begin + k) - start[1]) * canvas.column_mm
                    turn = np.arctan2(down, right) * per_radian
                    # Between two rays the outline is interpolated: no saw teeth.
                    below = np.floor(turn)
                    share = turn - below
                    one_ray = int(below) % n_rays
                    reach = reach_mm[one_ray] * (1 - share)
                    reach += reach_mm[(one_ray + 1) % n_rays] * share
                    is_inside = squares[k] <= reach * reach
                place = begin + k
                out[first_word + place // 64] |= np.uint64(is_inside) << np.uint64(place % 64)


@kernel(ORDERED)
def _half_chord(square: Any, down: Any) -> Any:
    """Half the chord that a circle of this squared radius cuts from a line; -2 where it misses."""
    rest = square - down * down
    return np.sqrt(rest) if rest >= 0.0 else -2.0
