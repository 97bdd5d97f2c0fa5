"""How close the fast engine must come to pyradiomics, and where it may differ, and why.

The rule is 1e-9 relative. Everything that departs from it stands in this file.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics import FEATURE_NAMES, RadiomicsExtractor, RadiomicsSettings
from ildsdk.radiomics.names import CLASS_SLICES, FEATURE_CLASSES

RELATIVE = 1e-9

# MCC: pyradiomics takes the eigenvalues of a matrix that is not symmetric; equal ones come
# out of LAPACK with an error of the square root of the double precision.
RELATIVE_OF = {"original_glcm_MCC": 1e-6}

# Features whose exact value is 0 in special regions: what an engine gives there is rounding
# of terms of the given size. Without these floors a 0 would be compared with 1e-17.
FLOORS = {
    # square root of a rounding error where the mask is a slanting line
    "original_shape2D_Elongation": 1e-6,
    # symmetric distributions
    "original_firstorder_Skewness": 1e-12,
    "original_glcm_Correlation": 1e-12,
    # independent gray levels: differences of equal entropies, and their square root
    "original_glcm_Imc1": 1e-12,
    "original_glcm_Imc2": 1e-6,
    "original_glcm_MCC": 1e-7,
}
# one level, one size, one difference: the entropy of a sure thing, the variance of one number
FLOORS.update((name, 1e-12) for name in FEATURE_NAMES if name.endswith(("Entropy", "Variance")))


def allowed(reference: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Largest allowed difference for each feature, given pyradiomics' values."""
    value = dict(zip(FEATURE_NAMES, reference, strict=True))
    limits = np.array(
        [
            RELATIVE_OF.get(name, RELATIVE) * abs(value[name]) + FLOORS.get(name, 0.0)
            for name in FEATURE_NAMES
        ]
    )

    def widen(name: str, floor: float) -> None:
        limits[FEATURE_NAMES.index(name)] += floor

    # a mean of numbers of this size can only be so near to 0
    widest = max(
        abs(value["original_firstorder_Minimum"]), abs(value["original_firstorder_Maximum"])
    )
    for name in ("Mean", "Median", "10Percentile", "90Percentile"):
        widen(f"original_firstorder_{name}", 1e-13 * widest)
    widen("original_shape2D_MinorAxisLength", 1e-6 * value["original_shape2D_MajorAxisLength"])
    tendency = value["original_glcm_ClusterTendency"]
    if np.isfinite(tendency):
        widen("original_glcm_ClusterShade", 1e-12 * (1.0 + tendency**1.5))
    return limits


def compare(reference: npt.NDArray[np.float64], fast: npt.NDArray[np.float64]) -> dict[str, float]:
    """Assert that all 102 values agree; returns the largest relative difference by class."""
    missing = np.isnan(reference)
    differing = [
        f"{name}: fast {ours!r}, pyradiomics {theirs!r}"
        for name, ours, theirs in zip(FEATURE_NAMES, fast, reference, strict=True)
        if np.isnan(ours) != np.isnan(theirs)
    ]
    assert not differing, "\n".join(differing)
    difference = np.abs(np.where(missing, 0.0, fast - reference))
    beyond = [
        f"{FEATURE_NAMES[i]}: fast {fast[i]!r}, pyradiomics {reference[i]!r}"
        for i in np.flatnonzero(difference > np.where(missing, 0.0, allowed(reference)))
    ]
    assert not beyond, "\n".join(beyond)
    size = np.where(missing | (reference == 0.0), 1.0, np.abs(reference))
    relative = difference / size
    return {name: float(relative[CLASS_SLICES[name]].max()) for name in FEATURE_CLASSES}


def both(
    pixels: npt.NDArray[np.generic],
    mask: npt.NDArray[np.bool_],
    pixel_spacing_mm: tuple[float, float] = (0.7, 0.9),
    settings: RadiomicsSettings | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Values of pyradiomics and of the fast engine, NaN where there is none."""
    found = [
        RadiomicsExtractor(settings, engine).extract(pixels, mask, pixel_spacing_mm, strict=False)
        for engine in ("pyradiomics", "fast")
    ]
    return found[0].values, found[1].values
