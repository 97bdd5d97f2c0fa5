"""Give diseased lung back to the mask: ground glass, consolidation, vessels, honeycomb walls.

A threshold keeps air. What disease fills is recovered by rules that need evidence in the slice:
partly aerated cells beside lung, pockets of air inside consolidation, the ribs behind it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ildsdk.lung.reference.air import InnerAir
from ildsdk.lung.reference.components import Components, fill_holes
from ildsdk.lung.reference.grid import WorkingGrid
from ildsdk.lung.reference.morphology import Mask, close, dilate, open_
from ildsdk.lung.reference.thorax import Cage

_GROUND_GLASS_HU = (-200.0, -180.0)
_GROUND_GLASS_MM = 2.1
_FAT_HU = (-150.0, -35.0)
_FAT_SPREAD_HU = 50.0
_FAT_MM = 3.0
_BONE_MARGIN_MM = 2.0
_POCKET_HU = (-180.0, -160.0)
_POCKET_LINK_MM = 6.0
_VESSEL_MM = 5.0
_CONSOLIDATION_MM = 15.0
_MIDLINE_MM = 25.0
_FILL_MM = 5.0
_SMOOTH_MM = 4.0
_HOLE_MM2 = 1200.0
_NOISE_MM = 2.1
_PIECE_MM2 = 150.0


def repair_lung(grid: WorkingGrid, air: InnerAir, cage: Cage, lung: Mask, airway: Mask) -> Mask:
    """Extend aerated lung over the disease that a threshold loses.

    Parameters
    ----------
    grid, air, cage
        The slice, its inner air, its rib cage.
    lung, airway : ndarray
        bool ``(g_rows, g_columns)`` from :func:`ildsdk.lung.air.choose_lung`.

    Returns
    -------
    ndarray
        bool ``(g_rows, g_columns)``: lung with its outline repaired.

    Notes
    -----
    The written rules are in ``docs/lung-mask.md``, numbered as here.
    """
    spacing_mm = grid.spacing_mm
    smooth_hu = mean_of_nine(grid.hu)
    # Rule 5: ground glass. Denser than the cut, still lighter than fat, two cells thick or more
    # (a partial-volume rim is thinner), connected to lung.
    light = (smooth_hu < _GROUND_GLASS_HU[0]) & (grid.hu < _GROUND_GLASS_HU[1])
    light &= cage.cavity & ~airway
    lung = _pieces_with(open_(light | lung, _GROUND_GLASS_MM, spacing_mm) | lung, lung)

    # Fat is even; consolidation with air in it has the same mean here and there, never evenly.
    variance = mean_of_nine(grid.hu * grid.hu) - smooth_hu * smooth_hu
    fat = (smooth_hu > _FAT_HU[0]) & (smooth_hu < _FAT_HU[1]) & (variance < _FAT_SPREAD_HU**2)
    fat = open_(fat, _FAT_MM, spacing_mm)
    # Rule 6: pockets of air in consolidation, chained to lung by gaps of at most 12 mm and within
    # 30 mm of the ribs (food in the stomach looks the same, but lies deeper).
    pockets = ((grid.hu < _POCKET_HU[0]) | (smooth_hu < _POCKET_HU[1])) & cage.cavity
    pockets &= ~(airway | fat | cage.core)
    pockets &= _pieces_with(dilate(pockets | lung, _POCKET_LINK_MM, spacing_mm), lung)

    # Rules 7 and 8, each lung for itself: what lies between the lungs belongs to neither.
    rib = cage.bone & cage.rim
    barred = dilate(rib, _BONE_MARGIN_MM, spacing_mm) | airway | fat | ~cage.cavity
    repaired = lung.copy()
    wall = ~cage.cavity & (np.abs(cage.side_mm) > _MIDLINE_MM)
    for half in (cage.side_mm < 0, cage.side_mm >= 0):
        if not (lung & half).any():
            continue
        window = _window(half & (cage.cavity | lung), _CONSOLIDATION_MM, spacing_mm)
        own = half[window]
        filled = close(lung[window] & own, _VESSEL_MM, spacing_mm)
        known = filled | (wall[window] & own) | (pockets[window] & own)
        behind = close(known, _CONSOLIDATION_MM, spacing_mm) & ~barred[window]
        repaired[window] |= filled | open_(behind | filled, _FILL_MM, spacing_mm)
    # Rule 9: smooth the outline, close holes, drop noise.
    repaired = close(repaired, _SMOOTH_MM, spacing_mm) & (cage.cavity | lung)
    repaired = fill_holes(repaired, grid.cells(_HOLE_MM2)) & ~airway
    repaired = open_(repaired, _NOISE_MM, spacing_mm)
    return _pieces_with(repaired, lung, grid.cells(_PIECE_MM2))


def _window(mask: Mask, margin_mm: float, spacing_mm: tuple[float, float]) -> tuple[slice, slice]:
    """Bounding box of a mask with a margin: half the cells, half the time."""
    bounds = []
    for axis, step_mm in ((1, spacing_mm[0]), (0, spacing_mm[1])):
        used = np.flatnonzero(mask.any(axis=axis))
        margin = int(margin_mm / step_mm) + 1
        bounds.append(slice(max(int(used[0]) - margin, 0), int(used[-1]) + margin + 1))
    return bounds[0], bounds[1]


def mean_of_nine(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean over 3 x 3 cells; beyond the border its cells go on."""
    n_rows, n_columns = hu.shape
    wide = np.empty((n_rows, n_columns + 2), dtype=np.float32)
    wide[:, 1:-1] = hu
    wide[:, 0], wide[:, -1] = hu[:, 0], hu[:, -1]
    rows = np.empty_like(wide)
    np.add(wide[:-1], wide[1:], out=rows[1:])
    rows[0] = wide[0] + wide[0]
    rows[:-1] += wide[1:]
    rows[-1] += wide[-1]
    total = rows[:, :-2] + rows[:, 1:-1]
    total += rows[:, 2:]
    total *= np.float32(1 / 9)
    return total


def _pieces_with(mask: Mask, seed: Mask, min_cells: float = 1.0) -> Mask:
    """Components of ``mask`` that hold a seed cell and enough cells."""
    pieces = Components.of(mask)
    return pieces.cells_of((pieces.count_in(seed) > 0) & (pieces.n_cells >= min_cells))
