"""The rib cage on the working grid: where lung could be even if it holds no air.

A threshold sees air; consolidated lung holds none. Ribs show where the pleural cavity ends:
rays from the middle of the lungs find the inner side of the ribs, the convex hull of
those hits and of the aerated lung is the cage.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ildsdk.lung.ray_kernels import Bones, Outline
from ildsdk.lung.reference.grid import WorkingGrid
from ildsdk.lung.reference.morphology import Mask, erode
from ildsdk.lung.reference.rays import bones as bones_of
from ildsdk.lung.reference.rays import fill_polar, sample_rays
from ildsdk.lung.reference.rays import outline as outline_of

BONE_HU = 180.0
_N_RAYS = 240
_N_NORMALS = 80
_RAY_STEP_MM = 2.0
_RAY_LENGTH_MM = 260.0
_RIM_MM = 15.0
_CORE_MM = 30.0
_MIN_RIB_RAYS = 16
_RIB_DEPTH_MM = 5.0
_FAR_BONE_MM = 150.0
_INNER_BONE_MM = 8.0
_RIB_SCATTER_MM = 6.0
_WINDOW = 16
_EDGE_MM = 12.0
_VOTERS = 6
_DENSE_EDGE_HU = -550.0
_RETRACTED_MM = 15.0
_CURVE_ORDER = 10
_WALL_MM = (1.5, 6.0)

Points = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Cage:
    """Rib cage of one slice.

    Attributes
    ----------
    cavity : ndarray
        bool: inside the ribs, chest wall taken off.
    bone : ndarray
        bool: above 180 HU (contrast-filled vessels, too).
    wall_mm : float
        Typical distance from the cage's hull to aerated lung in this slice.
    side_mm : ndarray
        float32: mm from the mid-sagittal line, the two lungs with opposite signs.
    rim : ndarray
        bool: everything but the inside of the cavity deeper than 15 mm.
    core : ndarray
        bool: deeper than 30 mm in the cavity.
    """

    cavity: Mask
    bone: Mask
    wall_mm: float
    side_mm: npt.NDArray[np.float32]
    rim: Mask
    core: Mask


def find_cage(grid: WorkingGrid, body: Mask, aerated: Mask) -> Cage:
    """Find the rib cage around aerated lung.

    Parameters
    ----------
    grid : WorkingGrid
        The slice.
    body, aerated : ndarray
        bool ``(g_rows, g_columns)``: patient outline; air cells of the lungs, at least one.

    Returns
    -------
    Cage
        Also where no rib is seen: then the smoothed hull of the lungs bounds the cavity.
    """
    bone = (grid.hu > BONE_HU) & body
    # Leads and clips on the skin are bright, too: a rib lies at least 5 mm deep.
    deep_bone = bone & erode(body, _RIB_DEPTH_MM, grid.spacing_mm)
    spacing_mm = np.array(grid.spacing_mm)
    center, axis = _long_axis(grid, aerated)
    start = _middle(grid, aerated, center, axis) / spacing_mm
    outline, bones = _look_around(grid.hu, aerated, deep_bone, start, spacing_mm)
    lung_mm, hull_mm = outline.lung_mm, outline.hull_mm
    rib_mm, has_rib = _rib_curve(outline, bones)
    gap_mm = (rib_mm - lung_mm)[has_rib & (lung_mm > 0)]
    wall_mm = _WALL_MM[1]
    if gap_mm.size:
        wall_mm = min(max(float(np.percentile(gap_mm, 25)), _WALL_MM[0]), _WALL_MM[1])
    # A sharp edge of well aerated lung is the pleura: only dense or retracted lung may hide
    # consolidation between itself and the ribs.
    hides = (outline.edge_hu > _DENSE_EDGE_HU) | (hull_mm - lung_mm > _RETRACTED_MM)
    # One ray proves little: the majority of 13 rays.
    around = np.concatenate([hides[-_VOTERS - 1 :], hides, hides[:_VOTERS]])
    votes = np.cumsum(around, dtype=np.int64)
    hides = votes[2 * _VOTERS + 1 :] - votes[: -2 * _VOTERS - 1] > _VOTERS
    reach_mm = rib_mm - wall_mm
    reach_mm = np.where(hides, reach_mm, np.minimum(reach_mm, hull_mm + 1.5))
    cavity = fill_polar(start, spacing_mm, np.maximum(reach_mm, lung_mm), body.shape)
    cavity &= body
    side_mm = _side(grid, axis, cavity)
    rim = ~erode(cavity, _RIM_MM, grid.spacing_mm)
    core = erode(cavity, _CORE_MM, grid.spacing_mm)
    return Cage(cavity, bone, wall_mm, side_mm, rim, core)


def _look_around(
    hu: npt.NDArray[np.float32], aerated: Mask, bone: Mask, start: Points, spacing_mm: Points
) -> tuple[Outline, Bones]:
    """What rays from a point between the lungs meet."""
    directions, radius_mm, cosine = _rays()
    steps = directions * (_RAY_STEP_MM / spacing_mm)
    is_lung, is_bone, samples_hu = (
        sample_rays(grid, start, steps, radius_mm.size) for grid in (aerated, bone, hu)
    )
    n_edge = int(_EDGE_MM / _RAY_STEP_MM)
    lung_mm, edge_hu, hull_mm = outline_of(is_lung, samples_hu, radius_mm, cosine, n_edge)
    range_mm = (-_INNER_BONE_MM, _FAR_BONE_MM)
    ray, excess_mm, first_mm, ahead_mm = bones_of(is_bone, radius_mm, hull_mm, range_mm, _WINDOW)
    outline = Outline(lung_mm, edge_hu.astype(np.float32), hull_mm, first_mm, ahead_mm)
    return outline, Bones(ray, excess_mm)


def _rays() -> tuple[Points, Points, Points]:
    """What is the same for every slice, read-only.

    Unit vectors ``(n_rays, 2)``, the radius of the samples along each, and the cosine of ray and
    normal of the hull ``(n_rays, n_normals)``.
    """
    directions = _unit_vectors(_N_RAYS)
    radius_mm = np.arange(0.0, _RAY_LENGTH_MM, _RAY_STEP_MM)
    cosine = directions @ _unit_vectors(_N_NORMALS).T
    return directions, radius_mm, cosine


def _long_axis(grid: WorkingGrid, mask: Mask) -> tuple[Points, Points]:
    """Centroid (row, column) in mm and unit vector of the longest spread of a mask."""
    rows_mm = np.arange(mask.shape[0]) * grid.spacing_mm[0]
    columns_mm = np.arange(mask.shape[1]) * grid.spacing_mm[1]
    cells = mask.astype(np.float64)
    down = cells.sum(axis=1)
    right = cells.sum(axis=0)
    total = float(down.sum())
    center = np.array([float(down @ rows_mm), float(right @ columns_mm)]) / total
    rows_mm = rows_mm - center[0]
    columns_mm = columns_mm - center[1]
    cross = float(rows_mm @ (cells @ columns_mm))
    angle = 0.5 * np.arctan2(2 * cross, float(right @ columns_mm**2) - float(down @ rows_mm**2))
    return center, np.array([np.sin(angle), np.cos(angle)])


def _row_ends(mask: Mask) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column of the first and the last True pixel of each row that has one.

    What rises or falls steadily along rows has its extremes over the mask there.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    used = mask[rows]
    first = used.argmax(axis=1)
    last = mask.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
    return np.concatenate([rows, rows]), np.concatenate([first, last])


def _middle(grid: WorkingGrid, aerated: Mask, center: Points, axis: Points) -> Points:
    """Point between the lungs, also where one of them holds little air."""
    i, j = _row_ends(aerated)
    along = (i * grid.spacing_mm[0] - center[0]) * axis[0]
    along += (j * grid.spacing_mm[1] - center[1]) * axis[1]
    return center + axis * (float(along.min()) + float(along.max())) / 2


def _side(grid: WorkingGrid, axis: Points, cavity: Mask) -> npt.NDArray[np.float32]:
    """Signed distance in mm from the mid-sagittal line.

    The two lungs lie side by side: the long axis of the aerated cells runs from one to the
    other in any pose; the line stands on it in the middle of the cavity.
    """
    down = np.arange(cavity.shape[0], dtype=np.float32) * grid.spacing_mm[0] * axis[0]
    right = np.arange(cavity.shape[1], dtype=np.float32) * grid.spacing_mm[1] * axis[1]
    if not cavity.any():
        return np.full(cavity.shape, np.nan, dtype=np.float32)
    i, j = _row_ends(cavity)
    span = down[i] + right[j]
    middle = (span.min() + span.max()) / 2
    return np.asarray(down[:, None] + right - middle, dtype=np.float32)


def _unit_vectors(n: int) -> Points:
    angle = np.arange(n) * (2 * np.pi / n)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _rib_curve(outline: Outline, bones: Bones) -> tuple[Points, npt.NDArray[np.bool_]]:
    """Radius of the ribs' inner side for each ray, and where a rib was met.

    Ribs are measured as distance from the convex hull of the aerated lung. Consolidation
    moves that hull away from all ribs of a sector, so the distance that is usual around a ray
    (lower quartile over 24 degrees) is believed; a bone far from it is none: scapula
    or arm seen between two ribs, vertebra or bright vessel inside.
    """
    usual_mm = _usual(outline)
    nothing = outline.hull_mm + _WALL_MM[1], np.zeros(_N_RAYS, dtype=np.bool_)
    if usual_mm is None:
        return nothing
    # Of a ray's bones the one nearest to what is usual, unless it lies behind that.
    is_near = bones.excess_mm <= usual_mm[bones.ray] + _RIB_SCATTER_MM
    ray, excess_mm = bones.ray[is_near], bones.excess_mm[is_near]
    rib_mm = np.full(_N_RAYS, np.inf)
    order = np.argsort(-np.abs(excess_mm - usual_mm[ray]), kind="stable")
    rib_mm[ray[order]] = excess_mm[order]  # the last written is the nearest
    has_rib = np.isfinite(rib_mm)
    for _ in range(2):
        known = np.flatnonzero(has_rib)
        if known.size < _MIN_RIB_RAYS:
            return nothing
        curve_mm = _smooth_closed(_filled(known, rib_mm[known]), _CURVE_ORDER)
        has_rib &= np.abs(rib_mm - curve_mm) <= _RIB_SCATTER_MM
    rib_mm = np.where(has_rib, np.minimum(rib_mm, curve_mm + 1.5), curve_mm)
    return outline.hull_mm + rib_mm, has_rib


def _usual(outline: Outline) -> Points | None:
    """Rib distance to expect at each ray; None where too few rays met a bone.

    The lower quartile of the rays to either side, then the larger of the two: beside the spine
    and at the edge of a consolidation one side alone tells the truth.
    """
    if np.count_nonzero(np.isfinite(outline.first_mm)) < _MIN_RIB_RAYS:
        return None
    ahead_mm = outline.ahead_mm
    usual_mm = np.maximum(ahead_mm, np.concatenate([ahead_mm[-_WINDOW:], ahead_mm[:-_WINDOW]]))
    sure = np.flatnonzero(np.isfinite(usual_mm))
    if sure.size == 0:
        return None
    return _filled(sure, usual_mm[sure])


def _filled(known: npt.NDArray[np.int64], values: Points) -> Points:
    """Values of all rays from those of some, interpolated all around."""
    rays = np.concatenate([known[-1:] - _N_RAYS, known, known[:1] + _N_RAYS])
    around = np.concatenate([values[-1:], values, values[:1]])
    return np.asarray(np.interp(np.arange(_N_RAYS), rays, around))


def _smooth_closed(values: Points, order: int) -> Points:
    """Low-pass a closed curve: its Fourier series up to ``order``."""
    spectrum = np.fft.rfft(values)
    spectrum[order + 1 :] = 0
    return np.asarray(np.fft.irfft(spectrum, n=values.size))
