"""Where a mask lies, and its region cut out of the picture, without holding the GIL."""

from __future__ import annotations

from typing import Any

import numpy as np

from native_hash.jit import SCAN_FASTMATH, kernel


@kernel(SCAN_FASTMATH)
def bounding_box(mask: Any, is_used: Any) -> Any:
    """``(first_row, last_row, first_column, last_column, n_pixels)`` of a mask.

    ``n_pixels`` 0: there is no box. ``is_used`` bool ``(n_columns,)`` is scratch.
    """
    n_rows, n_columns = mask.shape
    first_row = n_rows
    last_row = -1
    n_pixels = 0
    is_used[:] = False
    for row in range(n_rows):
        row_mask = mask[row]
        n_here: Any = np.int32(0)
        for column in range(n_columns):
            n_here += np.int32(1) if row_mask[column] else np.int32(0)
            is_used[column] |= row_mask[column]
        if n_here > 0:
            n_pixels += n_here
            first_row = min(first_row, row)
            last_row = row
    first_column = n_columns
    last_column = -1
    for column in range(n_columns):
        if is_used[column]:
            first_column = min(first_column, column)
            last_column = column
    return first_row, last_row, first_column, last_column, n_pixels


@kernel(SCAN_FASTMATH)
def crop(
    pixels: Any, mask: Any, first_row: Any, first_column: Any, to: Any, to_mask: Any, values: Any
) -> Any:
    """Copy the box that begins there, and its pixels in row order; ``(minimum, maximum, n_bad)``.

    ``to`` and ``to_mask`` have the size of the box, ``values`` one item more than the mask has
    pixels. ``n_bad`` of them are NaN or infinite; the extremes count only where it is 0.
    """
    height, width = to.shape
    n_values = np.uint64(0)
    for row in range(height):
        row_pixels = to[row]
        row_mask = to_mask[row]
        row_pixels[:] = pixels[first_row + row, first_column : first_column + width]
        row_mask[:] = mask[first_row + row, first_column : first_column + width]
        for column in range(width):
            # written in any case, kept where inside: cheaper than a branch
            values[n_values] = row_pixels[column]
            n_values += np.uint64(row_mask[column])
    minimum = values[0]
    maximum = values[0]
    n_bad = 0
    for k in range(n_values):
        value = values[k]
        minimum = min(minimum, value)
        maximum = max(maximum, value)
        n_bad += 0 if abs(value) < np.inf else 1
    return np.float64(minimum), np.float64(maximum), n_bad
