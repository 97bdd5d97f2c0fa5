"""Shape features (9) of the mask alone, in millimeters.

Perimeter and mesh surface are those of the marching-squares outline, whose vertices lie
halfway between a pixel inside and its neighbor outside. Definitions: pyradiomics, ``shape2D``.
The outline is made of four kinds of pieces only, so pieces are counted, not summed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.scratch import RadiomicsScratch
from native_hash.jit import SCAN_FASTMATH, kernel

# eight pixels of a row's mask; numba compares an unsigned with a signed number as floats
_ALL_IN = 0x0101010101010101


def shape2d_features(
    mask: npt.NDArray[np.bool_],
    box: tuple[int, int, int, int],
    pixel_spacing_mm: tuple[float, float],
    scratch: RadiomicsScratch,
    out: npt.NDArray[np.float64],
) -> None:
    """Write the 9 features of a mask to ``out``, float64 ``(9,)``, in order of names.

    Parameters
    ----------
    mask : ndarray
        bool ``(n_rows, n_columns)``, C-contiguous, with at least one pixel in the box.
    box : tuple of int
        First row, first column, height and width of the part of the mask that counts.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    """
    _, _, height, width = box
    # the outline crosses each half row at most once from the left and once from the right
    rim = scratch.take("rim", 4 * (2 * height + 3), np.int32).reshape(-1, 2)
    hull = scratch.take("hull", 8 * (2 * height + 3), np.int32).reshape(-1, 2)
    _shape2d(
        mask,
        box,
        pixel_spacing_mm[0],
        pixel_spacing_mm[1],
        scratch.take("shape_rows", (3, (width // 8 + 2) * 8), np.uint8),
        rim,
        hull,
        out,
    )


@kernel(SCAN_FASTMATH)
def _turns_left(a: Any, b: Any, c: Any) -> Any:
    """Twice the signed area of the triangle a, b, c of half-pixel points (row, column)."""
    return (np.int64(b[0]) - a[0]) * (np.int64(c[1]) - a[1]) - (np.int64(b[1]) - a[1]) * (
        np.int64(c[0]) - a[0]
    )


@kernel(SCAN_FASTMATH)
def _largest_distance(rim: Any, n_rows: Any, hull: Any, row_mm: Any, column_mm: Any) -> Any:
    """Largest distance of two outline vertices, which lie on their convex hull.

    ``rim[2 r]`` and ``rim[2 r + 1]`` are the leftmost and the rightmost vertex of half-row
    ``r`` (column -1: none). Distances in mm; rows and columns count half pixels.
    """
    n_hull = 0
    lower = 0
    for side in range(2):
        lower = n_hull
        for step in range(n_rows):
            row = step if side == 0 else n_rows - 1 - step
            for end in range(2):
                # going down take the left chain, coming back the right one
                point = rim[2 * row + (end if side == 0 else 1 - end)]
                if point[1] < 0:
                    continue
                while (
                    n_hull - lower >= 2
                    and _turns_left(hull[n_hull - 2], hull[n_hull - 1], point) <= 0
                ):
                    n_hull -= 1
                hull[n_hull, 0] = point[0]
                hull[n_hull, 1] = point[1]
                n_hull += 1
    largest = 0.0
    for i in range(n_hull):
        for j in range(i):
            rows = (hull[i, 0] - hull[j, 0]) * 0.5 * row_mm
            columns = (hull[i, 1] - hull[j, 1]) * 0.5 * column_mm
            largest = max(largest, rows * rows + columns * columns)
    return np.sqrt(largest)


@kernel(SCAN_FASTMATH)
def _stretches(row_mask: Any, middle: Any) -> Any:
    """``(n, sum of x, sum of x * x)`` of a row's pixels, x being their distance from the middle.

    ``row_mask`` uint8, a multiple of 8 long. Sums of whole columns first: they are exact.
    """
    words = row_mask.view(np.uint64)
    n_here: Any = 0
    columns_here: Any = 0
    squares_here: Any = 0
    for k in range(words.size):
        if words[k] == 0:
            continue
        if words[k] == np.uint64(_ALL_IN):
            first = 8 * k
            n_here += 8
            columns_here += 8 * first + 28
            squares_here += 8 * first * first + 56 * first + 140
            continue
        for column in range(8 * k, 8 * k + 8):
            inside = np.int64(row_mask[column] != 0)
            n_here += inside
            columns_here += inside * column
            squares_here += inside * column * column
    x_total = columns_here - n_here * middle
    x_square = squares_here - 2.0 * middle * columns_here + n_here * middle * middle
    return n_here, x_total, x_square


@kernel(SCAN_FASTMATH)
def _shape2d(
    mask: Any, box: Any, row_mm: Any, column_mm: Any, rows: Any, rim: Any, hull: Any, out: Any
) -> None:
    """Write the features; ``rows``, ``rim`` and ``hull`` are scratch.

    ``rows`` uint8 ``(3, a multiple of 8)``, more than one longer than the box is wide.
    """
    first_row, first_column, height, width = box
    pixels_in = mask.view(np.uint8)
    n_rows = 2 * height + 2
    for row in range(n_rows):
        for end in range(2):
            rim[2 * row + end, 0] = row
            rim[2 * row + end, 1] = -1
    n_pixels = 0
    n_full: Any = 0  # squares of four pixels that are all in, times four
    n_diagonal = 0  # pieces from a side to the next side of a square
    n_along_rows = 0  # pieces from left to right side
    n_along_columns = 0  # pieces from top to bottom side
    eighths = 0  # area inside the outline, in eighths of a pixel
    row_total = 0.0
    column_total = 0.0
    row_square = 0.0
    column_square = 0.0
    product = 0.0
    middle_row = (height - 1) * 0.5
    middle_column = (width - 1) * 0.5
    rows[:] = 0
    above = rows[0]
    below = rows[1]
    is_mixed = rows[2]
    # squares of four pixels; (row, column) is the lower right one, outside counts as 0
    for row in range(height + 1):
        above, below = below, above
        if row < height:
            row_mask = pixels_in[first_row + row, first_column : first_column + width]
            for column in range(width):
                below[column] = row_mask[column]
            n_here, x_total, x_square = _stretches(below, middle_column)
            y = row - middle_row
            n_pixels += n_here
            row_total += n_here * y
            column_total += x_total
            row_square += n_here * y * y
            column_square += x_square
            product += x_total * y
        else:
            below[:] = 0
        is_mixed[0] = above[0] | below[0]
        for square in range(1, width + 1):
            left = above[square - 1]
            is_mixed[square] = (
                (above[square] ^ left) | (below[square] ^ left) | (below[square - 1] ^ left)
            )
        words = is_mixed.view(np.uint64)
        for k in range(words.size):
            if words[k] == 0:
                continue
            for square in range(8 * k, 8 * k + 8):
                if is_mixed[square] == 0:
                    continue
                upper_left = square > 0 and above[square - 1] != 0
                lower_left = square > 0 and below[square - 1] != 0
                upper = above[square] != 0
                lower = below[square] != 0
                n_inside = (
                    np.int64(upper_left) + np.int64(lower_left) + np.int64(upper) + np.int64(lower)
                )
                n_full -= n_inside
                if n_inside == 3:
                    eighths += 7
                    n_diagonal += 1
                elif n_inside == 1:
                    eighths += 1
                    n_diagonal += 1
                elif upper_left == lower:
                    eighths += 2  # corners that touch: two separate tips
                    n_diagonal += 2
                elif upper_left == upper:
                    eighths += 4
                    n_along_rows += 1
                else:
                    eighths += 4
                    n_along_columns += 1
                if lower != upper:
                    # vertex between the pixels above and below, in half-row 2 row
                    if rim[4 * row, 1] < 0:
                        rim[4 * row, 1] = 2 * square + 1
                    rim[4 * row + 1, 1] = 2 * square + 1
                if lower != lower_left:
                    if rim[4 * row + 2, 1] < 0:
                        rim[4 * row + 2, 1] = 2 * square
                    rim[4 * row + 3, 1] = 2 * square
    # each pixel lies in four squares
    n_full += 4 * n_pixels
    eighths += 2 * n_full
    perimeter = (
        0.5 * n_diagonal * np.sqrt(row_mm * row_mm + column_mm * column_mm)
        + n_along_rows * column_mm
        + n_along_columns * row_mm
    )
    surface = 0.125 * eighths * row_mm * column_mm
    row_mean = row_total / n_pixels
    column_mean = column_total / n_pixels
    row_variance = (row_square / n_pixels - row_mean * row_mean) * row_mm * row_mm
    column_variance = (column_square / n_pixels - column_mean * column_mean) * column_mm * column_mm
    covariance = (product / n_pixels - row_mean * column_mean) * row_mm * column_mm
    half_trace = 0.5 * (row_variance + column_variance)
    half_gap = 0.5 * (row_variance - column_variance)
    major = half_trace + np.sqrt(half_gap * half_gap + covariance * covariance)
    # the product of the eigenvalues is the determinant: no difference of near-equal numbers
    minor = 0.0
    if major > 0.0:
        minor = (row_variance * column_variance - covariance * covariance) / major
        if minor < 1e-14 * major:
            minor = 0.0  # a slanting line: what is left is rounding
    out[0] = np.sqrt(minor / major) if major > 0.0 else np.nan
    out[1] = 4.0 * np.sqrt(major)
    out[2] = _largest_distance(rim, n_rows, hull, row_mm, column_mm)
    out[3] = surface
    out[4] = 4.0 * np.sqrt(minor)
    out[5] = perimeter
    out[6] = perimeter / surface
    out[7] = n_pixels * row_mm * column_mm
    out[8] = 2.0 * np.sqrt(np.pi * surface) / perimeter
