"""Bitmaps of masks and back, by numpy's own packing."""

from __future__ import annotations

import numpy as np

from ildsdk.lung.bitmap_kernels import Canvas, words_of_a_row


def canvas_for(
    shape: tuple[int, int], spacing_mm: tuple[float, float] = (2.0, 2.0), radius_mm: float = 30.0
) -> Canvas:
    """A canvas with just the room that structuring elements up to a radius need."""
    n_rows, n_columns = shape
    down, aside = (int(radius_mm / step_mm + 1e-6) for step_mm in spacing_mm)
    row_words = words_of_a_row(n_columns, aside)
    n_words = (n_rows + 2 * (down + 1)) * row_words + 2
    work = np.random.default_rng(0).integers(0, 2**63, (3, n_words), dtype=np.uint64)
    empty = Canvas(
        n_rows, n_columns, row_words, *spacing_mm, work[0], work, np.empty(down + 1, int)
    )
    return empty._replace(inside=packed(np.ones(shape, np.bool_), empty))


def packed(mask: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Words of a mask."""
    bits = np.zeros((canvas.n_rows, 64 * canvas.row_words), dtype=np.bool_)
    bits[:, : canvas.n_columns] = mask
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64).ravel()


def unpacked(words: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Mask of words; fails where a gap is not empty."""
    rows = words.reshape(canvas.n_rows, canvas.row_words).astype("<u8").view(np.uint8)
    bits = np.unpackbits(rows, axis=1, bitorder="little").astype(np.bool_)
    assert not bits[:, canvas.n_columns :].any()
    return bits[:, : canvas.n_columns]
