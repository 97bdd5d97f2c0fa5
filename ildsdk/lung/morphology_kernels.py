"""Kernel of binary morphology: 64 pixels of a row in one machine word.

Dilating by an ellipse is a sum of rows, each widened by the ellipse's half width at that
distance. The widest is done first and the others join on the way out, so every row is widened one
pixel at a time and never twice; a pass handles 64 pixels per instruction and lane.

Preconditions that are not checked: as in ``kernels.py``. The twin is in ``reference.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.jit import ORDERED, kernel

DILATE, ERODE, OPEN, CLOSE = range(4)


@kernel(ORDERED)
def _half_widths(radius_mm: Any, row_mm: Any, column_mm: Any, half_width: Any) -> None:
    """Half width in columns of the ellipse ``g`` rows from its center; not rising."""
    for gap in range(half_width.size):
        height_mm = gap * row_mm
        square = max(radius_mm * radius_mm - height_mm * height_mm, 0.0)
        half_width[gap] = np.int64(np.sqrt(square) / column_mm + 1e-6)


@kernel(ORDERED)
def _pack(mask: Any, is_inverted: Any, top: Any, first_word: Any, words: Any) -> None:
    """Bits of a mask, column ``64 k + b`` to bit ``b`` of word ``first_word + k``."""
    n_rows, n_columns = mask.shape
    for i in range(n_rows):
        row = mask[i]
        for start in range(0, n_columns, 64):
            # a slice, whose places cannot be negative: the loop becomes vector code
            part = row[start : min(start + 64, n_columns)]
            word = np.uint64(0)
            for bit in range(part.size):
                word |= np.uint64(part[bit] != is_inverted) << np.uint64(bit)
            words[first_word + start // 64, top + i] = word


@kernel(ORDERED)
def _unpack(words: Any, is_inverted: Any, top: Any, first_word: Any, out: Any) -> None:
    """Inverse of :func:`_pack`."""
    n_rows, n_columns = out.shape
    one = np.uint64(1)
    for i in range(n_rows):
        row = out[i]
        for start in range(0, n_columns, 64):
            part = row[start : min(start + 64, n_columns)]
            word = words[first_word + start // 64, top + i]
            word = ~word if is_inverted else word
            for bit in range(part.size):
                part[bit] = (word >> np.uint64(bit)) & one


@kernel(ORDERED)
def _dilate(source: Any, half_width: Any, one: Any, other: Any) -> Any:
    """Dilate packed rows; the answer is one of the two scratch arrays.

    First and last word of each array are 0 and stay 0: they are the way out of the image.
    """
    n_words, n_rows = source.shape
    up = np.uint64(1)
    carry = np.uint64(63)
    n_gaps = half_width.size
    result = one
    spare = other
    result[:] = source
    for gap in range(1, n_gaps + 1):
        narrower = half_width[gap] if gap < n_gaps else 0
        for _ in range(half_width[gap - 1] - narrower):
            for k in range(1, n_words - 1):
                before = result[k - 1]
                here = result[k]
                after = result[k + 1]
                widened = spare[k]
                for i in range(n_rows):
                    word = here[i]
                    widened[i] = (
                        word
                        | (word << up)
                        | (word >> up)
                        | (before[i] >> carry)
                        | (after[i] << carry)
                    )
            result, spare = spare, result
        if gap == n_gaps or gap >= n_rows:
            continue
        for k in range(1, n_words - 1):
            rows = source[k]
            joined = result[k]
            for i in range(n_rows - gap):
                joined[i] |= rows[i + gap]
            for i in range(gap, n_rows):
                joined[i] |= rows[i - gap]
    return result


@kernel(ORDERED)
def _invert(words: Any, top: Any, bottom: Any, last_bits: Any, to: Any) -> None:
    """Complement of the rows from ``top`` to ``bottom``; ``last_bits`` of the last word count."""
    n_words = words.shape[0]
    for k in range(1, n_words - 1):
        used = last_bits if k == n_words - 2 else ~np.uint64(0)
        for i in range(top, bottom):
            to[k, i] = ~words[k, i] & used


@kernel(ORDERED)
def transform(
    mask: npt.NDArray[np.bool_],
    operation: int,
    radius_mm: float,
    row_mm: float,
    column_mm: float,
    pad: tuple[int, int],
    half_width: npt.NDArray[np.int64],
    words: npt.NDArray[np.uint64],
    out: npt.NDArray[np.bool_],
) -> None:
    """Dilate, erode, open or close a mask by a circle in mm.

    Parameters
    ----------
    mask : ndarray
        bool ``(n_rows, n_columns)``.
    operation : int
        ``DILATE``, ``ERODE``, ``OPEN`` or ``CLOSE``. What lies outside the image counts as
        background for a dilation and as foreground for an erosion; a closing dilates beyond
        the image before it erodes.
    radius_mm, row_mm, column_mm : float
        Radius and pixel spacing.
    pad : tuple of int
        Rows and words of room on each side: ``CLOSE`` needs as many as the ellipse reaches,
        the others (0, 0).
    half_width : ndarray
        int64 ``(n,)`` scratch; ``n - 1`` rows is how far the ellipse reaches.
    words : ndarray
        uint64 ``(3, ceil(n_columns / 64) + 2 pad[1] + 2, n_rows + 2 pad[0])`` scratch.
    out : ndarray
        bool ``(n_rows, n_columns)``, overwritten.
    """
    n_rows, n_columns = mask.shape
    top = pad[0]
    first_word = 1 + pad[1]
    words[:] = 0
    source = words[0]
    _half_widths(radius_mm, row_mm, column_mm, half_width)
    _pack(mask, operation in (ERODE, OPEN), top, first_word, source)
    result = _dilate(source, half_width, words[1], words[2])
    if operation == OPEN:
        last_bits = ~np.uint64(0) >> np.uint64((64 - n_columns % 64) % 64)
        _invert(result, 0, n_rows, last_bits, source)
        result = _dilate(source, half_width, words[1], words[2])
        _pack(mask, False, top, first_word, source)
        result &= source
    elif operation == CLOSE:
        _invert(result, 0, n_rows + 2 * top, ~np.uint64(0), source)
        result = _dilate(source, half_width, words[1], words[2])
    _unpack(result, operation in (ERODE, CLOSE), top, first_word, out)
