"""Kernel of binary morphology: 64 pixels of a row in one machine word.

Dilating by an ellipse is a sum of rows, each widened by the ellipse's half width at that
distance. The widest is done first and the others join on the way out, so every row is widened one
pixel at a time and never twice; a pass handles 64 pixels per instruction and lane.

The words of all rows lie one behind the other, each row between words of its own that the dilation
may run into: no pass needs to ask where a row ends. Preconditions that are not checked: as in
``kernels.py``. The twin is in ``reference.py``.
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
def _pack(mask: Any, is_inverted: Any, first: Any, row_words: Any, words: Any) -> None:
    """Column ``64 k + b`` of row ``i`` to bit ``b`` of word ``first + i row_words + k``."""
    n_rows, n_columns = mask.shape
    for i in range(n_rows):
        row = mask[i]
        place = first + i * row_words
        for start in range(0, n_columns, 64):
            # a slice, whose places cannot be negative: the loop becomes vector code
            part = row[start : min(start + 64, n_columns)]
            word = np.uint64(0)
            for bit in range(part.size):
                word |= np.uint64(part[bit] != is_inverted) << np.uint64(bit)
            words[place] = word
            place += 1


@kernel(ORDERED)
def _unpack(words: Any, is_inverted: Any, first: Any, row_words: Any, out: Any) -> None:
    """Inverse of :func:`_pack`."""
    n_rows, n_columns = out.shape
    one = np.uint64(1)
    for i in range(n_rows):
        row = out[i]
        place = first + i * row_words
        for start in range(0, n_columns, 64):
            part = row[start : min(start + 64, n_columns)]
            word = ~words[place] if is_inverted else words[place]
            for bit in range(part.size):
                part[bit] = (word >> np.uint64(bit)) & one
            place += 1


@kernel(ORDERED)
def _widen(words: Any, to: Any) -> None:
    """Each row widened by one pixel to both sides; the first and the last word are 0."""
    before = words[:-2]
    here = words[1:-1]
    after = words[2:]
    widened = to[1:-1]
    up = np.uint64(1)
    carry = np.uint64(63)
    for k in range(here.size):
        word = here[k]
        widened[k] = word | (word << up) | (word >> up) | (before[k] >> carry) | (after[k] << carry)


@kernel(ORDERED)
def _join(words: Any, distance: Any, to: Any) -> None:
    """Add the words that lie a distance ahead, and as far behind."""
    n_shared = words.size - distance
    ahead = words[distance:]
    behind = words[:n_shared]
    to_front = to[:n_shared]
    to_back = to[distance:]
    for k in range(n_shared):
        to_front[k] |= ahead[k]
    for k in range(n_shared):
        to_back[k] |= behind[k]


@kernel(ORDERED)
def _dilate(words: Any, half_width: Any, row_words: Any) -> Any:
    """Dilate ``words[0]``; the answer is ``words[1]`` or ``words[2]``, which one is returned."""
    n_gaps = half_width.size
    at = 1
    words[1] = words[0]
    for gap in range(1, n_gaps + 1):
        narrower = half_width[gap] if gap < n_gaps else 0
        for _ in range(half_width[gap - 1] - narrower):
            _widen(words[at], words[3 - at])
            at = 3 - at
        if gap < n_gaps and gap * row_words < words.shape[1]:
            _join(words[0], gap * row_words, words[at])
    return at


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
        Rows and words of room on each side. More pixels than the ellipse reaches to the left
        and right; above and below as many as it reaches for ``CLOSE``, else 0.
    half_width : ndarray
        int64 ``(n,)`` scratch; ``n - 1`` rows is how far the ellipse reaches.
    words : ndarray
        uint64 ``(3, (n_rows + 2 pad[0]) (ceil(n_columns / 64) + 2 pad[1]) + 2)`` scratch.
    out : ndarray
        bool ``(n_rows, n_columns)``, overwritten.
    """
    n_columns = mask.shape[1]
    n_image_words = (n_columns + 63) // 64
    row_words = n_image_words + 2 * pad[1]
    first = 1 + pad[0] * row_words + pad[1]
    words[:] = 0
    _half_widths(radius_mm, row_mm, column_mm, half_width)
    _pack(mask, operation in (ERODE, OPEN), first, row_words, words[0])
    at = _dilate(words, half_width, row_words)
    if operation in (OPEN, CLOSE):
        # the complement: of all there is room for, or of the image only
        source = words[0]
        result = words[at]
        source[:] = 0
        last_bits = ~np.uint64(0) >> np.uint64((64 - n_columns % 64) % 64)
        for k in range(1, source.size - 1):
            column = (k - 1) % row_words - pad[1]
            used = ~np.uint64(0)
            if operation == OPEN and (column < 0 or column >= n_image_words):
                used = np.uint64(0)
            elif operation == OPEN and column == n_image_words - 1:
                used = last_bits
            source[k] = ~result[k] & used
        words[1:] = 0
        at = _dilate(words, half_width, row_words)
    _unpack(words[at], operation in (ERODE, CLOSE), first, row_words, out)
