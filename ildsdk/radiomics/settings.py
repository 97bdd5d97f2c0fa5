"""Settings of the radiomics stage, with pyradiomics' meaning and defaults."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args

from ildsdk.errors import ConfigError

WeightingNorm = Literal["manhattan", "euclidean", "infinity", "no_weighting"]
ResegmentMode = Literal["absolute", "relative", "sigma"]

MAX_DISTANCE = 16


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RadiomicsSettings:
    """What changes a feature value. Names in brackets are pyradiomics' own.

    Attributes
    ----------
    bin_width : float
        Width of a gray level in HU, bins start at a multiple of it [binWidth].
    bin_count : int or None
        Split the range of the region into this many levels instead [binCount].
    distances : tuple of int
        Neighbor distances in pixels (infinity norm) of GLCM, GLDM, NGTDM [distances].
    symmetrical_glcm : bool
        Count each pair in both directions [symmetricalGLCM].
    weighting_norm : {"manhattan", "euclidean", "infinity", "no_weighting"} or None
        Merge the directions of GLCM and GLRLM, weighted by distance in mm, before
        features are taken; None takes the mean of the features over the directions [weightingNorm].
    gldm_alpha : int
        Largest difference of gray levels that still counts as dependent [gldm_a].
    voxel_array_shift : float
        Added to the values in Energy, TotalEnergy and RootMeanSquared [voxelArrayShift].
    normalize : bool
        Center and scale the whole slice by its mean and standard deviation [normalize].
    normalize_scale : float
        Factor after normalization [normalizeScale].
    remove_outliers : float or None
        Clip the normalized slice at this many standard deviations [removeOutliers].
    resegment_range : tuple of float or None
        One or two limits: keep only pixels of the mask within them [resegmentRange].
    resegment_mode : {"absolute", "relative", "sigma"}
        Limits in HU, as shares of the region's maximum, or in standard deviations from
        the region's mean [resegmentMode].
    resegment_shape : bool
        Shape features of the resegmented mask too [resegmentShape].
    minimum_roi_dimensions : int
        2: the region must be more than one pixel high and wide; 1: a line will do
        [minimumROIDimensions].
    minimum_roi_size : int or None
        Regions of this many pixels or fewer are refused, as in pyradiomics [minimumROISize].
    """

    bin_width: float = 25.0
    bin_count: int | None = None
    distances: tuple[int, ...] = (1,)
    symmetrical_glcm: bool = True
    weighting_norm: WeightingNorm | None = None
    gldm_alpha: int = 0
    voxel_array_shift: float = 0.0
    normalize: bool = False
    normalize_scale: float = 1.0
    remove_outliers: float | None = None
    resegment_range: tuple[float, ...] | None = None
    resegment_mode: ResegmentMode = "absolute"
    resegment_shape: bool = False
    minimum_roi_dimensions: int = 2
    minimum_roi_size: int | None = None

    def __post_init__(self) -> None:
        _check(
            _is_number(self.bin_width) and self.bin_width > 0,
            f"bin_width is {self.bin_width!r}, expected > 0 (HU)",
        )
        _check(
            self.bin_count is None or (isinstance(self.bin_count, int) and self.bin_count >= 1),
            f"bin_count is {self.bin_count!r}, expected a whole number of 1 or more, or None",
        )
        object.__setattr__(self, "distances", tuple(self.distances))
        _check(
            len(self.distances) > 0
            and len(set(self.distances)) == len(self.distances)
            and all(isinstance(d, int) and 1 <= d <= MAX_DISTANCE for d in self.distances),
            f"distances is {self.distances!r}, expected different whole numbers from 1 to "
            f"{MAX_DISTANCE} (pixels)",
        )
        _check(
            self.weighting_norm is None or self.weighting_norm in get_args(WeightingNorm),
            f"weighting_norm is {self.weighting_norm!r}, expected None or one of "
            f"{', '.join(get_args(WeightingNorm))}",
        )
        _check(
            isinstance(self.gldm_alpha, int) and self.gldm_alpha >= 0,
            f"gldm_alpha is {self.gldm_alpha!r}, expected a whole number of 0 or more",
        )
        for name in ("voxel_array_shift", "normalize_scale"):
            value = getattr(self, name)
            _check(_is_number(value), f"{name} is {value!r}, expected a finite number")
        _check(self.normalize_scale != 0, "normalize_scale is 0, expected another number")
        _check(
            self.remove_outliers is None
            or (_is_number(self.remove_outliers) and self.remove_outliers > 0),
            f"remove_outliers is {self.remove_outliers!r}, expected > 0 or None",
        )
        self._check_region()

    def _check_region(self) -> None:
        if self.resegment_range is not None:
            object.__setattr__(self, "resegment_range", tuple(self.resegment_range))
            _check(
                len(self.resegment_range) in (1, 2) and all(map(_is_number, self.resegment_range)),
                f"resegment_range is {self.resegment_range!r}, expected one or two finite limits",
            )
        _check(
            self.resegment_mode in get_args(ResegmentMode),
            f"resegment_mode is {self.resegment_mode!r}, expected one of "
            f"{', '.join(get_args(ResegmentMode))}",
        )
        _check(
            self.minimum_roi_dimensions in (1, 2),
            f"minimum_roi_dimensions is {self.minimum_roi_dimensions!r}, expected 1 or 2",
        )
        _check(
            self.minimum_roi_size is None
            or (isinstance(self.minimum_roi_size, int) and self.minimum_roi_size >= 0),
            f"minimum_roi_size is {self.minimum_roi_size!r}, expected 0 or more pixels, or None",
        )

    def to_pyradiomics(self) -> dict[str, Any]:
        """The same settings under pyradiomics' names, for its feature extractor."""
        return {
            "binWidth": float(self.bin_width),
            "binCount": self.bin_count,
            "distances": list(self.distances),
            "symmetricalGLCM": self.symmetrical_glcm,
            "weightingNorm": self.weighting_norm,
            "gldm_a": self.gldm_alpha,
            "voxelArrayShift": self.voxel_array_shift,
            "normalize": self.normalize,
            "normalizeScale": self.normalize_scale,
            "removeOutliers": self.remove_outliers,
            "resegmentRange": None if self.resegment_range is None else list(self.resegment_range),
            "resegmentMode": self.resegment_mode,
            "resegmentShape": self.resegment_shape,
            "minimumROIDimensions": self.minimum_roi_dimensions,
            "minimumROISize": self.minimum_roi_size,
            "label": 1,
            "force2D": False,
            "force2Ddimension": 0,
            "additionalInfo": False,
        }
