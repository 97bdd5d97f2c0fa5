"""The fast engine: all features of one region by compiled kernels, without pyradiomics.

Same definitions, names and order as pyradiomics (docs/radiomics.md lists where values can
differ, and why). Needs numpy and numba only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.beside import run_both
from ildsdk.radiomics.firstorder import firstorder_features
from ildsdk.radiomics.glcm import glcm_features
from ildsdk.radiomics.glrlm import glrlm_features
from ildsdk.radiomics.glszm import glszm_features
from ildsdk.radiomics.levels import level_image
from ildsdk.radiomics.names import CLASS_SLICES, N_FEATURES
from ildsdk.radiomics.neighborhood import neighborhood_features
from ildsdk.radiomics.region import Region
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import RadiomicsSettings
from ildsdk.radiomics.shape2d import shape2d_features


def fast_features(
    region: Region, settings: RadiomicsSettings, scratch: RadiomicsScratch, n_threads: int = 1
) -> npt.NDArray[np.float64]:
    """All features of a region.

    Parameters
    ----------
    region : Region
        From :func:`~ildsdk.radiomics.region.find_region` with the same settings.
    settings : RadiomicsSettings
        What changes a value.
    scratch : RadiomicsScratch
        Working memory; the one that holds the region.
    n_threads : int
        2 or more: the feature classes are shared out between two threads. Same values.

    Returns
    -------
    ndarray
        float64 ``(102,)`` in the order of ``FEATURE_NAMES``, NaN where there is no value.

    Raises
    ------
    SliceUnusableError
        ``roi-too-many-levels``.
    """
    spacing = region.pixel_spacing_mm
    values = np.empty(N_FEATURES)
    image = level_image(region, settings, scratch)

    def first_half() -> None:
        shape2d_features(region.shape_mask, spacing, scratch, values[CLASS_SLICES["shape2D"]])
        firstorder_features(
            region, image, settings.voxel_array_shift, scratch, values[CLASS_SLICES["firstorder"]]
        )
        glcm_features(image, settings, spacing, scratch, values[CLASS_SLICES["glcm"]])

    def second_half(scratch: RadiomicsScratch) -> None:
        glrlm_features(
            image, settings.weighting_norm, spacing, scratch, values[CLASS_SLICES["glrlm"]]
        )
        glszm_features(image, scratch, values[CLASS_SLICES["glszm"]])
        neighborhood_features(
            image,
            settings.distances,
            settings.gldm_alpha,
            scratch,
            values[CLASS_SLICES["gldm"]],
            values[CLASS_SLICES["ngtdm"]],
        )

    if n_threads > 1:
        run_both(first_half, lambda: second_half(scratch.beside))
    else:
        first_half()
        second_half(scratch)
    return values
