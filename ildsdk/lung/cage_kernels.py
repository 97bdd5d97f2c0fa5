"""Kernels of the rib cage on the working grid: where lung could be even if it holds no air.

A threshold sees air; consolidated lung holds none. Ribs show where the pleural cavity ends: rays
from the middle of the lungs find the inner side of the ribs. The rules in plain numpy are
in ``reference/thorax.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.lung.bitmap_kernels import Canvas, Words, pack_below, row_ends
from ildsdk.lung.morphology_kernels import erode
from ildsdk.lung.polar_kernels import fill_polar
from ildsdk.lung.ray_kernels import Bones, Fan, Outline, Points, cast_rays
from ildsdk.lung.rib_kernels import reach_of, rib_curve, wall_thickness
from native_hash.jit import ORDERED, kernel

BONE_HU = 180.0
N_RAYS = 240
N_NORMALS = 80
RAY_STEP_MM = 2.0
RAY_LENGTH_MM = 260.0
_RIM_MM = 15.0
CORE_MM = 30.0
_RIB_DEPTH_MM = 5.0
_FAR_BONE_MM = 150.0
_INNER_BONE_MM = 8.0
_EDGE_MM = 12.0
_MEDIASTINUM_MM = 30.0
_MIDLINE_MM = 25.0


class Cage(NamedTuple):
    """Bitmaps of the rib cage of one slice.

    Attributes
    ----------
    cavity : ndarray
        Inside the ribs, chest wall taken off.
    bone : ndarray
        Above 180 HU (contrast-filled vessels, too).
    rim : ndarray
        Everything but the inside of the cavity deeper than 15 mm.
    core : ndarray
        Deeper than 30 mm in the cavity.
    middle, apart : ndarray
        Within 30 mm of the mid-sagittal line; farther than 25 mm from it.
    first_half : ndarray
        The side of that line that holds one lung; the rest holds the other.
    """

    cavity: Words
    bone: Words
    rim: Words
    core: Words
    middle: Words
    apart: Words
    first_half: Words


class RayScratch(NamedTuple):
    """Scratch of :func:`find_cage`.

    Attributes
    ----------
    values : ndarray
        float64 ``(8, N_RAYS + 1)``.
    outline, bones
        As :func:`ray_kernels.cast_rays` takes them.
    label, places, window
        Likewise.
    near, square : ndarray
        As :func:`polar_kernels.fill_polar` takes them.
    """

    values: Points
    outline: Outline
    bones: Bones
    label: npt.NDArray[np.uint8]
    places: npt.NDArray[np.int32]
    window: Points
    near: npt.NDArray[np.int32]
    square: Points


@kernel(ORDERED)
def long_axis(
    canvas: Canvas, runs: Any, is_wanted: npt.NDArray[np.bool_]
) -> tuple[float, float, float, float]:
    """Centroid (row, column) in mm and unit vector of the longest spread of marked components.

    From sums of whole numbers, which have no order to depend on. Precondition: one is marked.
    """
    bounds = runs.bounds
    none = np.int64(0)
    n, rows, columns = none, none, none
    squares_down, squares_right, cross = none, none, none
    for i in range(canvas.n_rows):
        for run in range(runs.row_start[i], runs.row_start[i + 1]):
            if not is_wanted[runs.labels[run]]:
                continue
            # of 64 bits, as what is summed
            first, stop = np.int64(bounds[2 * run]), np.int64(bounds[2 * run + 1])
            size = stop - first
            total = (first + stop - 1) * size // 2
            n += size
            rows += i * size
            columns += total
            squares_down += i * i * size
            squares_right += _squares_below(stop) - _squares_below(first)
            cross += i * total
    # around whole numbers near the centroid, so that no digits are lost
    near_row, near_column = rows // n, columns // n
    rest_rows, rest_columns = rows - near_row * n, columns - near_column * n
    squares_down -= near_row * (2 * rows - near_row * n)
    squares_right -= near_column * (2 * columns - near_column * n)
    cross += near_row * near_column * n - near_row * columns - near_column * rows
    down_mm2 = (squares_down - rest_rows * (rest_rows / n)) * canvas.row_mm**2
    right_mm2 = (squares_right - rest_columns * (rest_columns / n)) * canvas.column_mm**2
    cross_mm2 = (cross - rest_rows * (rest_columns / n)) * canvas.row_mm * canvas.column_mm
    angle = 0.5 * np.arctan2(2 * cross_mm2, right_mm2 - down_mm2)
    center_row, center_column = (rows / n) * canvas.row_mm, (columns / n) * canvas.column_mm
    return center_row, center_column, np.sin(angle), np.cos(angle)


@kernel(ORDERED)
def _squares_below(n: Any) -> Any:
    """Sum of the squares of 0 to ``n - 1``."""
    return (n - 1) * n * (2 * n - 1) // 6


@kernel(ORDERED)
def _middle_along(
    canvas: Any, words: Any, center_row: Any, center_column: Any, down: Any, right: Any
) -> Any:
    """Middle of the extremes of a bitmap along an axis; they lie at the ends of its rows."""
    least, greatest = np.inf, -np.inf
    for i in range(canvas.n_rows):
        first, last = row_ends(canvas, words, i)
        if last < 0:
            continue
        for j in (first, last):
            along = (i * canvas.row_mm - center_row) * down
            along += (j * canvas.column_mm - center_column) * right
            least, greatest = min(least, along), max(greatest, along)
    return (least + greatest) / 2


@kernel(ORDERED)
def _part_sides(canvas: Any, down: Any, right: Any, cage: Any, offsets: Any) -> None:
    """Bitmaps by the signed distance in mm from the mid-sagittal line.

    The two lungs lie side by side: the long axis of the aerated cells runs from one to the other
    in any pose; the line stands on it in the middle of the cavity.
    """
    row_mm, column_mm = np.float32(canvas.row_mm), np.float32(canvas.column_mm)
    for j in range(canvas.n_columns):
        offsets[j] = np.float64(np.float32(j) * column_mm) * right
    least, greatest = np.inf, -np.inf
    for i in range(canvas.n_rows):
        first, last = row_ends(canvas, cage.cavity, i)
        if last >= 0:
            here = np.float64(np.float32(i) * row_mm) * down
            least = min(least, min(here + offsets[first], here + offsets[last]))
            greatest = max(greatest, max(here + offsets[first], here + offsets[last]))
    center = (least + greatest) / 2
    cage.middle[:] = np.uint64(0)
    cage.apart[:] = np.uint64(0)
    cage.first_half[:] = np.uint64(0)
    for i in range(canvas.n_rows):
        here = np.float64(np.float32(i) * row_mm) * down
        for k in range((canvas.n_columns + 63) // 64):
            part = offsets[64 * k : min(64 * k + 64, canvas.n_columns)]
            middle, apart, half = np.uint64(0), np.uint64(0), np.uint64(0)
            for bit in range(part.size):
                side = np.float32((here + part[bit]) - center)
                place = np.uint64(bit)
                middle |= np.uint64(abs(side) < np.float32(_MEDIASTINUM_MM)) << place
                apart |= np.uint64(abs(side) > np.float32(_MIDLINE_MM)) << place
                half |= np.uint64(side < np.float32(0)) << place
            at = i * canvas.row_words + k
            cage.middle[at] = middle
            cage.apart[at] = apart
            cage.first_half[at] = half


@kernel(ORDERED)
def find_cage(
    canvas: Canvas,
    grid_hu: npt.NDArray[np.float32],
    body: Words,
    aerated: Words,
    axis: tuple[float, float, float, float],
    fan: Fan,
    scratch: RayScratch,
    deep_bone: Words,
    cage: Cage,
) -> None:
    """Find the rib cage around aerated lung.

    Parameters
    ----------
    canvas, grid_hu : Canvas, ndarray
        The grid, and float32 ``(n_rows, n_columns)``.
    body, aerated : ndarray
        Bitmaps: patient outline; air cells of the lungs, at least one.
    axis : tuple of float
        Of ``aerated``, by :func:`long_axis`.
    fan, scratch
        The rays, and room for what they meet.
    deep_bone : ndarray
        Bitmap, scratch.
    cage : Cage
        Overwritten, also where no rib is seen: then the hull of the lungs bounds the cavity.
    """
    center_row, center_column, down, right = axis
    pack_below(canvas, grid_hu, BONE_HU, True, cage.bone)
    for k in range(body.size):
        cage.bone[k] = ~cage.bone[k] & body[k]
    # Leads and clips on the skin are bright, too: a rib lies at least 5 mm deep.
    erode(canvas, body, _RIB_DEPTH_MM, deep_bone)
    for k in range(body.size):
        deep_bone[k] &= cage.bone[k]
    along = _middle_along(canvas, aerated, center_row, center_column, down, right)
    start = (
        (center_row + down * along) / canvas.row_mm,
        (center_column + right * along) / canvas.column_mm,
    )
    outline, values = scratch.outline, scratch.values
    n_bones = cast_rays(
        canvas,
        grid_hu,
        aerated,
        deep_bone,
        start,
        fan,
        int(_EDGE_MM / RAY_STEP_MM),
        (-_INNER_BONE_MM, _FAR_BONE_MM),
        scratch.label,
        scratch.places,
        values[0][:N_RAYS],
        scratch.window,
        outline,
        scratch.bones,
    )
    rib_mm, reach_mm = values[0][:N_RAYS], values[1][:N_RAYS]
    rib_curve(outline, scratch.bones, n_bones, fan.waves, values, rib_mm)
    wall_mm = wall_thickness(outline, rib_mm, values[2], values[5])
    reach_of(outline, rib_mm, wall_mm, reach_mm)
    fill_polar(canvas, start, reach_mm, values[2:4], scratch.near, scratch.square, cage.cavity)
    for k in range(body.size):
        cage.cavity[k] &= body[k]
    _part_sides(canvas, down, right, cage, scratch.square)
    erode(canvas, cage.cavity, _RIM_MM, cage.rim)
    for k in range(body.size):
        cage.rim[k] = ~cage.rim[k] & canvas.inside[k]
    erode(canvas, cage.cavity, CORE_MM, cage.core)
