"""Kernels of the rays from a point between the lungs, and what they meet.

The twins are in ``reference/rays.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.lung.bitmap_kernels import Canvas, Words
from native_hash.jit import ORDERED, kernel

Points = npt.NDArray[np.float64]


class Fan(NamedTuple):
    """What is the same for every slice.

    Attributes
    ----------
    directions : ndarray
        float64 ``(n_rays, 2)``: unit vectors, row and column.
    radius_mm : ndarray
        float64 ``(n_steps,)``: distance from the start of each sample along a ray.
    cosine : ndarray
        float64 ``(n_normals, n_rays)``, of the angle between normal of the hull and ray.
    waves : ndarray
        float64 ``(n_waves, n_rays)``: the waves of a Fourier series, of unit norm.
    """

    directions: Points
    radius_mm: Points
    cosine: Points
    waves: Points


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
    excess_mm: Points


class Outline(NamedTuple):
    """The lungs and the first bones as rays see them, each ``(n_rays,)``.

    Attributes
    ----------
    lung_mm : ndarray
        float64: radius of the outermost aerated cell, 0 where there is none.
    edge_hu : ndarray
        float32: mean of the aerated cells among the last samples up to there; a ray too
        short for them counts its first one again.
    hull_mm : ndarray
        float64: radius of the convex hull of those cells.
    first_mm : ndarray
        float64: least excess of the ray's bones, infinity without one.
    ahead_mm : ndarray
        float64: lower quartile of ``first_mm`` over this ray and those ahead; minus
        infinity where fewer than 3 of them met a bone.
    """

    lung_mm: Points
    edge_hu: npt.NDArray[np.float32]
    hull_mm: Points
    first_mm: Points
    ahead_mm: Points


@kernel(ORDERED)
def _label_cells(canvas: Any, aerated: Any, bone: Any, label: Any) -> None:
    """One byte a cell: 1 where aerated, plus 2 where bone."""
    one = np.uint64(1)
    for i in range(canvas.n_rows):
        row = label[i]
        for k in range((canvas.n_columns + 63) // 64):
            air_word = aerated[i * canvas.row_words + k]
            bone_word = bone[i * canvas.row_words + k]
            part = row[64 * k : min(64 * k + 64, canvas.n_columns)]
            for bit in range(part.size):
                place = np.uint64(bit)
                part[bit] = ((air_word >> place) & one) | (((bone_word >> place) & one) << one)


@kernel(ORDERED)
def _follow(
    canvas: Any,
    grid_hu: Any,
    label: Any,
    start: Any,
    fan: Any,
    step_cells: Any,
    n_edge: Any,
    rows: Any,
    columns: Any,
    outline: Any,
    bones: Any,
) -> int:
    """Lung and bones along each ray, distances from the start; returns how many bones."""
    g_rows, g_columns = canvas.n_rows, canvas.n_columns
    n_bones = 0
    for ray in range(fan.directions.shape[0]):
        down = fan.directions[ray, 0] * step_cells[0]
        right = fan.directions[ray, 1] * step_cells[1]
        for step in range(rows.size):
            rows[step] = np.int32(np.floor(start[0] + down * step + 0.5))
            columns[step] = np.int32(np.floor(start[1] + right * step + 0.5))
        last = -1
        was_bone = True  # bone under the very start does not begin there
        for step in range(rows.size):
            i, j = rows[step], columns[step]
            if i < 0 or j < 0 or i >= g_rows or j >= g_columns:
                break
            here = label[i, j]
            last = step if here & 1 else last
            is_bone = here >= 2
            if is_bone and not was_bone:
                bones.ray[n_bones] = ray
                bones.excess_mm[n_bones] = fan.radius_mm[step]
                n_bones += 1
            was_bone = is_bone
        total = np.float32(0)
        n_used = 0
        if last >= 0:
            for back in range(n_edge):
                step = max(last - back, 0)
                if label[rows[step], columns[step]] & 1:
                    total += grid_hu[rows[step], columns[step]]
                    n_used += 1
        outline.lung_mm[ray] = fan.radius_mm[last] if last >= 0 else 0.0
        outline.edge_hu[ray] = np.float64(total) / max(n_used, 1)
    return n_bones


@kernel(ORDERED)
def _hull(lung_mm: Any, cosine: Any, support: Any, hull_mm: Any) -> None:
    """Radius along each ray of the convex hull of a star-shaped outline."""
    hull_mm[:] = np.inf
    for k in range(cosine.shape[0]):
        toward = cosine[k]
        for ray in range(lung_mm.size):
            support[ray] = lung_mm[ray] * toward[ray]
        # the maximum by halves: vector code without leave to change the order of operations
        n_left = lung_mm.size
        while n_left > 1:
            half = (n_left + 1) // 2
            front, back = support[: n_left - half], support[half:n_left]
            for ray in range(front.size):
                front[ray] = max(front[ray], back[ray])
            n_left = half
        for ray in range(lung_mm.size):
            along = support[0] / toward[ray] if toward[ray] > 1e-9 else np.inf
            hull_mm[ray] = min(hull_mm[ray], along)


@kernel(ORDERED)
def _quartile_ahead(first_mm: Any, ray: Any, window: Any) -> float:
    """Lower quartile of the finite values from a ray on; minus infinity if fewer than 3.

    ``window`` has room for a quarter of the rays, and one.
    """
    n_ahead = 4 * (window.size - 1)
    n_finite = 0
    n_kept = 0
    for k in range(n_ahead + 1):
        at = ray + k
        value = first_mm[at - first_mm.size if at >= first_mm.size else at]
        if value == np.inf:
            continue
        n_finite += 1
        if n_kept == window.size:
            if value >= window[n_kept - 1]:
                continue
            n_kept -= 1
        place = n_kept
        while place > 0 and window[place - 1] > value:
            window[place] = window[place - 1]
            place -= 1
        window[place] = value
        n_kept += 1
    return window[n_finite // 4] if n_finite >= 3 else -np.inf


@kernel(ORDERED)
def cast_rays(
    canvas: Canvas,
    grid_hu: npt.NDArray[np.float32],
    aerated: Words,
    bone: Words,
    start: tuple[float, float],
    fan: Fan,
    n_edge: int,
    range_mm: tuple[float, float],
    label: npt.NDArray[np.uint8],
    places: npt.NDArray[np.int32],
    support: Points,
    window: Points,
    outline: Outline,
    bones: Bones,
) -> int:
    """Follow rays from one point through lung and bone.

    Parameters
    ----------
    canvas, grid_hu : Canvas, ndarray
        The grid, and float32 ``(n_rows, n_columns)``.
    aerated, bone : ndarray
        Bitmaps.
    start : tuple of float
        Row and column of the common start, in cells.
    fan : Fan
        The rays; precondition: samples are evenly spaced, from 0.
    n_edge : int
        How many samples make the lung's edge.
    range_mm : tuple of float
        Least and greatest distance from the hull of a bone that counts.
    label : ndarray
        uint8 ``(n_rows, n_columns)`` scratch.
    places : ndarray
        int32 ``(2, n_steps)`` scratch.
    support, window : ndarray
        float64 ``(n_rays,)`` and ``(rays ahead // 4 + 1,)`` scratch; the rays ahead whose quartile
        is taken are a multiple of 4.
    outline : Outline
        Overwritten.
    bones : Bones
        Room for one bone every other sample, overwritten.

    Returns
    -------
    int
        How many bones count.
    """
    _label_cells(canvas, aerated, bone, label)
    step_mm = fan.radius_mm[1]
    step_cells = (step_mm / canvas.row_mm, step_mm / canvas.column_mm)
    n_bones = _follow(
        canvas, grid_hu, label, start, fan, step_cells, n_edge, places[0], places[1], outline, bones
    )
    _hull(outline.lung_mm, fan.cosine, support, outline.hull_mm)
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
    for ray in range(outline.first_mm.size):
        outline.ahead_mm[ray] = _quartile_ahead(outline.first_mm, ray, window)
    return n_kept
