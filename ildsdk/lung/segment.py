"""The lung mask of one axial CT slice (method section 1.3 and what it leaves open)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import SliceUnusableError
from ildsdk.lung import kernels
from ildsdk.lung.air import candidate_lung, choose_lung, find_inner_air
from ildsdk.lung.body import find_body
from ildsdk.lung.grid import WorkingGrid, to_working_grid
from ildsdk.lung.morphology import Mask
from ildsdk.lung.repair import repair_lung
from ildsdk.lung.thorax import find_cage
from ildsdk.records import LungMask

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
        float32 or int16 ``(n_rows, n_columns)``, HU; any memory layout, may be read-only, is not
        changed. Other real dtypes are converted. NaN and padding below -1024 HU count as air.
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
    grid = to_working_grid(pixels, spacing_mm)
    body = find_body(grid)
    body_mm2 = np.count_nonzero(body) * grid.cell_mm2
    if body_mm2 < _MIN_BODY_MM2:
        raise SliceUnusableError(
            "not-a-chest-slice",
            f"a body of {body_mm2:.0f} mm2 found, at least {_MIN_BODY_MM2:.0f} mm2 expected",
        )
    grid, body = _crop(grid, body)
    air = find_inner_air(grid, body)
    cage = find_cage(grid, body, candidate_lung(grid, air))
    aerated, airway = choose_lung(grid, air, cage)
    lung = repair_lung(grid, air, cage, aerated, airway)
    lung_mask = _to_pixels(pixels, grid, lung, airway, air.cut_hu)
    area_mm2 = float(np.count_nonzero(lung_mask)) * spacing_mm[0] * spacing_mm[1]
    if area_mm2 < min_area_mm2:
        raise SliceUnusableError(
            "too-little-lung",
            f"{area_mm2:.0f} mm2 of lung found, at least {min_area_mm2:.0f} mm2 expected",
        )
    return LungMask(lung_mask=lung_mask, threshold_hu=air.threshold_hu, area_mm2=area_mm2)


def _checked_pixels(pixels_hu: npt.NDArray[Any]) -> npt.NDArray[Any]:
    pixels = np.asarray(pixels_hu)
    if pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"pixels_hu has shape {pixels.shape}, expected (n_rows, n_columns)")
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"pixels_hu has dtype {pixels.dtype}, expected a real number type")
    # Two native types only: each further one would compile the kernels once more.
    dtype = np.int16 if pixels.dtype == np.dtype(np.int16) else np.float32
    return np.ascontiguousarray(pixels, dtype=dtype)


def _checked_spacing(pixel_spacing_mm: tuple[float, float]) -> tuple[float, float]:
    row_mm, column_mm = (float(spacing) for spacing in pixel_spacing_mm)
    if not (0 < row_mm < math.inf and 0 < column_mm < math.inf):
        raise ValueError(
            f"pixel_spacing_mm is {(row_mm, column_mm)}, expected two positive numbers of mm"
        )
    return row_mm, column_mm


def _crop(grid: WorkingGrid, body: Mask) -> tuple[WorkingGrid, Mask]:
    """Leave the air around the patient behind: nothing after this looks at it."""
    rows, columns = (np.flatnonzero(body.any(axis=axis)) for axis in (1, 0))
    window = (
        slice(max(int(rows[0]) - 1, 0), int(rows[-1]) + 2),
        slice(max(int(columns[0]) - 1, 0), int(columns[-1]) + 2),
    )
    return grid.cropped(*window), np.ascontiguousarray(body[window])


def _to_pixels(
    pixels: npt.NDArray[Any], grid: WorkingGrid, lung: Mask, airway: Mask, cut_hu: float
) -> Mask:
    """Bring the grid's mask to the pixels; along its border the pixels' own HU decide."""
    lung_mask = np.empty(pixels.shape, dtype=np.bool_)
    n_rows, n_columns = lung.shape
    top, down = _cell_before(grid.row_position, n_rows)
    left, across = _cell_before(grid.column_position, n_columns)
    kernels.refine_mask(
        pixels,
        lung,
        lung & (grid.hu >= cut_hu),
        airway,
        np.searchsorted(top, np.arange(n_rows + 1)),
        down,
        np.searchsorted(left, np.arange(n_columns + 1)),
        left.astype(np.uint32),
        across,
        cut_hu,
        np.empty(n_columns, dtype=np.bool_),
        np.empty(n_columns, dtype=np.int64),
        lung_mask,
    )
    return lung_mask


def _cell_before(
    position: npt.NDArray[np.float64], n_cells: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Cell at or before each position, held to the grid, and the way to the next."""
    held = np.clip(position, 0.0, n_cells - 1.0)
    cell = held.astype(np.int64)
    return cell, (held - cell).astype(np.float32)
