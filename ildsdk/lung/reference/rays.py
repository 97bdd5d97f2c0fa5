"""Rays through the working grid; see ``ray_kernels.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


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
