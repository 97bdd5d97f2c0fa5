"""Numba kernel of :func:`ildsdk.dicom.pixels.to_hounsfield`, for a slice that is like most."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.jit import ORDERED, kernel


@kernel(ORDERED)
def rescale(
    stored: npt.NDArray[Any],
    values: npt.NDArray[Any],
    slope: np.float32,
    intercept: np.float32,
    first: Any,
    last: Any,
    least: Any,
    largest: Any,
    air_hu: np.float32,
    dark_below_hu: np.float32,
    bright_above_hu: np.float32,
    pixels_hu: npt.NDArray[np.float32],
) -> Any:
    """HU of all pixels, padding as air, with what tells whether they are plausible.

    Parameters
    ----------
    stored : ndarray
        int32 or int64 ``(n_rows, n_columns)``, over all allocated bits: what padding is told by.
    values : ndarray
        The same with unused bits removed, of the same dtype; may be the same array.
    first, last : scalar of that dtype
        Stored values that are padding; none where the first is greater.
    least, largest : scalar of that dtype
        Its range.
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, overwritten: at least ``air_hu``.

    Returns
    -------
    n_padding, n_dark, n_bright : int
        Pixels that are padding; of the others, those below and above the two limits.
    lowest, highest : int
        Of ``values`` that are not padding; the first is greater where there is none.

    Notes
    -----
    Three short loops a row, each of a shape that LLVM turns into vector code.
    """
    n_rows, n_columns = stored.shape
    n_padding = n_dark = n_bright = 0
    lowest, highest = np.int64(largest), np.int64(least)
    for i in range(n_rows):
        row, told_by, hus = values[i], stored[i], pixels_hu[i]
        low, high = largest, least
        padded: Any = np.int32(0)
        dark: Any = np.int32(0)
        bright: Any = np.int32(0)
        for j in range(n_columns):
            hus[j] = np.float32(np.float32(row[j]) * slope) + intercept
        for j in range(n_columns):
            is_padding = (told_by[j] >= first) & (told_by[j] <= last)
            padded += np.int32(is_padding)
            below = row[j] if not is_padding else largest
            above = row[j] if not is_padding else least
            low = below if below < low else low
            high = above if above > high else high
        for j in range(n_columns):
            is_padding = (told_by[j] >= first) & (told_by[j] <= last)
            hu = hus[j]
            hu = air_hu if is_padding else hu
            dark += np.int32(hu < dark_below_hu)
            bright += np.int32(hu > bright_above_hu)
            hus[j] = hu if hu > air_hu else air_hu
        n_padding += padded
        n_dark += dark - padded
        n_bright += bright
        lowest, highest = min(lowest, np.int64(low)), max(highest, np.int64(high))
    return n_padding, n_dark, n_bright, lowest, highest
