"""Window, mask and resample in one kernel; the twin is in ``reference.py``."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from native_hash.jit import CANONICAL_FASTMATH, kernel


class Taps(NamedTuple):
    """Which pixels of one axis make each pixel of the model input, and how much of it.

    Attributes
    ----------
    first : ndarray
        int64 ``(n_out,)``: the first pixel that counts; may lie outside the picture.
    weights : ndarray
        float32 ``(n_taps, n_out)``: share of it and of those that follow. They sum to 1 also at
        the picture's border, so that it fades into the zeros around it.
    """

    first: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    @classmethod
    def between(cls, spacing_mm: float, start_mm: float, step_mm: float, n_out: int) -> Taps:
        """Triangle filter from pixels that begin at 0 to ``n_out`` steps from ``start_mm``.

        The filter is as wide as the coarser of the two grids.
        """
        center_out_mm = start_mm + (np.arange(n_out) + 0.5) * step_mm
        radius_mm = max(step_mm, spacing_mm)
        n_taps = math.ceil(2 * radius_mm / spacing_mm) + 2
        first = np.floor((center_out_mm - radius_mm) / spacing_mm).astype(np.int64)
        center_in_mm = (first + np.arange(n_taps)[:, np.newaxis] + 0.5) * spacing_mm
        weights = np.maximum(1 - np.abs(center_out_mm - center_in_mm) / radius_mm, 0)
        weights /= weights.sum(axis=0)
        return cls(first, weights.astype(np.float32))


def resample(
    pixels_hu: npt.NDArray[np.float32],
    lung_mask: npt.NDArray[np.bool_],
    rows: slice,
    columns: slice,
    window_center_hu: float,
    window_width_hu: float,
    by_row: Taps,
    by_column: Taps,
) -> npt.NDArray[np.float32]:
    """Part of a slice through the lung window, 0 outside the mask, resampled.

    Parameters
    ----------
    pixels_hu, lung_mask : ndarray
        float32 and bool ``(n_rows, n_columns)``.
    rows, columns : slice
        The part; pixels beyond it count as 0.
    window_center_hu, window_width_hu : float
        As in :func:`ildsdk.lung.apply_lung_window`.
    by_row, by_column : Taps
        From the part's pixels to the model input's.

    Returns
    -------
    ndarray
        float32 ``(1, n_out, n_out)``, C-contiguous, in [0, 1].
    """
    height, width = rows.stop - rows.start, columns.stop - columns.start
    n_out = by_row.first.size
    # zeros on both sides for the taps outside the part: no test in the inner loop
    before = max(0, -int(by_column.first[0]))
    after = max(0, int(by_column.first[-1]) + by_column.weights.shape[0] - width)
    out = np.empty((1, n_out, n_out), dtype=np.float32)
    _resample(
        # writable and of one type, or the kernel would be compiled once more
        np.require(pixels_hu, np.float32, ("C", "W")),
        np.require(lung_mask, np.bool_, ("C", "W")),
        rows.start,
        columns.start,
        np.float32(window_center_hu - window_width_hu / 2),
        np.float32(1 / window_width_hu),
        by_row,
        by_column._replace(first=by_column.first + before),
        before,
        np.empty((height, width), dtype=np.float32),
        np.zeros(before + width + after, dtype=np.float32),
        out[0],
    )
    return out


@kernel(CANONICAL_FASTMATH)
def _resample(
    pixels_hu: Any,
    mask: Any,
    first_row: Any,
    first_column: Any,
    low_hu: Any,
    per_hu: Any,
    by_row: Any,
    by_column: Any,
    before: Any,
    windowed: Any,
    one_row: Any,
    out: Any,
) -> None:
    """See :func:`resample`.

    ``windowed`` ``(height, width)`` is scratch; so is ``one_row``, zeros on entry, with ``before``
    places more on the left, from where ``by_column`` counts, and enough on the right.

    Sums run from the first tap to the last in float32, fused: what a matrix product does.
    """
    height, width = windowed.shape
    n_out = out.shape[0]
    zero = np.float32(0)
    one = np.float32(1)
    for i in range(height):
        row = windowed[i]
        pixels = pixels_hu[first_row + i, first_column : first_column + width]
        is_inside = mask[first_row + i, first_column : first_column + width]
        for j in range(width):
            value = (pixels[j] - low_hu) * per_hu
            value = value if value >= zero else zero  # NaN counts as air
            value = one if value > one else value
            row[j] = value if is_inside[j] else zero
    middle = one_row[before : before + width]
    for k in range(n_out):
        middle[:] = zero
        for t in range(by_row.weights.shape[0]):
            i = by_row.first[k] + t
            weight = by_row.weights[t, k]
            if i >= 0 and i < height and weight > zero:
                row = windowed[i]
                for j in range(width):
                    middle[j] += weight * row[j]
        resampled = out[k]
        resampled[:] = zero
        for t in range(by_column.weights.shape[0]):
            weights = by_column.weights[t]
            ahead = one_row[t:]
            for m in range(n_out):
                resampled[m] += weights[m] * ahead[by_column.first[m]]
        for m in range(n_out):
            resampled[m] = min(max(resampled[m], zero), one)
