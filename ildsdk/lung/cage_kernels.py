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
from ildsdk.lung.component_kernels import Runs
from ildsdk.lung.morphology_kernels import erode
from ildsdk.lung.ray_kernels import Bones, Fan, Outline, Points, cast_rays, fill_polar
from native_hash.jit import ORDERED, kernel

BONE_HU = 180.0
N_RAYS = 240
N_NORMALS = 80
RAY_STEP_MM = 2.0
RAY_LENGTH_MM = 260.0
CURVE_ORDER = 10
WINDOW = 16
_RIM_MM = 15.0
CORE_MM = 30.0
_MIN_RIB_RAYS = 16
_RIB_DEPTH_MM = 5.0
_FAR_BONE_MM = 150.0
_INNER_BONE_MM = 8.0
_RIB_SCATTER_MM = 6.0
_EDGE_MM = 12.0
_VOTERS = 6
_DENSE_EDGE_HU = -550.0
_RETRACTED_MM = 15.0
_LEAST_WALL_MM, _MOST_WALL_MM = 1.5, 6.0
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
        As :func:`ray_kernels.fill_polar` takes them.
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
    canvas: Canvas, runs: Runs, is_wanted: npt.NDArray[np.bool_]
) -> tuple[float, float, float, float]:
    """Centroid (row, column) in mm and unit vector of the longest spread of marked components.

    From sums of whole numbers, which have no order to depend on. Precondition: one is marked.
    """
    n, rows, columns, squares_down, squares_right, cross = 0, 0, 0, 0, 0, 0
    for i in range(canvas.n_rows):
        for run in range(runs.row_start[i], runs.row_start[i + 1]):
            if not is_wanted[runs.labels[run]]:
                continue
            first, stop = np.int64(runs.bounds[2 * run]), np.int64(runs.bounds[2 * run + 1])
            size = stop - first
            total = (first + stop - 1) * size // 2
            n += size
            rows += i * size
            columns += total
            squares_down += i * i * size
            squares_right += _squares_below(stop) - _squares_below(first)
            cross += i * total
    # around whole numbers near the centroid, so that no digits are lost
    i, j = rows // n, columns // n
    rest_rows, rest_columns = rows - i * n, columns - j * n
    squares_down -= i * (2 * rows - i * n)
    squares_right -= j * (2 * columns - j * n)
    cross += i * j * n - i * columns - j * rows
    down_mm2 = (squares_down - rest_rows * (rest_rows / n)) * canvas.row_mm**2
    right_mm2 = (squares_right - rest_columns * (rest_columns / n)) * canvas.column_mm**2
    cross_mm2 = (cross - rest_rows * (rest_columns / n)) * canvas.row_mm * canvas.column_mm
    angle = 0.5 * np.arctan2(2 * cross_mm2, right_mm2 - down_mm2)
    center_row, center_column = (rows / n) * canvas.row_mm, (columns / n) * canvas.column_mm
    return center_row, center_column, np.sin(angle), np.cos(angle)


@kernel(ORDERED)
def _squares_below(n: Any) -> int:
    """Sum of the squares of 0 to ``n - 1``."""
    return (n - 1) * n * (2 * n - 1) // 6


@kernel(ORDERED)
def _middle_along(
    canvas: Any, words: Any, center_row: Any, center_column: Any, down: Any, right: Any
) -> float:
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
    _rib_curve(outline, scratch.bones, n_bones, fan.waves, values, rib_mm)
    wall_mm = _wall(outline, rib_mm, values[2], values[5])
    _reach(outline, rib_mm, wall_mm, reach_mm)
    fill_polar(canvas, start, reach_mm, values[2:4], scratch.near, scratch.square, cage.cavity)
    for k in range(body.size):
        cage.cavity[k] &= body[k]
    _part_sides(canvas, down, right, cage, scratch.square)
    erode(canvas, cage.cavity, _RIM_MM, cage.rim)
    for k in range(body.size):
        cage.rim[k] = ~cage.rim[k] & canvas.inside[k]
    erode(canvas, cage.cavity, CORE_MM, cage.core)


