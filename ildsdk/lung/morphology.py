"""Binary morphology in millimeters and connected components: thin wrappers over the kernels.

Structuring elements are ellipses in pixels, that is circles in mm, so anisotropic spacing
needs no resampling. Pixels outside the image count as background for a dilation
and as foreground for an erosion: an image border never eats into a mask.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ildsdk.lung import kernels

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
    row_mm, column_mm = spacing_mm
    reach = int(radius_mm / row_mm + 1e-6) + 1
    height_mm = np.arange(reach) * row_mm
    half_width = np.sqrt(np.maximum(radius_mm**2 - height_mm**2, 0.0)) / column_mm
    out = np.empty(mask.shape, dtype=np.bool_)
    kernels.dilate_ellipse(
        mask,
        (half_width + 1e-6).astype(np.int64),
        np.empty(mask.shape, dtype=np.int16),
        np.empty(mask.shape[1] + 1, dtype=np.int32),
        out,
    )
    return out


def erode(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Pixels at more than ``radius_mm`` from any False pixel; see :func:`dilate`."""
    return ~dilate(~mask, radius_mm, spacing_mm)


def close(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Dilate, then erode: fills gaps that a disc of this radius does not enter."""
    pad = (
        math.ceil(radius_mm / spacing_mm[0]) + 1,
        math.ceil(radius_mm / spacing_mm[1]) + 1,
    )
    # Padded, so that the dilation is not cut at the border before the erosion takes it back.
    wide = dilate(np.pad(mask, ((pad[0],), (pad[1],))), radius_mm, spacing_mm)
    closed = erode(wide, radius_mm, spacing_mm)
    return np.ascontiguousarray(closed[pad[0] : -pad[0], pad[1] : -pad[1]])


def open_(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Erode, then dilate: drops what a disc of this radius does not fit into."""
    return dilate(erode(mask, radius_mm, spacing_mm), radius_mm, spacing_mm) & mask


def label(mask: Mask, *, by_corners: bool = False) -> tuple[npt.NDArray[np.int32], int]:
    """Connected components numbered from 1 in reading order.

    Parameters
    ----------
    mask : ndarray
        bool ``(n_rows, n_columns)``, C-contiguous, may be read-only.
    by_corners : bool
        True: 8-connected; False: 4-connected.

    Returns
    -------
    labels : ndarray
        int32, same shape, 0 where ``mask`` is False.
    n_components : int
    """
    labels = np.empty(mask.shape, dtype=np.int32)
    parent = np.zeros(mask.size // 2 + 2, dtype=np.int32)
    return labels, int(kernels.label_components(mask, by_corners, labels, parent))


def border_labels(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Distinct labels (not 0) on the outermost pixels."""
    ring = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    found = np.unique(ring)
    return found[found > 0]


def fill_holes(mask: Mask, max_area_px: float = math.inf) -> Mask:
    """Fill background components that do not touch the border and are not too large."""
    labels, n_components = label(~mask)
    fill = np.bincount(labels.ravel(), minlength=n_components + 1) <= max_area_px
    fill[0] = False
    fill[border_labels(labels)] = False
    filled: Mask = mask | fill[labels]
    return filled
