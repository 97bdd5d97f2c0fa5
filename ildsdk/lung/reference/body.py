"""The patient on the working grid: skin and inward, without table, clothing and leads."""

from __future__ import annotations

import numpy as np

from ildsdk.lung.reference.components import Components
from ildsdk.lung.reference.grid import WorkingGrid
from ildsdk.lung.reference.morphology import Mask, close, dilate, erode

TISSUE_HU = -400.0
_DETACH_MM = 4.0
_SEAL_MM = 4.0
_PADDING_HU = -1023.5
_ROOM_AIR_HU = -945.0
_MAX_CUT_MM = 180.0
_MIN_CUT_LUNG_MM2 = 1500.0
_CUT_LUNG_CORE_MM = 10.0
_MIN_CUT_LUNG_WALL = 0.8


def find_body(grid: WorkingGrid) -> Mask:
    """Outline of the patient, filled: soft tissue and all air inside.

    Parameters
    ----------
    grid : WorkingGrid
        The slice.

    Returns
    -------
    ndarray
        bool ``(g_rows, g_columns)``; all False where there is no tissue.

    Notes
    -----
    Tissue (above -400 HU) eroded by 4 mm: the largest piece is the trunk; table top,
    clothing and leads, thinner than 8 mm or apart, fall away. Grown back inside the
    tissue, sealed by a 4 mm closing (skin folds). Air that the border reaches is
    outside, unless it is lung cut by a small field of view (see :func:`_is_cut_lung`).
    """
    tissue = grid.hu > TISSUE_HU
    trunk = _largest(erode(tissue, _DETACH_MM, grid.spacing_mm))
    if not trunk.any():
        return trunk
    trunk = dilate(trunk, _DETACH_MM + 1.0, grid.spacing_mm) & tissue
    trunk = close(trunk, _SEAL_MM, grid.spacing_mm)
    # Padding around a circular field is no air: it must not join lung that the circle cuts.
    void = _touching_border(grid.hu <= _PADDING_HU)
    spaces = Components.of(~(trunk | void))
    contact_mm = spaces.count_in(_frame(void, grid.spacing_mm)) * max(grid.spacing_mm)
    is_outside = contact_mm > 0
    is_large = spaces.n_cells >= grid.cells(_MIN_CUT_LUNG_MM2)
    for space in np.flatnonzero(is_outside & is_large & (contact_mm < _MAX_CUT_MM)):
        is_this = np.arange(is_outside.size) == space
        is_outside[space] = not _is_cut_lung(grid, spaces.cells_of(is_this), trunk)
    return ~(spaces.cells_of(is_outside) | void)


def _touching_border(mask: Mask) -> Mask:
    pieces = Components.of(mask)
    return pieces.cells_of(pieces.touches_border())


def _frame(void: Mask, spacing_mm: tuple[float, float]) -> Mask:
    """The outermost cells of the picture: along its border and along the padding."""
    frame = dilate(void, max(spacing_mm), spacing_mm) if void.any() else np.zeros_like(void)
    frame[[0, -1]] = True
    frame[:, [0, -1]] = True
    return frame


def _is_cut_lung(grid: WorkingGrid, air: Mask, trunk: Mask) -> bool:
    """Tell lung that the image border cuts from room air, mattress and foam.

    Lung is large (which the caller has seen to), not as empty as room air, thick, and its rim
    inside the image is nearly all trunk; a mattress has the table on its other side.
    """
    if float(grid.hu[air].mean()) < _ROOM_AIR_HU:
        return False
    if not erode(air, _CUT_LUNG_CORE_MM, grid.spacing_mm).any():
        return False
    rim = dilate(air, 2.0 * max(grid.spacing_mm), grid.spacing_mm) & ~air & (grid.hu > TISSUE_HU)
    return bool(np.count_nonzero(rim & trunk) >= _MIN_CUT_LUNG_WALL * np.count_nonzero(rim))


def _largest(mask: Mask) -> Mask:
    pieces = Components.of(mask)
    return pieces.cells_of(np.arange(pieces.n_cells.size) == np.argmax(pieces.n_cells))