@kernel(ORDERED)
def _rib_curve(
    outline: Any, bones: Any, n_bones: Any, waves: Any, values: Any, rib_mm: Any
) -> None:
    """Radius of the ribs' inner side for each ray; ``values[5]`` is 1 where a rib was met, else 0.

    Ribs are measured as distance from the convex hull of the aerated lung. Consolidation
    moves that hull away from all ribs of a sector, so the distance that is usual around a ray
    (lower quartile over 24 degrees) is believed; a bone far from it is none: scapula
    or arm seen between two ribs, vertebra or bright vessel inside.
    """
    n_rays = rib_mm.size
    usual_mm, excess_mm, curve_mm, off_mm = values[1], values[2], values[3], values[4]
    has_usual = _usual(outline, usual_mm[:n_rays], off_mm[:n_rays])
    n_ribs = 0
    if has_usual:
        # Of a ray's bones the one nearest to what is usual, unless it lies behind that.
        excess_mm[:n_rays] = np.inf
        off_mm[:n_rays] = np.inf
        for k in range(n_bones):
            ray = bones.ray[k]
            off = abs(bones.excess_mm[k] - usual_mm[ray])
            is_near = bones.excess_mm[k] <= usual_mm[ray] + _RIB_SCATTER_MM
            if is_near and off <= off_mm[ray]:  # of equally near ones the last
                off_mm[ray] = off
                excess_mm[ray] = bones.excess_mm[k]
        for _ in range(2):
            n_ribs = _count_finite(excess_mm[:n_rays])
            if n_ribs < _MIN_RIB_RAYS:
                break
            _fill_around(excess_mm[:n_rays], curve_mm[:n_rays])
            _smooth_closed(curve_mm[:n_rays], waves, off_mm[:n_rays], values[6])
            for ray in range(n_rays):
                if not abs(excess_mm[ray] - curve_mm[ray]) <= _RIB_SCATTER_MM:
                    excess_mm[ray] = np.inf
    has_ribs = n_ribs >= _MIN_RIB_RAYS
    for ray in range(n_rays):
        hull_mm = outline.hull_mm[ray]
        values[5, ray] = 0.0
        if not has_ribs:
            rib_mm[ray] = hull_mm + _MOST_WALL_MM
        elif excess_mm[ray] < np.inf:
            rib_mm[ray] = hull_mm + min(excess_mm[ray], curve_mm[ray] + 1.5)
            values[5, ray] = 1.0
        else:
            rib_mm[ray] = hull_mm + curve_mm[ray]


@kernel(ORDERED)
def _usual(outline: Any, usual_mm: Any, scratch: Any) -> bool:
    """Rib distance to expect at each ray; False where too few rays met a bone.

    The lower quartile of the rays to either side, then the larger of the two: beside the spine
    and at the edge of a consolidation one side alone tells the truth.
    """
    n_rays = usual_mm.size
    if _count_finite(outline.first_mm) < _MIN_RIB_RAYS:
        return False
    ahead_mm = outline.ahead_mm
    for ray in range(n_rays):
        larger = max(ahead_mm[ray], ahead_mm[ray - WINDOW if ray >= WINDOW else ray + n_rays - WINDOW])
        scratch[ray] = larger if larger > -np.inf else np.inf
    if _count_finite(scratch) == 0:
        return False
    _fill_around(scratch, usual_mm)
    return True


@kernel(ORDERED)
def _count_finite(values: Any) -> int:
    """How many values are below infinity."""
    n = 0
    for value in values:
        n += 1 if value < np.inf else 0
    return n


