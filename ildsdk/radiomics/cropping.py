"""Where a mask lies, and what numbers its pixels are, without holding the GIL."""

from __future__ import annotations

from typing import Any

import numpy as np

from native_hash.jit import SCAN_FASTMATH, kernel

_LARGEST_WHOLE = 32767
_NONE = 2**31 - 1


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
def survey(pixels: Any, mask: Any, box: Any, values: Any) -> Any:
    """``(minimum, maximum, n_bad, is_whole)`` of the pixels of a mask inside its box.

    ``box``: first row, first column, height, width. ``is_whole``: all are whole numbers of 16 bits.
    Where not, ``values``, one item longer than the mask has pixels, gets them in row order;
    ``n_bad`` of them are NaN or infinite, and the extremes count only where it is 0.
    """
    first_row, first_column, height, width = box
    low: Any = np.int32(_NONE)
    high: Any = np.int32(-_NONE)
    is_odd: Any = np.int32(0)
    for row in range(first_row, first_row + height):
        row_pixels = pixels[row, first_column : first_column + width]
        row_mask = mask[row, first_column : first_column + width]
        for column in range(width):
            # whole numbers have a minimum that the compiler takes several at a time for
            value = row_pixels[column]
            number = np.int32(value if abs(value) <= _LARGEST_WHOLE else 0)
            is_inside = row_mask[column]
            low = min(low, number if is_inside else np.int32(_NONE))
            high = max(high, number if is_inside else np.int32(-_NONE))
            is_odd = max(is_odd, np.int32(is_inside & (number != value)))
    if is_odd == 0:
        return np.float64(low), np.float64(high), 0, True
    n_values = np.uint64(0)
    for row in range(first_row, first_row + height):
        row_pixels = pixels[row, first_column : first_column + width]
        row_mask = mask[row, first_column : first_column + width]
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
    return np.float64(minimum), np.float64(maximum), n_bad, False
