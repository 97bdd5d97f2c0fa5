"""Neighbor directions in the plane, and their weights by distance in millimeters."""

from __future__ import annotations

import functools
import math

from ildsdk.radiomics.settings import WeightingNorm


@functools.cache
def half_directions(distances: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """One of each pair of opposite offsets ``(rows, columns)``, in pyradiomics' order.

    An offset belongs to distance ``d`` if the larger of its two parts is ``d`` (infinity norm).
    """
    farthest = max(distances)
    return tuple(
        (rows, columns)
        for rows in range(farthest, -1, -1)
        for columns in range(farthest, -farthest - 1, -1)
        if (rows > 0 or columns > 0) and max(rows, abs(columns)) in distances
    )


def distance_mm(
    direction: tuple[int, int], pixel_spacing_mm: tuple[float, float], norm: WeightingNorm
) -> float:
    """Length of an offset in mm by the given norm (1 for ``"no_weighting"``)."""
    rows = abs(direction[0]) * pixel_spacing_mm[0]
    columns = abs(direction[1]) * pixel_spacing_mm[1]
    if norm == "infinity":
        return max(rows, columns)
    if norm == "euclidean":
        return math.hypot(rows, columns)
    if norm == "manhattan":
        return rows + columns
    return 1.0
