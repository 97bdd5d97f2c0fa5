"""What the lung kernels mean, in plain numpy: slow, obvious, the definition."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt


def average_on_grid(
    pixels_hu: npt.NDArray[Any],
    row_start: npt.NDArray[np.int64],
    column_start: npt.NDArray[np.int64],
    low_hu: float,
    high_hu: float,
) -> npt.NDArray[np.float32]:
    """Mean of the clipped pixels in each cell; see :func:`kernels.average_on_grid`."""
    clipped = np.clip(np.nan_to_num(pixels_hu.astype(np.float64), nan=low_hu), low_hu, high_hu)
    return np.array(
        [
            [
                clipped[row : row_start[i + 1], column : column_start[j + 1]].mean()
                for j, column in enumerate(column_start[:-1])
            ]
            for i, row in enumerate(row_start[:-1])
        ],
        dtype=np.float32,
    )


def dilate(
    mask: npt.NDArray[np.bool_], radius_mm: float, spacing_mm: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Lay the circle on every True pixel; see :func:`morphology_kernels.transform`."""
    n_rows, n_columns = mask.shape
    out = np.zeros(mask.shape, dtype=np.bool_)
    for i, j in np.argwhere(mask):
        for gap in range(int(radius_mm / spacing_mm[0] + 1e-6) + 1):
            square = radius_mm**2 - (gap * spacing_mm[0]) ** 2
            width = int(np.sqrt(max(square, 0.0)) / spacing_mm[1] + 1e-6)
            for row in {i - gap, i + gap}:
                if 0 <= row < n_rows:
                    out[row, max(j - width, 0) : min(j + width + 1, n_columns)] = True
    return out


