"""Numba kernels of the rib cage: rays from a point between the lungs.

Preconditions that are not checked: as in ``kernels.py``. The twins are in ``reference.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from native_hash.jit import ORDERED, SCAN_FASTMATH, kernel


class Bones(NamedTuple):
    """Where rays meet bone, in the order of rays, and outward along each.

    Attributes
    ----------
    ray : ndarray
        int64 ``(n,)``.
    excess_mm : ndarray
        float64 ``(n,)``: how far outside the hull of the lungs the bone begins.
    """

    ray: npt.NDArray[np.int64]
    excess_mm: npt.NDArray[np.float64]


class Outline(NamedTuple):
    """The lungs and the first bones as rays see them.

    Attributes
    ----------
    lung_mm : ndarray
        float64 ``(n_rays,)``: radius of the outermost aerated cell, 0 where there is none.
    edge_hu : ndarray
        float32 ``(n_rays,)``: mean of the aerated cells among the last samples up to there; a ray
        too short for them counts its first one again.
    hull_mm : ndarray
        float64 ``(n_rays,)``: radius of the convex hull of those cells.
    first_mm : ndarray
        float64 ``(n_rays,)``: least excess of the ray's bones, infinity without one.
    ahead_mm : ndarray
        float64 ``(n_rays,)``: lower quartile of ``first_mm`` over this ray and those ahead; minus
        infinity where fewer than 3 of them met a bone.
    """

    lung_mm: npt.NDArray[np.float64]
    edge_hu: npt.NDArray[np.float32]
    hull_mm: npt.NDArray[np.float64]
    first_mm: npt.NDArray[np.float64]
    ahead_mm: npt.NDArray[np.float64]


@kernel(SCAN_FASTMATH)
def _sample(
    grid_hu: Any,
    aerated: Any,
    bone: Any,
    start: Any,
    step_cells: Any,
    is_lung: Any,
    is_bone: Any,
    hu: Any,
) -> int:
    """Read three grids along one ray, nearest cell; returns how many samples lie on the grid."""
    g_rows, g_columns = grid_hu.shape
    for step in range(hu.size):
        i = int(np.floor(start[0] + step_cells[0] * step + 0.5))
        j = int(np.floor(start[1] + step_cells[1] * step + 0.5))
        if i < 0 or j < 0 or i >= g_rows or j >= g_columns:
            return step
        is_lung[step] = aerated[i, j]
        is_bone[step] = bone[i, j]
        hu[step] = grid_hu[i, j]
    return int(hu.size)


@kernel(ORDERED)
def _follow(
    grid_hu: Any,
    aerated: Any,
    bone: Any,
    start: Any,
    steps: Any,
    radius_mm: Any,
    n_edge: Any,
    samples: Any,
    lung_mm: Any,
    edge_hu: Any,
    bones: Any,
) -> int:
    """Lung and bones along each ray, distances from the start; returns how many bones."""
    is_lung, is_bone, hu = samples
    n_bones = 0
    for ray in range(steps.shape[0]):
        n_samples = _sample(grid_hu, aerated, bone, start, steps[ray], is_lung, is_bone, hu)
        last = n_samples - 1
        while last >= 0 and not is_lung[last]:
            last -= 1
        lung_mm[ray] = radius_mm[last] if last >= 0 else 0.0
        total = np.float32(0)
        n_used = 0
        if last >= 0:
            for back in range(n_edge):
                step = max(last - back, 0)
                if is_lung[step]:
                    total += hu[step]
                    n_used += 1
        edge_hu[ray] = np.float64(total) / max(n_used, 1)
        for step in range(1, n_samples):
            if is_bone[step] and not is_bone[step - 1]:
                bones.ray[n_bones] = ray
                bones.excess_mm[n_bones] = radius_mm[step]
                n_bones += 1
    return n_bones


@kernel(ORDERED)
def _hull(lung_mm: Any, cosine: Any, support: Any, hull_mm: Any) -> None:
    """Radius along each ray of the convex hull of a star-shaped outline."""
    n_rays, n_normals = cosine.shape
    support[:] = -np.inf
    for ray in range(n_rays):
        for k in range(n_normals):
            support[k] = max(support[k], lung_mm[ray] * cosine[ray, k])
    for ray in range(n_rays):
        least = np.inf
        for k in range(n_normals):
            if cosine[ray, k] > 1e-9:
                least = min(least, support[k] / cosine[ray, k])
        hull_mm[ray] = least


@kernel(ORDERED)
def _quartile_ahead(first_mm: Any, ray: Any, window: Any) -> float:
    """Lower quartile of the finite values from a ray on; minus infinity if fewer than 3."""
    n_finite = 0
    for k in range(window.size):
        value = first_mm[(ray + k) % first_mm.size]
        if value == np.inf:
            continue
        place = n_finite
        while place > 0 and window[place - 1] > value:
            window[place] = window[place - 1]
            place -= 1
        window[place] = value
        n_finite += 1
    return window[n_finite // 4] if n_finite >= 3 else -np.inf


@kernel(ORDERED)
def cast_rays(
    grid_hu: npt.NDArray[np.float32],
    aerated: npt.NDArray[np.bool_],
    bone: npt.NDArray[np.bool_],
    start: npt.NDArray[np.float64],
    steps: npt.NDArray[np.float64],
    radius_mm: npt.NDArray[np.float64],
    cosine: npt.NDArray[np.float64],
    n_edge: int,
    range_mm: tuple[float, float],
    samples: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.float32]],
    support: npt.NDArray[np.float64],
    window: npt.NDArray[np.float64],
    outline: Outline,
    bones: Bones,
) -> int:
    """Follow rays from one point through lung and bone.

    Parameters
    ----------
    grid_hu, aerated, bone : ndarray
        ``(g_rows, g_columns)``.
    start : ndarray
        float64 ``(2,)``: row and column of the common start, in cells.
    steps : ndarray
        float64 ``(n_rays, 2)``: row and column added by one step, in cells.
    radius_mm : ndarray
        float64 ``(n_steps,)``: distance from the start of each step.
    cosine : ndarray
        float64 ``(n_rays, n_normals)``, of the angle between ray and normal of the hull.
    n_edge : int
        How many samples make the lung's edge.
    range_mm : tuple of float
        Least and greatest distance from the hull of a bone that counts.
    samples : tuple of ndarray
        bool, bool and float32 ``(n_steps,)`` scratch.
    support, window : ndarray
        float64 ``(n_normals,)`` and ``(rays ahead + 1,)`` scratch.
    outline : Outline
        Overwritten.
    bones : Bones
        Room for one bone a sample, overwritten.

    Returns
    -------
    int
        How many bones count.
    """
    n_bones = _follow(
        grid_hu,
        aerated,
        bone,
        start,
        steps,
        radius_mm,
        n_edge,
        samples,
        outline.lung_mm,
        outline.edge_hu,
        bones,
    )
    _hull(outline.lung_mm, cosine, support, outline.hull_mm)
    outline.first_mm[:] = np.inf
    n_kept = 0
    for k in range(n_bones):
        ray = bones.ray[k]
        excess_mm = bones.excess_mm[k] - outline.hull_mm[ray]
        if excess_mm >= range_mm[0] and excess_mm <= range_mm[1]:
            bones.ray[n_kept] = ray
            bones.excess_mm[n_kept] = excess_mm
            n_kept += 1
            outline.first_mm[ray] = min(outline.first_mm[ray], excess_mm)
    for ray in range(steps.shape[0]):
        outline.ahead_mm[ray] = _quartile_ahead(outline.first_mm, ray, window)
    return n_kept


@kernel(SCAN_FASTMATH)
def fill_polar(
    start: npt.NDArray[np.float64],
    spacing_mm: npt.NDArray[np.float64],
    reach_mm: npt.NDArray[np.float64],
    bounds: npt.NDArray[np.float64],
    out: npt.NDArray[np.bool_],
) -> None:
    """Mark the cells inside a star-shaped outline.

    Parameters
    ----------
    start : ndarray
        float64 ``(2,)``: row and column of the center, in cells.
    spacing_mm : ndarray
        float64 ``(2,)``: row and column spacing.
    reach_mm : ndarray
        float64 ``(n_rays,)``: radius of the outline; ray ``k`` points ``k / n_rays`` of a turn
        from the columns' direction to the rows'. Precondition: 8 rays or more.
    bounds : ndarray
        float64 ``(2, n_rays + 1)`` scratch.
    out : ndarray
        bool ``(g_rows, g_columns)``, overwritten.
    """
    g_rows, g_columns = out.shape
    n_rays = reach_mm.shape[0]
    per_radian = n_rays / (2 * np.pi)
    least_of_all = reach_mm.min() ** 2
    greatest_of_all = reach_mm.max() ** 2
    # Squared radii that no outline between the rays around undercuts, or exceeds.
    for k in range(n_rays + 1):
        least = reach_mm[k % n_rays]
        greatest = least
        for step in range(-1, 3):
            reach = reach_mm[(k + step) % n_rays]
            least = min(least, reach)
            greatest = max(greatest, reach)
        bounds[0, k] = least * least * (1 - 1e-9)
        bounds[1, k] = greatest * greatest * (1 + 1e-9)
    for i in range(g_rows):
        down = (i - start[0]) * spacing_mm[0]
        for j in range(g_columns):
            right = (j - start[1]) * spacing_mm[1]
            square = down * down + right * right
            if square <= least_of_all or square > greatest_of_all:
                out[i, j] = square <= least_of_all
                continue
            # The angle to 0.005 radians is enough for most cells.
            longer = max(abs(down), abs(right))
            ratio = min(abs(down), abs(right)) / longer if longer > 0.0 else 0.0
            rough = ratio * (0.9724 - 0.1919 * ratio * ratio)
            rough = 0.5 * np.pi - rough if abs(down) > abs(right) else rough
            rough = np.pi - rough if right < 0.0 else rough
            rough = 2 * np.pi - rough if down < 0.0 else rough
            near = min(max(int(rough * per_radian), 0), n_rays)
            if square <= bounds[0, near] or square > bounds[1, near]:
                out[i, j] = square <= bounds[0, near]
                continue
            turn = np.arctan2(down, right) * per_radian
            # Between two rays the outline is interpolated: no saw teeth.
            below = np.floor(turn)
            share = turn - below
            first = int(below) % n_rays
            second = (first + 1) % n_rays
            reach = reach_mm[first] * (1 - share) + reach_mm[second] * share
            out[i, j] = square <= reach * reach
