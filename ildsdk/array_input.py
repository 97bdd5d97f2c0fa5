"""The array door: a slice from pixels an integrator holds already."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ildsdk.dicom import checked_pixels_hu
from ildsdk.errors import ConfigError, InputError
from ildsdk.records import CtSlice


def slice_from_array(pixels_hu: npt.ArrayLike, pixel_spacing_mm: tuple[float, float]) -> CtSlice:
    """Check pixels and spacing by the rules of the DICOM door.

    Parameters
    ----------
    pixels_hu : array_like
        ``(n_rows, n_columns)`` Hounsfield units.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``, mm.

    Raises
    ------
    ConfigError
        The spacing is not a pair of numbers.
    InputError
        Not a finite 2-D image, an impossible spacing, or implausible Hounsfield units.
    """
    pixels = np.ascontiguousarray(pixels_hu, dtype=np.float32)
    if pixels.ndim != 2 or min(pixels.shape) < 64:
        raise InputError(
            f"pixels_hu has shape {pixels.shape}, expected (n_rows, n_columns) of at least 64 x 64"
        )
    if not np.isfinite(pixels).all():
        raise InputError("pixels_hu holds NaN or infinity, expected finite Hounsfield units")
    try:
        row_spacing_mm, column_spacing_mm = (float(value) for value in pixel_spacing_mm)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"pixel_spacing_mm is {pixel_spacing_mm!r}, expected (row_spacing, column_spacing)"
        ) from error
    if not (0.1 <= row_spacing_mm <= 5 and 0.1 <= column_spacing_mm <= 5):
        raise InputError(
            f"pixel_spacing_mm is ({row_spacing_mm:g}, {column_spacing_mm:g}), expected 0.1 to 5 mm"
        )
    return CtSlice(
        pixels_hu=checked_pixels_hu(pixels, "array"),
        pixel_spacing_mm=(row_spacing_mm, column_spacing_mm),
        position_mm=None,
        source="array",
        study_instance_uid="",
        series_instance_uid="",
        sop_instance_uid="",
    )
