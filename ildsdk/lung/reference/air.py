"""Which air in the body is lung: threshold, then bowel gas, airways and pockets told apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ildsdk.errors import SliceUnusableError
from ildsdk.lung.reference.components import Components
from ildsdk.lung.reference.grid import WorkingGrid
from ildsdk.lung.reference.morphology import Mask, dilate, erode
from ildsdk.lung.reference.thorax import Cage
from ildsdk.lung.threshold import split_histogram

_LOW_HU, _HIGH_HU = -1250.0, 250.0
_CUT_RANGE_HU = (-450.0, -250.0)
_GAS_HU = -930.0
_GAS_CORE_MM = 3.0
_GAS_WALL_MM = 3.0
_SKIN_MM = 10.0
_POCKET_MM2 = 25.0
_POCKET_REACH_MM = 20.0
_SEED_MM2 = 100.0
_CAGE_MM2 = 200.0
_LARGE_MM2 = 1000.0
_MEDIASTINUM_MM = 30.0
_AIRWAY_MM2 = 700.0
_NEAR_MM = 15.0
NO_LUNG_MM2 = 1000.0


@dataclasses.dataclass(frozen=True, slots=True)
class InnerAir:
    """Air inside the body, before anatomy is known.

    Attributes
    ----------
    threshold_hu, cut_hu : float
        The exact two-means threshold of the body without gas; the same held to
        [-450, -250] HU, which is what binarises.
    spaces : Components
        Of the cells below ``cut_hu``, gas left out.
    area_mm2 : ndarray
        float64 ``(n + 1,)``: area of each space, 0 for the background.
    is_deep : ndarray
        bool ``(n + 1,)``: lies at least 10 mm under the skin.
    gas : ndarray
        bool: air as empty as room air (trachea, stomach, pneumothorax, folds).
    """

    threshold_hu: float
    cut_hu: float
    spaces: Components
    area_mm2: npt.NDArray[np.float64]
    is_deep: npt.NDArray[np.bool_]
    gas: Mask


def find_inner_air(grid: WorkingGrid, body: Mask) -> InnerAir:
    """Binarise the body by the two-means threshold and set gas apart.

    Raises
    ------
    SliceUnusableError
        ``"no-lung"``: the body holds a single grey value.

    Notes
    -----
    Gas: components below -400 HU of which most of the core (3 mm inside) is below -930 HU.
    Lung always holds vessels and septa, so even emphysema stays above. The threshold
    is taken over the body without gas, so that a full stomach does not move it. With little
    lung in the slice the best split parts fat from muscle; the cut is therefore held to the
    range in which lung and soft tissue meet.
    """
    air = (grid.hu < -400.0) & body
    core = erode(air, _GAS_CORE_MM, grid.spacing_mm)
    spaces = Components.of(air)
    n_core = spaces.count_in(core)
    n_dark = spaces.count_in(core & (grid.hu < _GAS_HU))
    is_gas = (n_core > 0) & (n_dark > 0.5 * n_core)
    gas = dilate(spaces.cells_of(is_gas), _GAS_WALL_MM, grid.spacing_mm)

    tissue_and_lung = body & ~gas
    threshold_hu = _threshold(grid.hu, tissue_and_lung)
    cut_hu = min(max(threshold_hu, _CUT_RANGE_HU[0]), _CUT_RANGE_HU[1])
    spaces = Components.of((grid.hu < cut_hu) & tissue_and_lung)
    n_deep = spaces.count_in(erode(body, _SKIN_MM, grid.spacing_mm))
    area_mm2 = spaces.n_cells.astype(np.float64) * grid.cell_mm2
    return InnerAir(threshold_hu, cut_hu, spaces, area_mm2, n_deep > 0.8 * spaces.n_cells, gas)


def _threshold(hu: npt.NDArray[np.float32], inside: Mask) -> float:
    # Whole HU keep the histogram exact for integer input and short for any.
    n_grays = int(_HIGH_HU - _LOW_HU) + 1
    gray = np.clip(hu, _LOW_HU, _HIGH_HU)
    gray -= _LOW_HU
    np.rint(gray, out=gray)
    gray[~inside] = n_grays
    counts = np.bincount(gray.ravel().astype(np.intp), minlength=n_grays)[:n_grays]
    grays = np.flatnonzero(counts)
    if grays.size < 2:
        raise SliceUnusableError(
            "no-lung", "the body holds a single grey value; expected lung and soft tissue"
        )
    return split_histogram(
        grays.astype(np.float64) + _LOW_HU, counts[grays].astype(np.float64)
    ).threshold


def candidate_lung(grid: WorkingGrid, air: InnerAir) -> Mask:
    """Air cells that may be lung, for finding the rib cage around them.

    Raises
    ------
    SliceUnusableError
        ``"no-lung"``: no component of 200 mm2 lies deep in the body.
    """
    is_lung_sized = air.is_deep & (air.area_mm2 >= _CAGE_MM2)
    if not is_lung_sized.any():
        raise SliceUnusableError(
            "no-lung",
            f"largest air space in the body is {air.area_mm2.max():.0f} mm2, gas left out; "
            f"expected lung of at least {_CAGE_MM2:.0f} mm2",
        )
    # Pockets of air in consolidation show how far the lung reaches, if lung is not far.
    near = dilate(air.spaces.cells_of(is_lung_sized), _POCKET_REACH_MM, grid.spacing_mm)
    is_pocket = air.is_deep & (air.area_mm2 >= _POCKET_MM2) & (air.spaces.count_in(near) > 0)
    return air.spaces.cells_of(is_lung_sized | is_pocket)


def choose_lung(grid: WorkingGrid, air: InnerAir, cage: Cage) -> tuple[Mask, Mask]:
    """Split the air of the cage into lung and airway.

    Returns
    -------
    lung, airway : ndarray
        bool ``(g_rows, g_columns)``. ``airway`` also holds all gas.

    Raises
    ------
    SliceUnusableError
        ``"no-lung"``: less than 1000 mm2 of aerated lung.

    Notes
    -----
    Airway (or esophagus): under 700 mm2 and mostly in the mediastinum, that is 30 mm inside the
    cage and within 30 mm of the midline. Lung: at least 100 mm2, mostly
    inside the cage, and either large (1000 mm2), or near a large one (15 mm), or near
    the ribs (15 mm).
    """
    mediastinum = cage.core & (np.abs(cage.side_mm) < _MEDIASTINUM_MM)
    n_cells = np.maximum(air.area_mm2 / grid.cell_mm2, 1.0)
    is_central = (air.spaces.count_in(mediastinum) > 0.6 * n_cells) & (air.area_mm2 < _AIRWAY_MM2)
    is_lung = air.is_deep & (air.area_mm2 >= _SEED_MM2) & ~is_central
    is_lung &= air.spaces.count_in(cage.cavity) > 0.6 * n_cells
    large = air.spaces.cells_of(is_lung & (air.area_mm2 >= _LARGE_MM2))
    near = cage.rim | dilate(large, _NEAR_MM, grid.spacing_mm)
    is_lung &= air.spaces.count_in(near) > 0
    area_mm2 = float(air.area_mm2[is_lung].sum())
    if area_mm2 < NO_LUNG_MM2:
        raise SliceUnusableError(
            "no-lung",
            f"{area_mm2:.0f} mm2 of aerated lung found, at least {NO_LUNG_MM2:.0f} mm2 expected",
        )
    return air.spaces.cells_of(is_lung), air.gas | air.spaces.cells_of(is_central)
