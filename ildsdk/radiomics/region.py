"""From pixels and mask to the region whose features are taken, or the reason there is none.

Both engines go through here first, so that they refuse the same regions with the
same words. Order of steps as in pyradiomics: normalize, check, resegment, check, crop.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.errors import SliceUnusableError
from ildsdk.radiomics.cropping import bounding_box, survey
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import RadiomicsSettings


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """The region of interest: its pixels inside their bounding box.

    Attributes
    ----------
    pixels : ndarray
        float32 or float64 ``(n_rows, n_columns)``, C-contiguous, after normalization.
    mask : ndarray
        bool, same shape, C-contiguous, after resegmentation.
    box : tuple of int
        First row, first column, height and width of the mask's bounding box in both.
    shape_mask : ndarray
        bool, C-contiguous: the mask whose shape is measured. Where resegmentation does not concern
        shape, it is the caller's mask inside the bounding box of the resegmented one, as in
        pyradiomics.
    shape_box : tuple of int
        As ``box``, in ``shape_mask``.
    values : ndarray
        ``(n_pixels,)`` pixels of the mask in row order, finite. Nothing was written there where
        ``is_whole``.
    is_whole : bool
        All pixels of the mask are whole numbers of 16 bits.
    minimum, maximum : float
        Of the mask's pixels.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    """

    pixels: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_]
    box: tuple[int, int, int, int]
    shape_mask: npt.NDArray[np.bool_]
    shape_box: tuple[int, int, int, int]
    values: npt.NDArray[np.floating]
    is_whole: bool
    minimum: float
    maximum: float
    pixel_spacing_mm: tuple[float, float]


def check_arguments(
    pixels_hu: npt.NDArray[np.generic],
    lung_mask: npt.NDArray[np.generic],
    pixel_spacing_mm: tuple[float, float],
) -> None:
    """Refuse what no caller should hand in.

    Raises
    ------
    TypeError
        Pixels are not real numbers, or the mask is not bool.
    ValueError
        Shapes differ or are not two-dimensional, or the spacing is not finite and > 0.
    """
    if not isinstance(pixels_hu, np.ndarray) or pixels_hu.dtype.kind not in "fiu":
        found = getattr(pixels_hu, "dtype", type(pixels_hu).__name__)
        raise TypeError(f"pixels_hu is {found}, expected an array of real numbers")
    if not isinstance(lung_mask, np.ndarray) or lung_mask.dtype != np.bool_:
        found = getattr(lung_mask, "dtype", type(lung_mask).__name__)
        raise TypeError(f"lung_mask is {found}, expected a bool array")
    if pixels_hu.ndim != 2 or pixels_hu.shape != lung_mask.shape:
        raise ValueError(
            f"pixels_hu has shape {pixels_hu.shape} and lung_mask {lung_mask.shape}, "
            "expected the same (n_rows, n_columns)"
        )
    if len(pixel_spacing_mm) != 2 or not all(
        math.isfinite(mm) and mm > 0 for mm in pixel_spacing_mm
    ):
        raise ValueError(
            f"pixel_spacing_mm is {pixel_spacing_mm!r}, expected two finite numbers > 0 (mm)"
        )


def find_region(
    pixels_hu: npt.NDArray[Any],
    lung_mask: npt.NDArray[np.bool_],
    pixel_spacing_mm: tuple[float, float],
    settings: RadiomicsSettings,
    scratch: RadiomicsScratch,
) -> Region:
    """Normalize, resegment, check and crop.

    Parameters
    ----------
    pixels_hu : ndarray
        Real numbers ``(n_rows, n_columns)``; whole numbers are taken over exactly, so that
        no setting can overflow them.
    lung_mask : ndarray
        bool, same shape.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    settings : RadiomicsSettings
        What changes the region.
    scratch : RadiomicsScratch
        Holds the arrays of the region, until it is used again.

    Raises
    ------
    SliceUnusableError
        ``roi-empty``, ``roi-too-small``, ``roi-degenerate`` (a line), ``roi-not-finite``,
        ``image-not-finite`` or ``image-constant`` (normalization only).
    """
    pixels = pixels_hu
    if settings.normalize:
        pixels = _normalized(pixels, settings)
    mask = np.require(lung_mask, requirements=("C", "W"))
    box = _checked_box(mask, settings, "region of interest")
    if settings.resegment_range is not None:
        mask = _resegmented(pixels, mask, settings)
        box = _checked_box(mask, settings, "resegmented region of interest")
    here = box.here
    if pixels.dtype != np.float32:
        # only what is looked at is converted
        pixels, mask = pixels[box.slices], np.ascontiguousarray(mask[box.slices])
        here = (0, 0, *here[2:])
    # float32 stays: bin edges are found in the image's own precision
    kind = np.float32 if pixels.dtype == np.float32 else np.float64
    pixels = np.require(pixels, kind, ("C", "W"))
    values = scratch.take(f"values_{kind.__name__}", box.n_pixels + 1, kind)
    minimum, maximum, n_bad, is_whole = survey(pixels, mask, here, values)
    if n_bad > 0:
        raise _not_finite(n_bad, box.n_pixels)
    shape_mask, shape_box = mask, here
    if settings.resegment_range is not None and not settings.resegment_shape:
        shape_mask = np.ascontiguousarray(lung_mask[box.slices])
        shape_box = (0, 0, *here[2:])
    return Region(
        pixels=pixels,
        mask=mask,
        box=here,
        shape_mask=shape_mask,
        shape_box=shape_box,
        values=values[: box.n_pixels],
        is_whole=is_whole,
        minimum=minimum,
        maximum=maximum,
        pixel_spacing_mm=(float(pixel_spacing_mm[0]), float(pixel_spacing_mm[1])),
    )


