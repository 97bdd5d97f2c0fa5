"""The working grid: the slice averaged to pixels of about the same size in mm.

All anatomy is decided there, so rules speak of millimeters and the time does not grow with
the matrix. The grid divides the image evenly: a flipped slice gives the flipped grid.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.lung import kernels

CELL_MM = 2.0
LOW_HU, HIGH_HU = -1024.0, 1500.0


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
    """Average a slice onto the working grid.

    Parameters
    ----------
    pixels_hu : ndarray
        float32 or int16 ``(n_rows, n_columns)``, C-contiguous, HU; may be read-only.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.

    Returns
    -------
    WorkingGrid
        Cells of about 2 mm, never smaller than the pixels.
    """
    row_mm, row_start, row_position = _axis(pixels_hu.shape[0], pixel_spacing_mm[0])
    column_mm, column_start, column_position = _axis(pixels_hu.shape[1], pixel_spacing_mm[1])
    grid_hu = np.empty((row_start.size - 1, column_start.size - 1), dtype=np.float32)
    kernels.average_on_grid(
        pixels_hu,
        row_start,
        column_start,
        LOW_HU,
        HIGH_HU,
        np.empty(pixels_hu.shape[1], dtype=np.float32),
        grid_hu,
    )
    return WorkingGrid(grid_hu, (row_mm, column_mm), row_position, column_position)
