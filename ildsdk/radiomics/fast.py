"""The fast engine: all features of one region by compiled kernels, without pyradiomics.

Same definitions, names and order as pyradiomics (docs/radiomics.md lists where values can
differ, and why). Needs numpy and numba only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.beside import run_both
from ildsdk.radiomics.co_occurrence import co_occurrence
from ildsdk.radiomics.firstorder import firstorder_features
from ildsdk.radiomics.glcm import glcm_features
from ildsdk.radiomics.glrlm import glrlm_features
from ildsdk.radiomics.glszm import glszm_features
from ildsdk.radiomics.level_order import in_level_order
from ildsdk.radiomics.levels import LevelImage, level_image
from ildsdk.radiomics.names import CLASS_SLICES, N_FEATURES
from ildsdk.radiomics.neighborhood import neighborhood_features, ngtdm_features
from ildsdk.radiomics.region import Region
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import RadiomicsSettings
from ildsdk.radiomics.shape2d import shape2d_features
from ildsdk.radiomics.size_matrix import GLDM_ORDER, GLRLM_ORDER, size_features
from ildsdk.radiomics.sweep import sweep


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
    of_class = {name: values[places] for name, places in CLASS_SLICES.items()}
    image, distribution = level_image(region, settings, scratch)

    def first_half() -> None:
        shape2d_features(region.shape_mask, region.shape_box, spacing, scratch, of_class["shape2D"])
        firstorder_features(
            distribution,
            image,
            spacing,
            settings.voxel_array_shift,
            scratch,
            of_class["firstorder"],
        )
        glszm_features(image, scratch, of_class["glszm"])

    def second_half(scratch: RadiomicsScratch) -> None:
        swept = sweep(image, settings, scratch)
        if swept is None:
            _level_by_level(image, settings, spacing, scratch, of_class)
            return
        glcm_features(image.grays, swept.pairs, settings, scratch, of_class["glcm"])
        longest = max(image.stride, image.levels.size // image.stride)
        size_features(swept.runs, longest, GLRLM_ORDER, scratch, of_class["glrlm"])
        size_features(swept.dependence, 9, GLDM_ORDER, scratch, of_class["gldm"])
        ngtdm_features(image.starts, image.grays, swept.differences, scratch, of_class["ngtdm"])

    if n_threads > 1:
        run_both(first_half, lambda: second_half(scratch.beside))
    else:
        first_half()
        second_half(scratch)
    return values


def _level_by_level(
    image: LevelImage,
    settings: RadiomicsSettings,
    pixel_spacing_mm: tuple[float, float],
    scratch: RadiomicsScratch,
    of_class: dict[str, npt.NDArray[np.float64]],
) -> None:
    """GLCM, GLRLM, GLDM and NGTDM for any settings."""
    ordered = in_level_order(image, scratch)
    pairs = co_occurrence(ordered, settings, pixel_spacing_mm, scratch)
    glcm_features(image.grays, pairs, settings, scratch, of_class["glcm"])
    glrlm_features(ordered, settings.weighting_norm, pixel_spacing_mm, scratch, of_class["glrlm"])
    neighborhood_features(
        ordered,
        settings.distances,
        settings.gldm_alpha,
        scratch,
        of_class["gldm"],
        of_class["ngtdm"],
    )
