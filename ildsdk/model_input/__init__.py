"""From a slice and its lung mask to the model input: one rule for training and inference."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ildsdk.errors import SliceUnusableError
from ildsdk.explain import SliceBox
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
    from ildsdk.model_input.resampling import Taps, resample

    crop = _crop_of(lung_mask, pixel_spacing_mm, settings.crop_margin)
    step_mm = crop.side_mm / settings.input_size
    row_spacing_mm, column_spacing_mm = pixel_spacing_mm
    return resample(
        pixels_hu,
        lung_mask,
        crop.rows,
        crop.columns,
        settings.window_center_hu,
        settings.window_width_hu,
        Taps.between(row_spacing_mm, crop.top_mm, step_mm, settings.input_size),
        Taps.between(column_spacing_mm, crop.left_mm, step_mm, settings.input_size),
    )


def input_box(
    lung_mask: npt.NDArray[np.bool_],
    pixel_spacing_mm: tuple[float, float],
    settings: MethodSettings,
) -> SliceBox:
    """Which part of a slice its model input shows, so that a map can be drawn over the slice.

    Parameters are those of :func:`model_input`.

    Raises
    ------
    SliceUnusableError
        The mask is empty (``"no-lung"``).
    """
    crop = _crop_of(lung_mask, pixel_spacing_mm, settings.crop_margin)
    row_spacing_mm, column_spacing_mm = pixel_spacing_mm
    n_rows, n_columns = lung_mask.shape
    height_mm, width_mm = n_rows * row_spacing_mm, n_columns * column_spacing_mm
    return SliceBox(
        top=(crop.rows.start * row_spacing_mm + crop.top_mm) / height_mm,
        left=(crop.columns.start * column_spacing_mm + crop.left_mm) / width_mm,
        height=crop.side_mm / height_mm,
        width=crop.side_mm / width_mm,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Crop:
    """The mask's bounding box, and the square around it.

    The square's corner ``top_mm``, ``left_mm`` is measured from that of the bounding box,
    outside which the model input is 0.
    """

    rows: slice
    columns: slice
    top_mm: float
    left_mm: float
    side_mm: float


def _crop_of(
    lung_mask: npt.NDArray[np.bool_], pixel_spacing_mm: tuple[float, float], margin: float
) -> _Crop:
    from ildsdk.radiomics.cropping import bounding_box

    # a writable mask, or the kernel would be compiled once more for read-only ones
    mask = np.require(lung_mask, requirements=("C", "W"))
    is_used = np.empty(mask.shape[1], dtype=np.bool_)
    top, bottom, left, right, n_pixels = bounding_box(mask, is_used)
    if n_pixels == 0:
        raise SliceUnusableError("no-lung", "the lung mask is empty")
    row_box, column_box = slice(top, bottom + 1), slice(left, right + 1)
    height_mm = (row_box.stop - row_box.start) * pixel_spacing_mm[0]
    width_mm = (column_box.stop - column_box.start) * pixel_spacing_mm[1]
    side_mm = max(height_mm, width_mm) * (1 + 2 * margin)
    return _Crop(row_box, column_box, (height_mm - side_mm) / 2, (width_mm - side_mm) / 2, side_mm)
