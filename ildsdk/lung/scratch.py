"""Room that one lung mask takes, and what is the same for every slice."""

from __future__ import annotations

import functools

import numpy as np

from ildsdk.lung.air_kernels import N_GRAYS
from ildsdk.lung.bitmap_kernels import words_of_a_row
from ildsdk.lung.cage_kernels import (
    CORE_MM,
    N_NORMALS,
    N_RAYS,
    RAY_LENGTH_MM,
    RAY_STEP_MM,
    RayScratch,
)
from ildsdk.lung.component_kernels import Runs
from ildsdk.lung.mask_kernel import N_MAPS, Scratch
from ildsdk.lung.ray_kernels import Bones, Fan, Outline, Points
from ildsdk.lung.repair_kernels import CONSOLIDATION_MM
from ildsdk.lung.rib_kernels import CURVE_ORDER, WINDOW


def largest_radius_mm(spacing_mm: tuple[float, float]) -> float:
    """Radius of the largest structuring element on a grid of this spacing."""
    return max(CORE_MM, 2.0 * max(spacing_mm))


def scratch_for(
    shape: tuple[int, int], grid_shape: tuple[int, int], spacing_mm: tuple[float, float], reach: int
) -> Scratch:
    """Allocate room for the mask of one slice.

    Parameters
    ----------
    shape, grid_shape : tuple of int
        Rows and columns of the slice and of its working grid.
    spacing_mm : tuple of float
        Row and column spacing of the grid.
    reach : int
        Columns that the largest structuring element reaches to a side.
    """
    g_rows, g_columns = grid_shape
    row_words = words_of_a_row(g_columns, reach)
    down = int(CONSOLIDATION_MM / spacing_mm[0] + 1e-6) + 1
    n_steps = fan().radius_mm.size
    most = g_rows * ((g_columns + 1) // 2)
    return Scratch(
        grid_hu=np.empty(grid_shape, np.float32),
        cropped_hu=np.empty(grid_shape, np.float32),
        maps=np.empty((N_MAPS, g_rows * row_words), np.uint64),
        work=np.empty((3, (g_rows + 2 * down) * row_words + 2), np.uint64),
        half_width=np.empty(
            int(largest_radius_mm(spacing_mm) / spacing_mm[0] + 1e-6) + 1, np.int64
        ),
        runs=_runs(g_rows, most),
        more_runs=_runs(g_rows, most),
        counts=np.empty(most + 1, np.int32),
        more_counts=np.empty(most + 1, np.int32),
        flags=np.empty((3, most + 1), np.bool_),
        area_mm2=np.empty(most + 1),
        tally=np.empty(N_GRAYS, np.int64),
        sums=np.empty((2, N_GRAYS)),
        rays=RayScratch(
            values=np.empty((8, N_RAYS + 1)),
            outline=Outline(
                np.empty(N_RAYS),
                np.empty(N_RAYS, np.float32),
                np.empty(N_RAYS),
                np.empty(N_RAYS),
                np.empty(N_RAYS),
            ),
            bones=Bones(
                np.empty(N_RAYS * (n_steps // 2 + 1), np.int64),
                np.empty(N_RAYS * (n_steps // 2 + 1)),
            ),
            label=np.empty(grid_shape, np.uint8),
            places=np.empty((2, n_steps), np.int32),
            window=np.empty(WINDOW // 4 + 1),
            near=np.empty(g_columns, np.int32),
            square=np.empty(g_columns),
        ),
        clipped=np.empty(shape[1] + 1, np.float32),
        row_start=np.empty(g_rows + 1, np.int64),
        column_start=np.empty(g_columns + 1, np.int64),
        down=np.empty(shape[0], np.float32),
        across=np.empty(shape[1], np.float32),
        row_sums=np.empty((2, g_columns + 2), np.float32),
    )


def _runs(n_rows: int, most: int) -> Runs:
    return Runs(
        bounds=np.empty(2 * most + 1, np.int32),
        row_start=np.empty(n_rows + 1, np.int32),
        labels=np.empty(most, np.int32),
        n_cells=np.empty(most + 1, np.int32),
    )


@functools.cache
def fan() -> Fan:
    """The rays, read-only."""
    directions = _unit_vectors(N_RAYS)
    radius_mm = np.arange(0.0, RAY_LENGTH_MM, RAY_STEP_MM)
    cosine = np.ascontiguousarray((directions @ _unit_vectors(N_NORMALS).T).T)
    angle = np.arange(CURVE_ORDER + 1)[:, None] * np.arange(N_RAYS) * (2 * np.pi / N_RAYS)
    waves = np.concatenate([np.cos(angle), np.sin(angle[1:])]) * np.sqrt(2 / N_RAYS)
    waves[0] = np.sqrt(1 / N_RAYS)
    for array in (directions, radius_mm, cosine, waves):
        array.flags.writeable = False
    return Fan(directions, radius_mm, cosine, waves)


def _unit_vectors(n: int) -> Points:
    angle = np.arange(n) * (2 * np.pi / n)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)
