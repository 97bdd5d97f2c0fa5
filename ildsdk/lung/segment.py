"""The lung mask of one axial CT slice (method section 1.3 and what it leaves open)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import SliceUnusableError
from ildsdk.lung import mask_kernel
from ildsdk.lung.air_kernels import CAGE_MM2, NO_LUNG_MM2
from ildsdk.lung.scratch import fan, largest_radius_mm, scratch_for
from ildsdk.records import LungMask

CELL_MM = 2.0
_MIN_BODY_MM2 = 8000.0


def segment_lung(
    pixels_hu: npt.NDArray[Any],
    pixel_spacing_mm: tuple[float, float],
    *,
    min_area_mm2: float = 3000.0,
) -> LungMask:
    """Find the lungs in one axial chest CT slice, diseased parts included.

    Parameters
    ----------
    pixels_hu : ndarray
        Real ``(n_rows, n_columns)``, HU; any memory layout, may be read-only, is not changed. What
        is not float32 is converted. NaN and padding below -1024 HU count as air.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)`` as in DICOM PixelSpacing; may differ.
    min_area_mm2 : float
        Least area of lung the method is willing to answer.

    Returns
    -------
    LungMask
        Mask of the input's shape, the two-means threshold, the area.

    Raises
    ------
    SliceUnusableError
        ``"not-a-chest-slice"``: no body, or one of less than 80 cm2.
        ``"no-lung"``: less than 10 cm2 of aerated lung in the body.
        ``"too-little-lung"``: lung found, but less than ``min_area_mm2``.
    ValueError
        ``pixels_hu`` is not 2-D and real, or a spacing or area is not positive and finite.

    Notes
    -----
    Deterministic, single-threaded, without state: safe to call from many threads. The rules,
    their reasons and where they fail are in ``docs/lung-mask.md``. A coronal or
    sagittal picture cannot be told from its pixels alone; refuse it by its orientation.

    References
    ----------
    Chen et al. 2025, section 1.1: two-centre K-means, binarisation, erosion and dilation.
    """
    pixels = _checked_pixels(pixels_hu)
    spacing_mm = _checked_spacing(pixel_spacing_mm)
    if not (math.isfinite(min_area_mm2) and min_area_mm2 > 0):
        raise ValueError(f"min_area_mm2 is {min_area_mm2!r}, expected a positive number of mm2")
    n_rows, row_mm = _cells(pixels.shape[0], spacing_mm[0])
    n_columns, column_mm = _cells(pixels.shape[1], spacing_mm[1])
    reach = int(largest_radius_mm((row_mm, column_mm)) / column_mm + 1e-6)
    lung_mask = np.empty(pixels.shape, dtype=np.bool_)
    outcome, threshold_hu, amount = mask_kernel.find_lung(
        pixels,
        (row_mm, column_mm),
        reach,
        _MIN_BODY_MM2,
        fan(),
        scratch_for(pixels.shape, (n_rows, n_columns), (row_mm, column_mm), reach),
        lung_mask,
    )
    if outcome != mask_kernel.FOUND:
        raise _refusal(outcome, amount)
    area_mm2 = amount * spacing_mm[0] * spacing_mm[1]
    if area_mm2 < min_area_mm2:
        raise SliceUnusableError(
            "too-little-lung",
            f"{area_mm2:.0f} mm2 of lung found, at least {min_area_mm2:.0f} mm2 expected",
        )
    return LungMask(lung_mask=lung_mask, threshold_hu=threshold_hu, area_mm2=area_mm2)


def _cells(n_pixels: int, spacing_mm: float) -> tuple[int, float]:
    """How many cells of the working grid lie along an axis, and their size in mm.

    Cells of about 2 mm, never smaller than the pixels: rules speak of millimeters, and the time
    does not grow with the matrix.
    """
    n_cells = min(n_pixels, max(1, round(n_pixels * spacing_mm / CELL_MM)))
    return n_cells, n_pixels * spacing_mm / n_cells


def _refusal(outcome: int, amount: float) -> SliceUnusableError:
    """Why a slice has no mask."""
    if outcome == mask_kernel.SMALL_BODY:
        return SliceUnusableError(
            "not-a-chest-slice",
            f"a body of {amount:.0f} mm2 found, at least {_MIN_BODY_MM2:.0f} mm2 expected",
        )
    if outcome == mask_kernel.SINGLE_GRAY:
        return SliceUnusableError(
            "no-lung", "the body holds a single grey value; expected lung and soft tissue"
        )
    if outcome == mask_kernel.SMALL_SPACES:
        return SliceUnusableError(
            "no-lung",
            f"largest air space in the body is {amount:.0f} mm2, gas left out; "
            f"expected lung of at least {CAGE_MM2:.0f} mm2",
        )
    return SliceUnusableError(
        "no-lung",
        f"{amount:.0f} mm2 of aerated lung found, at least {NO_LUNG_MM2:.0f} mm2 expected",
    )


def _checked_pixels(pixels_hu: npt.NDArray[Any]) -> npt.NDArray[Any]:
    pixels = np.asarray(pixels_hu)
    if pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"pixels_hu has shape {pixels.shape}, expected (n_rows, n_columns)")
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"pixels_hu has dtype {pixels.dtype}, expected a real number type")
    # One type only, always read-only: each further one would be a kernel of its own.
    view = np.require(pixels, np.float32, ("C", "A")).view()
    view.flags.writeable = False
    return view


def _checked_spacing(pixel_spacing_mm: tuple[float, float]) -> tuple[float, float]:
    row_mm, column_mm = (float(spacing) for spacing in pixel_spacing_mm)
    if not (0 < row_mm < math.inf and 0 < column_mm < math.inf):
        raise ValueError(
            f"pixel_spacing_mm is {(row_mm, column_mm)}, expected two positive numbers of mm"
        )
    return row_mm, column_mm