@kernel(ORDERED)
def _fill_around(known: Any, filled: Any) -> None:
    """Values of all rays from those that are finite, interpolated all around; one at least is."""
    n_rays = known.size
    last = n_rays - 1
    while not known[last] < np.inf:
        last -= 1
    before, low = last - n_rays, known[last]
    first = 0
    while not known[first] < np.inf:
        first += 1
    after, high = first, known[first]
    for ray in range(n_rays):
        if ray == after:
            before, low = after, high
            after += 1
            while after < n_rays and not known[after] < np.inf:
                after += 1
            if after == n_rays:
                after = first + n_rays
            high = known[after % n_rays]
        slope = (high - low) / (after - before)
        filled[ray] = slope * (ray - before) + low if ray != before else low


@kernel(ORDERED)
def _smooth_closed(values: Any, waves: Any, scratch: Any, coefficients: Any) -> None:
    """Low-pass a closed curve in place: its projection on the waves."""
    n_rays = values.size
    for k in range(waves.shape[0]):
        wave = waves[k]
        for ray in range(n_rays):
            scratch[ray] = values[ray] * wave[ray]
        # the sum by halves, as the maximum of the hull
        n_left = n_rays
        while n_left > 1:
            half = (n_left + 1) // 2
            front, back = scratch[: n_left - half], scratch[half:n_left]
            for ray in range(front.size):
                front[ray] += back[ray]
            n_left = half
        coefficients[k] = scratch[0]
    values[:] = 0.0
    for k in range(waves.shape[0]):
        wave = waves[k]
        for ray in range(n_rays):
            values[ray] += coefficients[k] * wave[ray]


@kernel(ORDERED)
def _wall(outline: Any, rib_mm: Any, gaps: Any, has_rib: Any) -> float:
    """Thickness of the chest wall inside the ribs: lower quartile, held to a range."""
    n = 0
    for ray in range(rib_mm.size):
        if has_rib[ray] > 0 and outline.lung_mm[ray] > 0:
            gaps[n] = rib_mm[ray] - outline.lung_mm[ray]
            n += 1
    if n == 0:
        return _MOST_WALL_MM
    return min(max(lower_quartile(gaps[:n]), _LEAST_WALL_MM), _MOST_WALL_MM)


@kernel(ORDERED)
def lower_quartile(values: Points) -> float:
    """First quartile by numpy's linear rule; float64 ``(n,)``, one or more, no NaN."""
    place = (values.size - 1) * 0.25
    below = int(place)
    share = place - below
    low = _in_order(values, below)
    high = _in_order(values, min(below + 1, values.size - 1))
    step = high - low
    return high - step * (1 - share) if share >= 0.5 else low + step * share


@kernel(ORDERED)
def _in_order(values: Any, place: Any) -> float:
    """The value that sorting would bring to a place."""
    for value in values:
        n_less, n_equal = 0, 0
        for other in values:
            n_less += 1 if other < value else 0
            n_equal += 1 if other == value else 0
        if n_less <= place and place < n_less + n_equal:
            return value
    return np.nan


@kernel(ORDERED)
def _reach(outline: Any, rib_mm: Any, wall_mm: Any, reach_mm: Any) -> None:
    """Radius of the cavity for each ray.

    A sharp edge of well aerated lung is the pleura: only dense or retracted lung may hide
    consolidation between itself and the ribs.
    """
    n_rays = rib_mm.size
    hull_mm, lung_mm = outline.hull_mm, outline.lung_mm
    for ray in range(n_rays):
        n_votes = 0
        # One ray proves little: the majority of 13 rays.
        for step in range(-_VOTERS, _VOTERS + 1):
            other = (ray + step) % n_rays
            is_dense = outline.edge_hu[other] > np.float32(_DENSE_EDGE_HU)
            is_retracted = hull_mm[other] - lung_mm[other] > _RETRACTED_MM
            n_votes += 1 if is_dense or is_retracted else 0
        reach = rib_mm[ray] - wall_mm
        if n_votes <= _VOTERS:
            reach = min(reach, hull_mm[ray] + 1.5)
        reach_mm[ray] = max(reach, lung_mm[ray])
