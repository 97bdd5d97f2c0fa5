"""Lung mask of the reference stack: the paper's section 1.1 with scikit-learn and scikit-image.

K-means with two centers on the windowed pixels, binarization, erosion and dilation, and the
cleaning without which the result would be no lung: air outside the body goes, small pieces go,
holes are filled. Steps where scikit-image offers several ways take the one that was fastest here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import dilation, disk, erosion, isotropic_closing
from skimage.segmentation import clear_border
from sklearn.cluster import KMeans

EROSION_MM, CLOSING_MM = 0.6, 5.0
LEAST_PIECE_MM2 = 500.0

Mask = npt.NDArray[np.bool_]


def two_means_threshold(windowed: npt.NDArray[np.float32]) -> float:
    """Middle of the two centers of K-means on all pixels, one start."""
    # From black and white: two rounds, where a random start needs more and a draw besides.
    start = np.array([[0.0], [1.0]], dtype=np.float32)
    means = KMeans(n_clusters=2, init=start, n_init=1, algorithm="lloyd", copy_x=False)
    centers = means.fit(windowed.reshape(-1, 1)).cluster_centers_
    return float(centers.mean())


def lung_mask(windowed: npt.NDArray[np.float32], pixel_spacing_mm: tuple[float, float]) -> Mask:
    """Lungs of one axial slice.

    Parameters
    ----------
    windowed : ndarray
        float32 ``(n_rows, n_columns)`` in [0, 1].
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.

    Returns
    -------
    ndarray
        bool, the shape of ``windowed``; all False where no piece is large enough.
    """
    step_mm = (pixel_spacing_mm[0] * pixel_spacing_mm[1]) ** 0.5
    eroded = disk(max(1, round(EROSION_MM / step_mm)), decomposition="sequence")
    air = clear_border(windowed < two_means_threshold(windowed))
    # Erosion parts the trachea from the lungs; the small pieces go; dilation gives back the rim.
    pieces = label(erosion(air, eroded), connectivity=1)
    sizes_mm2 = np.bincount(pieces.ravel()) * step_mm**2
    is_lung = sizes_mm2 >= LEAST_PIECE_MM2
    is_lung[0] = False
    lung = dilation(is_lung[pieces], eroded)
    closed = isotropic_closing(lung, max(1, round(CLOSING_MM / step_mm)))
    filled: Mask = ndimage.binary_fill_holes(closed)
    return filled
