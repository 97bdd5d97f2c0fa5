"""Kernels of the ribs' inner side and of how far the cavity reaches, ray by ray.

The rules in plain numpy are in ``reference/thorax.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ildsdk.lung.ray_kernels import Bones, Outline, Points
from native_hash.jit import ORDERED, kernel

_MIN_RIB_RAYS = 16
_RIB_SCATTER_MM = 6.0
_VOTERS = 6
_DENSE_EDGE_HU = -550.0
_RETRACTED_MM = 15.0
_LEAST_WALL_MM, _MOST_WALL_MM = 1.5, 6.0
CURVE_ORDER = 10
WINDOW = 16


@kernel(ORDERED)
def rib_curve(
    outline: Outline, bones: Bones, n_bones: int, waves: Points, values: Points, rib_mm: Points
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
        larger = max(
            ahead_mm[ray], ahead_mm[ray - WINDOW if ray >= WINDOW else ray + n_rays - WINDOW]
        )
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
def wall_thickness(outline: Outline, rib_mm: Points, gaps: Points, has_rib: Points) -> Any:
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
def lower_quartile(values: Points) -> Any:
    """First quartile by numpy's linear rule; float64 ``(n,)``, one or more, no NaN."""
    place = (values.size - 1) * 0.25
    below = int(place)
    share = place - below
    low = _in_order(values, below)
    high = _in_order(values, min(below + 1, values.size - 1))
    step = high - low
    return high - step * (1 - share) if share >= 0.5 else low + step * share


@kernel(ORDERED)
def _in_order(values: Any, place: Any) -> Any:
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
def reach_of(outline: Outline, rib_mm: Points, wall_mm: float, reach_mm: Points) -> None:
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
