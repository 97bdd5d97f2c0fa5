"""Binary morphology in millimeters: thin wrappers over one kernel.

Structuring elements are ellipses in pixels, that is circles in mm, so anisotropic spacing
needs no resampling. Pixels outside the image count as background for a dilation
and as foreground for an erosion: an image border never eats into a mask.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ildsdk.lung import morphology_kernels as kernels

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float]


def dilate(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Pixels whose center lies at most ``radius_mm`` from a True pixel's center.

    Parameters
    ----------
    mask : ndarray
        bool ``(n_rows, n_columns)``, C-contiguous, may be read-only.
    radius_mm : float
        0 or more.
    spacing_mm : tuple of float
        ``(row_spacing, column_spacing)`` in mm.

    Returns
    -------
    ndarray
        bool, same shape.
    """
    return _transformed(mask, kernels.DILATE, radius_mm, spacing_mm)


def erode(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Pixels at more than ``radius_mm`` from any False pixel; see :func:`dilate`."""
    return _transformed(mask, kernels.ERODE, radius_mm, spacing_mm)


def close(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Dilate, then erode: fills gaps that a disc of this radius does not enter."""
    return _transformed(mask, kernels.CLOSE, radius_mm, spacing_mm)


def open_(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Erode, then dilate: drops what a disc of this radius does not fit into."""
    return _transformed(mask, kernels.OPEN, radius_mm, spacing_mm)


def _transformed(mask: Mask, operation: int, radius_mm: float, spacing_mm: Spacing) -> Mask:
    row_mm, column_mm = float(spacing_mm[0]), float(spacing_mm[1])
    radius_mm = float(radius_mm)
    n_rows, n_columns = mask.shape
    reach = int(radius_mm / row_mm + 1e-6) + 1
    # room for what goes beyond the image, so that a closing can take it back
    pad = (reach if operation == kernels.CLOSE else 0, int(radius_mm / column_mm + 1e-6) // 64 + 1)
    n_words = (n_rows + 2 * pad[0]) * ((n_columns + 63) // 64 + 2 * pad[1]) + 2
    out = np.empty(mask.shape, dtype=np.bool_)
    kernels.transform(
        mask,
        operation,
        radius_mm,
        row_mm,
        column_mm,
        pad,
        np.empty(reach, dtype=np.int64),
        np.empty((3, n_words), dtype=np.uint64),
        out,
    )
    return out
