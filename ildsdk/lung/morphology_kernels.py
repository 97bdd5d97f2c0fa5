"""Kernels of binary morphology in millimeters, on bitmaps.

Structuring elements are ellipses in cells, that is circles in mm, so anisotropic spacing needs no
resampling. Dilating by an ellipse is a sum of rows, each widened by the ellipse's half width at
that distance. The widest is done first and the others join on the way out, so every row is widened
one cell at a time and never twice; a pass handles 64 cells per instruction and lane.

Cells outside the image count as background for a dilation and as foreground for an erosion: an
image border never eats into a mask. Twins are in ``reference/morphology.py``. An output
may be the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ildsdk.lung.bitmap_kernels import Canvas, Words
from native_hash.jit import ORDERED, kernel


@kernel(ORDERED)
def _half_widths(canvas: Canvas, radius_mm: Any) -> int:
    """Half width in columns of the ellipse ``g`` rows from its center; returns how many."""
    n_gaps = int(radius_mm / canvas.row_mm + 1e-6) + 1
    for gap in range(n_gaps):
        height_mm = gap * canvas.row_mm
        square = max(radius_mm * radius_mm - height_mm * height_mm, 0.0)
        canvas.half_width[gap] = np.int64(np.sqrt(square) / canvas.column_mm + 1e-6)
    return n_gaps


@kernel(ORDERED)
def _widen(words: Any, to: Any) -> None:
    """Each row widened by one cell to both sides; the first and the last word are 0."""
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
def _spread(canvas: Canvas, n_words: Any, n_gaps: Any) -> Any:
    """Dilate what lies in the first of the work rows, from its second word on; returns where.

    The words before and after are made 0.
    """
    first, second, third = canvas.work[0], canvas.work[1], canvas.work[2]
    size = n_words + 2
    for rows in (first, second, third):
        rows[0] = np.uint64(0)
        rows[n_words + 1] = np.uint64(0)
    second[:size] = first[:size]
    at = 1
    for gap in range(1, n_gaps + 1):
        narrower = canvas.half_width[gap] if gap < n_gaps else 0
        for _ in range(canvas.half_width[gap - 1] - narrower):
            _widen(canvas.work[at][:size], canvas.work[3 - at][:size])
            at = 3 - at
        if gap < n_gaps and gap * canvas.row_words < n_words:
            _join(first[:size], gap * canvas.row_words, canvas.work[at][:size])
    return at


@kernel(ORDERED)
def dilate(canvas: Canvas, words: Words, radius_mm: float, out: Words) -> None:
    """Cells whose center lies at most ``radius_mm`` from that of a cell of the bitmap."""
    n = words.size
    canvas.work[0, 1 : n + 1] = words
    at = _spread(canvas, n, _half_widths(canvas, radius_mm))
    result = canvas.work[at, 1 : n + 1]
    for k in range(n):
        out[k] = result[k] & canvas.inside[k]


@kernel(ORDERED)
def erode(canvas: Canvas, words: Words, radius_mm: float, out: Words) -> None:
    """Cells at more than ``radius_mm`` from any cell of the image that is not in the bitmap."""
    n = words.size
    source = canvas.work[0, 1 : n + 1]
    for k in range(n):
        source[k] = ~words[k] & canvas.inside[k]
    at = _spread(canvas, n, _half_widths(canvas, radius_mm))
    result = canvas.work[at, 1 : n + 1]
    for k in range(n):
        out[k] = ~result[k] & canvas.inside[k]


@kernel(ORDERED)
def open_(canvas: Canvas, words: Words, radius_mm: float, out: Words) -> None:
    """Erode, then dilate: drops what a disc of this radius does not fit into."""
    erode(canvas, words, radius_mm, out)
    dilate(canvas, out, radius_mm, out)


@kernel(ORDERED)
def close(canvas: Canvas, words: Words, radius_mm: float, out: Words) -> None:
    """Dilate beyond the image, then erode: fills gaps that a disc of this radius does not enter.

    Precondition: work rows of ``(n_rows + 2 reach) row_words + 2`` words, where ``reach`` is one
    more than the disc reaches rows; gaps of twice as many cells as it reaches columns.
    """
    n = words.size
    n_gaps = _half_widths(canvas, radius_mm)
    above = n_gaps * canvas.row_words
    n_tall = n + 2 * above
    source = canvas.work[0, 1 : n_tall + 1]
    source[:] = np.uint64(0)
    source[above : above + n] = words
    at = _spread(canvas, n_tall, n_gaps)
    result = canvas.work[at, 1 : n_tall + 1]
    for k in range(n_tall):
        source[k] = ~result[k]
    at = _spread(canvas, n_tall, n_gaps)
    result = canvas.work[at, 1 + above : 1 + above + n]
    for k in range(n):
        out[k] = ~result[k] & canvas.inside[k]
