"""What the resampling of ``resampling.py`` means, in plain numpy: the definition."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ildsdk.lung import apply_lung_window


def resample(
    pixels_hu: npt.NDArray[np.float32],
    lung_mask: npt.NDArray[np.bool_],
    window_hu: tuple[float, float],
    pixel_spacing_mm: tuple[float, float],
    corner_mm: tuple[float, float],
    step_mm: float,
    n_out: int,
) -> npt.NDArray[np.float32]:
    """Window, mask and resample a picture to a square of ``n_out`` steps from a corner.

    Parameters
    ----------
    pixels_hu, lung_mask : ndarray
        float32 and bool ``(n_rows, n_columns)``.
    window_hu : tuple of float
        Center and width of the lung window.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    corner_mm : tuple of float
        Top and left of the square, from the picture's corner.

    Returns
    -------
    ndarray
        float32 ``(n_out, n_out)`` in [0, 1].
    """
    windowed = apply_lung_window(pixels_hu, *window_hu)
    masked = np.where(lung_mask, windowed, np.float32(0))
    by_row, by_column = (
        resampling_matrix(
            masked.shape[axis], pixel_spacing_mm[axis], corner_mm[axis], step_mm, n_out
        )
        for axis in (0, 1)
    )
    resampled: npt.NDArray[np.float32] = np.clip(by_row @ masked @ by_column.T, 0, 1)
    return resampled


def resampling_matrix(
    n_in: int, spacing_mm: float, start_mm: float, step_mm: float, n_out: int
) -> npt.NDArray[np.float32]:
    """Triangle-filter weights ``(n_out, n_in)`` from a grid at 0 to one that starts at start_mm."""
    centers_out_mm = start_mm + (np.arange(n_out) + 0.5) * step_mm
    radius_mm = max(step_mm, spacing_mm)
    first = math.floor((centers_out_mm[0] - radius_mm) / spacing_mm) - 1
    last = math.ceil((centers_out_mm[-1] + radius_mm) / spacing_mm) + 1
    # Normalised on a grid that goes on beyond the image, so that its edge fades into the
    # zeros around it instead of being stretched.
    first, last = min(first, 0), max(last, n_in)
    centers_in_mm = (np.arange(first, last) + 0.5) * spacing_mm
    distance_mm = np.abs(centers_out_mm[:, np.newaxis] - centers_in_mm[np.newaxis])
    weights = np.maximum(1 - distance_mm / radius_mm, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights[:, -first : n_in - first].astype(np.float32)
