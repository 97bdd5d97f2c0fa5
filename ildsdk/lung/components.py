"""Connected components of a mask on the working grid."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from ildsdk.lung import component_kernels as kernels
from ildsdk.lung.morphology import Mask


@dataclasses.dataclass(frozen=True, slots=True)
class Components:
    """Components of a mask (4 neighbors), numbered from 1 in reading order, as runs.

    Attributes
    ----------
    shape : tuple of int
        ``(n_rows, n_columns)`` of the mask.
    n_cells : ndarray
        int32 ``(n + 1,)``: pixels of each component; entry 0, the background, is 0.
    bounds : ndarray
        int32 ``(2 n_runs,)``: first column of each run, and the one after its last.
    row_start : ndarray
        int32 ``(n_rows + 1,)``: first run of each row.
    labels : ndarray
        int32 ``(n_runs,)``: number of each run's component.
    """

    shape: tuple[int, int]
    n_cells: npt.NDArray[np.int32]
    bounds: npt.NDArray[np.int32]
    row_start: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]

    @classmethod
    def of(cls, mask: Mask) -> Components:
        """Find the components of a bool ``(n_rows, n_columns)``, C-contiguous mask."""
        n_rows, n_columns = mask.shape
        most = n_rows * ((n_columns + 1) // 2)
        bounds = np.empty(2 * most + 1, dtype=np.int32)
        row_start = np.empty(n_rows + 1, dtype=np.int32)
        labels = np.empty(most, dtype=np.int32)
        n_cells = np.empty(most + 1, dtype=np.int32)
        n_components = kernels.find_components(mask, bounds, row_start, labels, n_cells)
        n_runs = int(row_start[-1])
        return cls(
            (n_rows, n_columns),
            n_cells[: n_components + 1],
            bounds[: 2 * n_runs],
            row_start,
            labels[:n_runs],
        )

    def count_in(self, region: Mask) -> npt.NDArray[np.int64]:
        """Pixels of each component inside a region, int64 ``(n + 1,)``."""
        counts = np.zeros(self.n_cells.size, dtype=np.int64)
        kernels.exchange(False, counts, self.bounds, self.row_start, self.labels, region)
        return counts

    def cells_of(self, is_wanted: npt.NDArray[np.bool_]) -> Mask:
        """Pixels of the components marked in a bool ``(n + 1,)`` array; entry 0 is not read."""
        out = np.empty(self.shape, dtype=np.bool_)
        wanted = is_wanted.astype(np.int64)
        kernels.exchange(True, wanted, self.bounds, self.row_start, self.labels, out)
        return out

    def touches_border(self) -> npt.NDArray[np.bool_]:
        """Which components have a pixel on the outermost rows or columns, bool ``(n + 1,)``."""
        touches = np.zeros(self.n_cells.size, dtype=np.bool_)
        is_at_border = (self.bounds[::2] == 0) | (self.bounds[1::2] == self.shape[1])
        is_at_border[: self.row_start[1]] = True
        is_at_border[self.row_start[-2] :] = True
        touches[self.labels[is_at_border]] = True
        return touches


def fill_holes(mask: Mask, max_cells: float = math.inf) -> Mask:
    """Fill background components that do not touch the border and are not too large."""
    background = Components.of(~mask)
    is_hole = (background.n_cells <= max_cells) & ~background.touches_border()
    return mask | background.cells_of(is_hole)
