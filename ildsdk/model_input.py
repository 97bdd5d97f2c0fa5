"""From a slice and its lung mask to the model input: one rule for training and inference."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ildsdk.errors import SliceUnusableError
from ildsdk.lung import apply_lung_window
from ildsdk.settings import MethodSettings


def model_input(
    pixels_hu: npt.NDArray[np.float32],
    pixel_spacing_mm: tuple[float, float],
    lung_mask: npt.NDArray[np.bool_],
    settings: MethodSettings,
) -> npt.NDArray[np.float32]:
    """Window, mask, crop and resample one slice to the backbone's input.

    The rule: HU go through the lung window to [0, 1]; pixels outside the lung mask become
    0; a square around the mask's bounding box (longer side plus ``crop_margin`` on each
    side, in mm, so anisotropic pixels come out undistorted) is resampled to
    ``input_size`` x ``input_size`` with a triangle filter as wide as the coarser of
    the two grids (linear interpolation when enlarging, antialiased when reducing).

    Parameters
    ----------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, HU.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    lung_mask : ndarray
        bool ``(n_rows, n_columns)``.
    settings : MethodSettings
        Input size, window and margin of the bundle.

    Returns
    -------
    ndarray
        float32 ``(1, input_size, input_size)``, C-contiguous, in [0, 1].

    Raises
    ------
    SliceUnusableError
        The mask is empty (``"no-lung"``).
    """
    rows = np.flatnonzero(lung_mask.any(axis=1))
    columns = np.flatnonzero(lung_mask.any(axis=0))
    if rows.size == 0:
        raise SliceUnusableError("no-lung", "the lung mask is empty")
    row_box = slice(int(rows[0]), int(rows[-1]) + 1)
    column_box = slice(int(columns[0]), int(columns[-1]) + 1)
    windowed = apply_lung_window(
        pixels_hu[row_box, column_box], settings.window_center_hu, settings.window_width_hu
    )
    masked = np.where(lung_mask[row_box, column_box], windowed, np.float32(0))

    # Lengths are measured from the corner of the bounding box; outside it everything is 0.
    row_spacing_mm, column_spacing_mm = pixel_spacing_mm
    height_mm = masked.shape[0] * row_spacing_mm
    width_mm = masked.shape[1] * column_spacing_mm
    side_mm = max(height_mm, width_mm) * (1 + 2 * settings.crop_margin)
    step_mm = side_mm / settings.input_size
    by_row = _resampling_matrix(
        masked.shape[0], row_spacing_mm, (height_mm - side_mm) / 2, step_mm, settings.input_size
    )
    by_column = _resampling_matrix(
        masked.shape[1], column_spacing_mm, (width_mm - side_mm) / 2, step_mm, settings.input_size
    )
    resampled = by_row @ masked @ by_column.T
    return np.ascontiguousarray(np.clip(resampled, 0, 1)[np.newaxis], dtype=np.float32)


def _resampling_matrix(
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