class _Box(NamedTuple):
    """Bounding box of a mask, ends included."""

    first_row: int
    last_row: int
    first_column: int
    last_column: int
    n_pixels: int

    @property
    def here(self) -> tuple[int, int, int, int]:
        """First row, first column, height, width."""
        height, width = self.last_row - self.first_row + 1, self.last_column - self.first_column + 1
        return self.first_row, self.first_column, height, width

    @property
    def slices(self) -> tuple[slice, slice]:
        return (
            slice(self.first_row, self.last_row + 1),
            slice(self.first_column, self.last_column + 1),
        )


def _checked_box(mask: npt.NDArray[np.bool_], settings: RadiomicsSettings, what: str) -> _Box:
    """Bounding box of the mask, or the reason it is no region."""
    box = _Box(*bounding_box(mask, np.empty(mask.shape[1], dtype=np.bool_)))
    if box.n_pixels == 0:
        raise SliceUnusableError("roi-empty", f"the {what} has no pixel, expected some")
    n_dimensions = int(box.last_row > box.first_row) + int(box.last_column > box.first_column)
    if n_dimensions == 0:
        raise SliceUnusableError("roi-too-small", f"the {what} is one pixel, expected more")
    if n_dimensions < settings.minimum_roi_dimensions:
        raise SliceUnusableError(
            "roi-degenerate",
            f"the {what} is a line one pixel wide, expected an area "
            "(setting minimum_roi_dimensions allows lines)",
        )
    if settings.minimum_roi_size is not None and box.n_pixels <= settings.minimum_roi_size:
        raise SliceUnusableError(
            "roi-too-small",
            f"the {what} has {box.n_pixels} pixels, expected more than "
            f"{settings.minimum_roi_size} (setting minimum_roi_size)",
        )
    return box


def _not_finite(n_bad: int, n_pixels: int) -> SliceUnusableError:
    return SliceUnusableError(
        "roi-not-finite",
        f"{n_bad} of {n_pixels} pixels of the region of interest are NaN or infinite, "
        "expected none",
    )


def _resegmented(
    pixels: npt.NDArray[Any], mask: npt.NDArray[np.bool_], settings: RadiomicsSettings
) -> npt.NDArray[np.bool_]:
    """Pixels of the mask within the limits; comparisons run in the image's own type."""
    values = pixels[mask]
    n_bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if n_bad > 0:
        raise _not_finite(n_bad, values.size)
    low, high = _limits(values, settings)
    kept = values >= low
    if high is not None:
        kept &= values <= high
    resegmented = np.zeros_like(mask)
    resegmented[mask] = kept
    return resegmented


def _limits(values: npt.NDArray[Any], settings: RadiomicsSettings) -> tuple[Any, Any]:
    """Lower and upper limit (None: no upper one), in the values' own type where relative."""
    limits: list[Any] = sorted(settings.resegment_range or ())
    # scalars keep the image's type on purpose: a float32 image has float32 limits
    if settings.resegment_mode == "relative":
        limits = [values.max() * limit for limit in limits]
    elif settings.resegment_mode == "sigma":
        mean, deviation = np.mean(values), np.std(values)
        limits = [mean + deviation * limit for limit in limits]
    return limits[0], limits[1] if len(limits) == 2 else None


def _normalized(pixels: npt.NDArray[Any], settings: RadiomicsSettings) -> npt.NDArray[np.float64]:
    """``scale (x - mean) / deviation`` over the whole slice, deviation with n - 1."""
    real = pixels.astype(np.float64)
    if not np.isfinite(real).all():
        raise SliceUnusableError(
            "image-not-finite",
            "the slice holds NaN or infinite pixels, which normalization would spread",
        )
    deviation = float(real.std(ddof=1)) if real.size > 1 else 0.0
    if deviation == 0.0:
        raise SliceUnusableError(
            "image-constant", "all pixels of the slice are equal: it cannot be normalized"
        )
    normalized: npt.NDArray[np.float64] = (real - float(real.mean())) * (1.0 / deviation)
    if settings.remove_outliers is not None:
        np.clip(normalized, -settings.remove_outliers, settings.remove_outliers, out=normalized)
    return normalized * settings.normalize_scale
