"""The working grid: the slice averaged to pixels of about the same size in mm.

All anatomy is decided there, so rules speak of millimeters and the time does not grow with
the matrix. The grid divides the image evenly: a flipped slice gives the flipped grid.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.lung.kernels import HIGH_HU, LOW_HU
from ildsdk.lung.segment import CELL_MM


@dataclasses.dataclass(frozen=True, slots=True)
class WorkingGrid:
    """A slice on the working grid, and the way back.

    Attributes
    ----------
    hu : ndarray
        float32 ``(g_rows, g_columns)``, HU clipped to [-1024, 1500] and averaged.
    spacing_mm : tuple of float
        Of the grid, ``(row, column)``.
    row_position, column_position : ndarray
        float64: grid coordinate of each image row and column; cell centers are whole numbers.
    """

    hu: npt.NDArray[np.float32]
    spacing_mm: tuple[float, float]
    row_position: npt.NDArray[np.float64]
    column_position: npt.NDArray[np.float64]

    @property
    def cell_mm2(self) -> float:
        """Area of one grid cell in square millimeters."""
        return self.spacing_mm[0] * self.spacing_mm[1]

    def cropped(self, rows: slice, columns: slice) -> WorkingGrid:
        """Part of the grid; coordinates of the image's rows and columns shift along."""
        return WorkingGrid(
            np.ascontiguousarray(self.hu[rows, columns]),
            self.spacing_mm,
            self.row_position - rows.start,
            self.column_position - columns.start,
        )

    def cells(self, area_mm2: float) -> float:
        """How many grid cells make an area."""
        return area_mm2 / self.cell_mm2


def _axis(
    n_pixels: int, spacing_mm: float
) -> tuple[float, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Cell size, first pixel of each cell and end, and coordinate of each pixel on the grid.

    A pixel belongs to the cell its center lies in, or begins.
    """
    n_cells = min(n_pixels, max(1, round(n_pixels * spacing_mm / CELL_MM)))
    start = -((n_cells - 2 * n_pixels * np.arange(n_cells + 1, dtype=np.int64)) // (2 * n_cells))
    pixel = np.arange(n_pixels, dtype=np.float64)
    position = (pixel + 0.5) * (n_cells / n_pixels) - 0.5
    return n_pixels * spacing_mm / n_cells, start, position


def to_working_grid(
    pixels_hu: npt.NDArray[Any], pixel_spacing_mm: tuple[float, float]
) -> WorkingGrid:
    """Average a slice onto cells of about 2 mm, never smaller than the pixels."""
    row_mm, row_start, row_position = _axis(pixels_hu.shape[0], pixel_spacing_mm[0])
    column_mm, column_start, column_position = _axis(pixels_hu.shape[1], pixel_spacing_mm[1])
    grid_hu = average_on_grid(pixels_hu, row_start, column_start)
    return WorkingGrid(grid_hu, (row_mm, column_mm), row_position, column_position)


def average_on_grid(
    pixels_hu: npt.NDArray[Any],
    row_start: npt.NDArray[np.int64],
    column_start: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Mean of the clipped pixels in each cell, summed in reading order in float32."""
    clipped = np.nan_to_num(pixels_hu.astype(np.float32), nan=LOW_HU, posinf=HIGH_HU, neginf=LOW_HU)
    clipped = np.clip(clipped, LOW_HU, HIGH_HU)
    heights, widths = np.diff(row_start), np.diff(column_start)
    totals = np.zeros((heights.size, widths.size), dtype=np.float32)
    for down in range(heights.max()):
        rows = np.flatnonzero(heights > down)
        for right in range(widths.max()):
            columns = np.flatnonzero(widths > right)
            places = np.ix_(row_start[:-1][rows] + down, column_start[:-1][columns] + right)
            totals[np.ix_(rows, columns)] += clipped[places]
    totals /= np.outer(heights, widths).astype(np.float32)
    return totals


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
    """Interpolate the coarse mask, let the pixels decide between."""
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


def cell_before(
    position: npt.NDArray[np.float64], n_cells: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Cell at or before each position, held to the grid, and the way to the next."""
    held = np.clip(position, 0.0, n_cells - 1.0)
    cell = held.astype(np.int64)
    return cell, (held - cell).astype(np.float32)