def erode(
    mask: npt.NDArray[np.bool_], radius_mm: float, spacing_mm: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Dilate the background."""
    return ~dilate(~mask, radius_mm, spacing_mm)


def open_(
    mask: npt.NDArray[np.bool_], radius_mm: float, spacing_mm: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Erode, then dilate; never beyond the mask."""
    return dilate(erode(mask, radius_mm, spacing_mm), radius_mm, spacing_mm) & mask


def close(
    mask: npt.NDArray[np.bool_], radius_mm: float, spacing_mm: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Dilate beyond the image, then erode."""
    rows, columns = (math.ceil(radius_mm / step_mm) + 1 for step_mm in spacing_mm)
    wide = dilate(np.pad(mask, ((rows,), (columns,))), radius_mm, spacing_mm)
    return erode(wide, radius_mm, spacing_mm)[rows:-rows, columns:-columns]


def label_components(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], int]:
    """Flood fill from each unlabelled pixel in reading order; see ``component_kernels.py``."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    n_components = 0
    for start_i, start_j in np.argwhere(mask):
        if labels[start_i, start_j]:
            continue
        n_components += 1
        labels[start_i, start_j] = n_components
        queue = deque([(int(start_i), int(start_j))])
        while queue:
            i, j = queue.popleft()
            for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                row, column = i + down, j + right
                if not (0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]):
                    continue
                if mask[row, column] and not labels[row, column]:
                    labels[row, column] = n_components
                    queue.append((row, column))
    return labels, n_components


def refine_mask(
    pixels_hu: npt.NDArray[Any],
    coarse: npt.NDArray[np.bool_],
    repaired: npt.NDArray[np.bool_],
    barred: npt.NDArray[np.bool_],
    row_start: npt.NDArray[np.int64],
    down: npt.NDArray[np.float32],
    column_start: npt.NDArray[np.int64],
    across: npt.NDArray[np.float32],
    cut_hu: float,
) -> npt.NDArray[np.bool_]:
    """Interpolate the coarse mask, let the pixels decide between; see the kernel."""
    top = np.repeat(np.arange(coarse.shape[0]), np.diff(row_start))
    left = np.repeat(np.arange(coarse.shape[1]), np.diff(column_start))
    bottom = np.minimum(top + 1, coarse.shape[0] - 1)
    right = np.minimum(left + 1, coarse.shape[1] - 1)
    down = down[:, None]
    across = across[None, :]
    corner = coarse.astype(np.float32)
    corners = [corner[np.ix_(i, j)] for i in (top, bottom) for j in (left, right)]
    upper = corners[0] * (1 - across) + corners[1] * across
    lower = corners[2] * (1 - across) + corners[3] * across
    share = upper * (1 - down) + lower * down
    n_inside = sum(corners)
    near = np.ix_(np.where(down[:, 0] < 0.5, top, bottom), np.where(across[0] < 0.5, left, right))
    between = np.where(pixels_hu < cut_hu, ~barred[near], (share >= 0.5) & repaired[near])
    return np.where(n_inside == 4, True, np.where(n_inside == 0, False, between))


def sample_rays(
    grid: npt.NDArray[Any],
    start: npt.NDArray[np.float64],
    steps: npt.NDArray[np.float64],
    n_steps: int,
) -> npt.NDArray[Any]:
    """Nearest cell along each ray, zero from where it leaves the grid."""
    samples = np.zeros((steps.shape[0], n_steps), dtype=grid.dtype)
    for ray, (down, right) in enumerate(steps):
        for step in range(n_steps):
            i = int(np.floor(start[0] + down * step + 0.5))
            j = int(np.floor(start[1] + right * step + 0.5))
            if not (0 <= i < grid.shape[0] and 0 <= j < grid.shape[1]):
                break
            samples[ray, step] = grid[i, j]
    return samples


def outline(
    is_lung: npt.NDArray[np.bool_],
    hu: npt.NDArray[np.float32],
    radius_mm: npt.NDArray[np.float64],
    cosine: npt.NDArray[np.float64],
    n_edge: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Radius of lung, HU of its edge and radius of its hull, from samples along rays.

    See ``lung_mm``, ``edge_hu`` and ``hull_mm`` of :class:`ray_kernels.Outline`.
    """
    last = is_lung.shape[1] - 1 - np.argmax(is_lung[:, ::-1], axis=1)
    lung_mm = np.where(is_lung.any(axis=1), radius_mm[last], 0.0)
    back = np.maximum(last[:, None] - np.arange(n_edge), 0)
    is_edge = np.take_along_axis(is_lung, back, axis=1)
    edge_hu = np.take_along_axis(hu, back, axis=1).sum(axis=1, where=is_edge, dtype=np.float64)
    edge_hu /= np.maximum(is_edge.sum(axis=1), 1)
    support = (lung_mm[:, None] * cosine).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        hull_mm = np.where(cosine > 1e-9, support / cosine, np.inf).min(axis=1)
    return lung_mm, edge_hu, hull_mm


def bones(
    is_bone: npt.NDArray[np.bool_],
    radius_mm: npt.NDArray[np.float64],
    hull_mm: npt.NDArray[np.float64],
    range_mm: tuple[float, float],
    n_ahead: int,
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
]:
    """Ray and excess of each bone, least excess of each ray, and its quartile over those ahead.

    See :class:`ray_kernels.Bones`, and ``first_mm`` and ``ahead_mm`` of ``Outline``.
    """
    n_rays = hull_mm.size
    ray, step = np.nonzero(is_bone[:, 1:] & ~is_bone[:, :-1])
    excess_mm = radius_mm[step + 1] - hull_mm[ray]
    counts = (excess_mm >= range_mm[0]) & (excess_mm <= range_mm[1])
    ray, excess_mm = ray[counts], excess_mm[counts]
    first_mm = np.full(n_rays, np.inf)
    np.minimum.at(first_mm, ray, excess_mm)
    ahead = (np.arange(n_rays)[:, None] + np.arange(n_ahead + 1)) % n_rays
    window = np.sort(first_mm[ahead], axis=1)
    n_finite = np.isfinite(window).sum(axis=1)
    quartile = window[np.arange(n_rays), n_finite // 4]
    return ray, excess_mm, first_mm, np.where(n_finite >= 3, quartile, -np.inf)


def fill_polar(
    start: npt.NDArray[np.float64],
    spacing_mm: npt.NDArray[np.float64],
    reach_mm: npt.NDArray[np.float64],
    shape: tuple[int, int],
) -> npt.NDArray[np.bool_]:
    """Compare each cell's distance with the interpolated radius; see the kernel."""
    i, j = np.indices(shape)
    down = (i - start[0]) * spacing_mm[0]
    right = (j - start[1]) * spacing_mm[1]
    turn = np.arctan2(down, right) * (reach_mm.size / (2 * np.pi))
    rays = np.arange(reach_mm.size)
    reach = np.interp(turn, rays, reach_mm, period=reach_mm.size)
    inside: npt.NDArray[np.bool_] = down**2 + right**2 <= reach**2
    return inside
