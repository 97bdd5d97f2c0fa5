"""Binary morphology in millimeters by shifted copies of a mask; see ``morphology_kernels.py``."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float]


def dilate(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Lay the circle on every True pixel."""
    n_rows, n_columns = mask.shape
    height = int(radius_mm / spacing_mm[0] + 1e-6)
    sum_before = np.zeros((n_rows, n_columns + 1), dtype=np.int64)
    np.cumsum(mask, axis=1, out=sum_before[:, 1:])
    out = np.zeros(mask.shape, dtype=np.bool_)
    for gap in range(-min(height, n_rows - 1), min(height, n_rows - 1) + 1):
        square = radius_mm**2 - (gap * spacing_mm[0]) ** 2
        width = int(math.sqrt(max(square, 0.0)) / spacing_mm[1] + 1e-6)
        columns = np.arange(n_columns)
        stop = np.minimum(columns + width + 1, n_columns)
        wide = sum_before[:, stop] > sum_before[:, np.maximum(columns - width, 0)]
        if gap >= 0:
            out[gap:] |= wide[: n_rows - gap]
        else:
            out[:gap] |= wide[-gap:]
    return out


def erode(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Dilate the background."""
    return ~dilate(~mask, radius_mm, spacing_mm)


def open_(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Erode, then dilate; never beyond the mask."""
    return dilate(erode(mask, radius_mm, spacing_mm), radius_mm, spacing_mm) & mask


def close(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Dilate beyond the image, then erode."""
    rows, columns = (math.ceil(radius_mm / step_mm) + 1 for step_mm in spacing_mm)
    wide = dilate(np.pad(mask, ((rows,), (columns,))), radius_mm, spacing_mm)
    return erode(wide, radius_mm, spacing_mm)[rows:-rows, columns:-columns]
