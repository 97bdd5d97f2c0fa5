"""Kernels of bitmaps: masks of the working grid with 64 cells of a row in one machine word.

The words of all rows lie one behind the other. Between the last cell of a row and the first of
the next there is a gap that holds no cell; whatever grows sideways runs into it from both sides
and never into the other row, so that no pass over the words needs to ask where a row ends. Outside
a morphological operation the bits of gaps are 0.

Preconditions that are not checked: arrays C-contiguous, shapes as documented.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from native_hash.jit import ORDERED, kernel

Words = npt.NDArray[np.uint64]


class Canvas(NamedTuple):
    """Shape of bitmaps, and what operations on them need.

    Attributes
    ----------
    n_rows, n_columns, row_words : int
        Cell ``(i, j)`` is bit ``j % 64`` of word ``i row_words + j // 64``.
    row_mm, column_mm : float
        Spacing of cells.
    inside : ndarray
        uint64 ``(n_rows row_words,)``: the bitmap of all cells.
    work : ndarray
        uint64 ``(3, n)`` scratch of the morphology, see :func:`morphology_kernels.close`.
    half_width : ndarray
        int64 scratch, one more entry than the largest structuring element reaches rows.
    """

    n_rows: int
    n_columns: int
    row_words: int
    row_mm: float
    column_mm: float
    inside: Words
    work: Words
    half_width: npt.NDArray[np.int64]


def words_of_a_row(n_columns: int, reach: int) -> int:
    """Words of a row whose gap takes ``reach`` cells from either side, and one more.

    Also called by kernels.
    """
    return (n_columns + 2 * reach + 64) // 64


row_words_of = kernel(ORDERED)(words_of_a_row)


@kernel(ORDERED)
def count_ones(word: Any) -> Any:
    """Bits that are set in a uint64, as uint64; LLVM knows this form and has an instruction."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@kernel(ORDERED)
def lowest_place(word: Any) -> Any:
    """Place of the lowest bit that is set; the word is not 0."""
    return np.int64(count_ones(~word & (word - np.uint64(1))))


@kernel(ORDERED)
def highest_place(word: Any) -> Any:
    """Place of the highest bit that is set; the word is not 0."""
    for step in (1, 2, 4, 8, 16, 32):
        word |= word >> np.uint64(step)
    return np.int64(count_ones(word)) - 1


@kernel(ORDERED)
def ones_between(first: Any, stop: Any) -> Any:
    """Word with the bits ``first`` to ``stop - 1``; 0 <= first < stop <= 64."""
    return (~np.uint64(0) >> np.uint64(64 - (stop - first))) << np.uint64(first)


@kernel(ORDERED)
def count_cells(words: Words) -> Any:
    """Cells of a bitmap."""
    total = np.uint64(0)
    for word in words:
        total += count_ones(word)
    return np.int64(total)


@kernel(ORDERED)
def has_cells(words: Words) -> Any:
    """Whether a bitmap has any cell."""
    return count_cells(words) > 0


@kernel(ORDERED)
def mark_span(words: Any, start: Any, first: Any, stop: Any) -> None:
    """Set the cells ``first`` to ``stop - 1`` of the row whose words begin at ``start``."""
    place = first
    while place < stop:
        end = min(place - place % 64 + 64, stop)
        words[start + place // 64] |= ones_between(place % 64, place % 64 + end - place)
        place = end


@kernel(ORDERED)
def count_span(words: Any, start: Any, first: Any, stop: Any) -> Any:
    """How many of the cells ``first`` to ``stop - 1`` of a row are set."""
    total = np.uint64(0)
    place = first
    while place < stop:
        end = min(place - place % 64 + 64, stop)
        bits = ones_between(place % 64, place % 64 + end - place)
        total += count_ones(words[start + place // 64] & bits)
        place = end
    return np.int64(total)


@kernel(ORDERED)
def mark_rectangle(canvas: Canvas, rows: Any, columns: Any, words: Words) -> None:
    """Bitmap of a rectangle; bounds are (first, one after the last) and may go beyond."""
    words[:] = np.uint64(0)
    first, stop = max(columns[0], 0), min(columns[1], canvas.n_columns)
    for i in range(max(rows[0], 0), min(rows[1], canvas.n_rows)):
        mark_span(words, i * canvas.row_words, first, stop)


@kernel(ORDERED)
def pack_below(
    canvas: Canvas, values: npt.NDArray[np.float32], limit: float, or_equal: bool, words: Words
) -> None:
    """Bitmap of the cells whose value is below a limit (or equal, where that is wanted).

    The limit counts as float32.
    """
    limit_32 = np.float32(limit)
    for i in range(canvas.n_rows):
        row = values[i]
        own = words[i * canvas.row_words : (i + 1) * canvas.row_words]
        own[:] = np.uint64(0)
        for k in range((canvas.n_columns + 63) // 64):
            # a slice, whose places cannot be negative: the loop becomes vector code
            part = row[64 * k : min(64 * k + 64, canvas.n_columns)]
            word = np.uint64(0)
            for bit in range(part.size):
                is_below = (part[bit] < limit_32) | (or_equal & (part[bit] == limit_32))
                word |= np.uint64(is_below) << np.uint64(bit)
            own[k] = word


@kernel(ORDERED)
def bounding_box(canvas: Canvas, words: Words) -> tuple[int, int, int, int]:
    """First row, one after the last, first column, one after the last; the bitmap has cells."""
    top, bottom = canvas.n_rows, 0
    left, right = canvas.n_columns, 0
    for i in range(canvas.n_rows):
        first, last = row_ends(canvas, words, i)
        if last >= 0:
            top, bottom = min(top, i), i + 1
            left, right = min(left, first), max(right, last + 1)
    return top, bottom, left, right


@kernel(ORDERED)
def row_ends(canvas: Canvas, words: Words, i: int) -> tuple[int, int]:
    """First and last cell of a row; (n_columns, -1) where it has none."""
    own = words[i * canvas.row_words : (i + 1) * canvas.row_words]
    first, last = canvas.n_columns, -1
    for k in range(own.size):
        if own[k] != np.uint64(0):
            first = min(first, 64 * k + lowest_place(own[k]))
            last = 64 * k + highest_place(own[k])
    return first, last


@kernel(ORDERED)
def crop_bitmap(
    whole: Canvas, words: Words, part: Canvas, top: int, left: int, cropped: Words
) -> None:
    """The part of a bitmap that begins at a row and column, on a canvas of its own."""
    up = np.uint64(left % 64)
    for i in range(part.n_rows):
        source = words[(top + i) * whole.row_words : (top + i + 1) * whole.row_words]
        for k in range(part.row_words):
            at = left // 64 + k
            word = source[at] >> up if at < source.size else np.uint64(0)
            if at + 1 < source.size and up != np.uint64(0):
                word |= source[at + 1] << (np.uint64(64) - up)
            place = i * part.row_words + k
            cropped[place] = word & part.inside[place]
