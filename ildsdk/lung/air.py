"""Which air in the body is lung: threshold, then bowel gas, airways and pockets told apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ildsdk.errors import SliceUnusableError
from ildsdk.lung.grid import WorkingGrid
from ildsdk.lung.morphology import Mask, dilate, erode, label
from ildsdk.lung.thorax import Cage
from ildsdk.lung.threshold import two_means_split

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
    labels : ndarray
        int32: components of cells below ``cut_hu``, gas left out.
    area_mm2 : ndarray
        float64 ``(n + 1,)``: area by label, 0 for the background.
    is_deep : ndarray
        bool ``(n + 1,)``: lies at least 10 mm under the skin.
    gas : ndarray
        bool: air as empty as room air (trachea, stomach, pneumothorax, folds).
    """

    threshold_hu: float
    cut_hu: float
    labels: npt.NDArray[np.int32]
    area_mm2: npt.NDArray[np.float64]
    is_deep: npt.NDArray[np.bool_]
    gas: Mask

    def cells_of(self, is_wanted: npt.NDArray[np.bool_]) -> Mask:
        """Cells of the components marked in a bool array by label."""
        wanted = is_wanted.copy()
        wanted[0] = False
        return wanted[self.labels]

    def count_in(self, region: Mask) -> npt.NDArray[np.int64]:
        """Cells of each component inside a region, by label."""
        return np.bincount(self.labels[region], minlength=self.area_mm2.size)


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
    labels, n_labels = label(air)
    core_labels = labels[erode(air, _GAS_CORE_MM, grid.spacing_mm)]
    core_hu = grid.hu[erode(air, _GAS_CORE_MM, grid.spacing_mm)]
    n_core = np.bincount(core_labels, minlength=n_labels + 1)
    n_dark = np.bincount(core_labels[core_hu < _GAS_HU], minlength=n_labels + 1)
    is_gas = (n_core > 0) & (n_dark > 0.5 * n_core)
    is_gas[0] = False
    gas = dilate(is_gas[labels], _GAS_WALL_MM, grid.spacing_mm)

    threshold_hu = _threshold(grid.hu[body & ~gas])
    cut_hu = float(np.clip(threshold_hu, *_CUT_RANGE_HU))
    labels, n_labels = label((grid.hu < cut_hu) & body & ~gas)
    n_cells = np.bincount(labels.ravel(), minlength=n_labels + 1)
    n_cells[0] = 0
    deep = erode(body, _SKIN_MM, grid.spacing_mm)
    n_deep = np.bincount(labels[deep], minlength=n_labels + 1)
    area_mm2 = (n_cells * grid.cell_mm2).astype(np.float64)
    return InnerAir(threshold_hu, cut_hu, labels, area_mm2, n_deep > 0.8 * n_cells, gas)


def _threshold(inside_hu: npt.NDArray[np.float32]) -> float:
    # Whole HU keep the histogram exact for integer input and short for any.
    grey = np.rint(np.clip(inside_hu, _LOW_HU, _HIGH_HU) - _LOW_HU).astype(np.int64)
    counts = np.bincount(grey, minlength=1)
    if np.count_nonzero(counts) < 2:
        raise SliceUnusableError(
            "no-lung", "the body holds a single grey value; expected lung and soft tissue"
        )
    return two_means_split(np.arange(counts.size) + _LOW_HU, counts).threshold


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
    near = dilate(air.cells_of(is_lung_sized), _POCKET_REACH_MM, grid.spacing_mm)
    is_pocket = air.is_deep & (air.area_mm2 >= _POCKET_MM2) & (air.count_in(near) > 0)
    return air.cells_of(is_lung_sized | is_pocket)


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
    is_central = (air.count_in(mediastinum) > 0.6 * n_cells) & (air.area_mm2 < _AIRWAY_MM2)
    is_lung = air.is_deep & (air.area_mm2 >= _SEED_MM2) & ~is_central
    is_lung &= air.count_in(cage.cavity) > 0.6 * n_cells
    large = air.cells_of(is_lung & (air.area_mm2 >= _LARGE_MM2))
    near = cage.rim | dilate(large, _NEAR_MM, grid.spacing_mm)
    is_lung &= air.count_in(near) > 0
    area_mm2 = float(air.area_mm2[is_lung].sum())
    if area_mm2 < NO_LUNG_MM2:
        raise SliceUnusableError(
            "no-lung",
            f"{area_mm2:.0f} mm2 of aerated lung found, at least {NO_LUNG_MM2:.0f} mm2 expected",
        )
    return air.cells_of(is_lung), air.gas | air.cells_of(is_central)
