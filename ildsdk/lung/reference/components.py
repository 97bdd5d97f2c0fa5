"""Connected components of a mask by flood filling; see ``component_kernels.py``."""

from __future__ import annotations

import dataclasses
import math
from collections import deque

import numpy as np
import numpy.typing as npt

from ildsdk.lung.reference.morphology import Mask


@dataclasses.dataclass(frozen=True, slots=True)
class Components:
    """Components of a mask (4 neighbors), numbered from 1 in reading order.

    Attributes
    ----------
    labels : ndarray
        int32 ``(n_rows, n_columns)``: number of each pixel's component, 0 outside.
    n_cells : ndarray
        int64 ``(n + 1,)``: pixels of each component; entry 0, the background, is 0.
    """

    labels: npt.NDArray[np.int32]
    n_cells: npt.NDArray[np.int64]

    @classmethod
    def of(cls, mask: Mask) -> Components:
        """Find the components of a mask."""
        labels, n_labels = label_components(mask)
        return cls(labels, np.bincount(labels[mask], minlength=n_labels + 1))

    def count_in(self, region: Mask) -> npt.NDArray[np.int64]:
        """Pixels of each component inside a region, ``(n + 1,)``."""
        inside = self.labels[region & (self.labels > 0)]
        return np.bincount(inside, minlength=self.n_cells.size)

    def cells_of(self, is_wanted: npt.NDArray[np.bool_]) -> Mask:
        """Pixels of the components marked in a bool ``(n + 1,)`` array; entry 0 is not read."""
        chosen: Mask = is_wanted[self.labels] & (self.labels > 0)
        return chosen

    def touches_border(self) -> npt.NDArray[np.bool_]:
        """Which components have a pixel on the outermost rows or columns, bool ``(n + 1,)``."""
        ring = np.ones(self.labels.shape, dtype=np.bool_)
        ring[1:-1, 1:-1] = False
        return self.count_in(ring) > 0


def fill_holes(mask: Mask, max_cells: float = math.inf) -> Mask:
    """Fill background components that do not touch the border and are not too large."""
    background = Components.of(~mask)
    is_hole = (background.n_cells <= max_cells) & ~background.touches_border()
    return mask | background.cells_of(is_hole)


def label_components(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], int]:
    """Flood fill from each unlabelled pixel in reading order."""
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
