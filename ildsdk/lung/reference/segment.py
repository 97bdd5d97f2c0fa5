"""The lung mask of one slice, rule by rule; see :func:`ildsdk.lung.segment_lung`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import SliceUnusableError
from ildsdk.lung.reference.air import candidate_lung, choose_lung, find_inner_air
from ildsdk.lung.reference.body import find_body
from ildsdk.lung.reference.grid import WorkingGrid, cell_before, refine_mask, to_working_grid
from ildsdk.lung.reference.morphology import Mask
from ildsdk.lung.reference.repair import repair_lung
from ildsdk.lung.reference.thorax import find_cage
from ildsdk.records import LungMask

_MIN_BODY_MM2 = 8000.0


def segment_lung(
    pixels_hu: npt.NDArray[np.float32], pixel_spacing_mm: tuple[float, float]
) -> LungMask:
    """Find the lungs in one axial chest CT slice.

    Parameters
    ----------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, HU.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.

    Raises
    ------
    SliceUnusableError
        ``"not-a-chest-slice"`` or ``"no-lung"``; the least area of the lung is not asked for.
    """
    grid = to_working_grid(pixels_hu, pixel_spacing_mm)
    body = find_body(grid)
    body_mm2 = np.count_nonzero(body) * grid.cell_mm2
    if body_mm2 < _MIN_BODY_MM2:
        raise SliceUnusableError("not-a-chest-slice", f"a body of {body_mm2:.0f} mm2 found")
    grid, body = _crop(grid, body)
    air = find_inner_air(grid, body)
    cage = find_cage(grid, body, candidate_lung(grid, air))
    aerated, airway = choose_lung(grid, air, cage)
    lung = repair_lung(grid, air, cage, aerated, airway)
    lung_mask = _to_pixels(pixels_hu, grid, lung, airway, air.cut_hu)
    area_mm2 = float(np.count_nonzero(lung_mask)) * pixel_spacing_mm[0] * pixel_spacing_mm[1]
    return LungMask(lung_mask=lung_mask, threshold_hu=air.threshold_hu, area_mm2=area_mm2)


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
    n_rows, n_columns = lung.shape
    top, down = cell_before(grid.row_position, n_rows)
    left, across = cell_before(grid.column_position, n_columns)
    return refine_mask(
        pixels,
        lung,
        lung & (grid.hu >= cut_hu),
        airway,
        np.searchsorted(top, np.arange(n_rows + 1)),
        down,
        np.searchsorted(left, np.arange(n_columns + 1)),
        across,
        cut_hu,
    )
