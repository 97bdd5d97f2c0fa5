"""Reading an image and its mask from files (DICOM, NIfTI, NRRD...) through SimpleITK.

For ``ildsdk radiomics`` only: the query path reads DICOM with :mod:`ildsdk.dicom`. SimpleITK
comes with the extra ``[pyradiomics]`` and is loaded on first use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ConfigError, DecodeError, InputError

_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, slots=True)
class LabeledSlice:
    """One slice of a volume in which the label occurs.

    Attributes
    ----------
    index : int
        Slice number in the volume, from 0; 0 for a two-dimensional image.
    pixels : ndarray
        ``(n_rows, n_columns)``, as stored in the image.
    mask : ndarray
        bool, same shape: the mask equals the label.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    """

    index: int
    pixels: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_]
    pixel_spacing_mm: tuple[float, float]


def labeled_slices(image_path: Path, mask_path: Path, label: int = 1) -> Iterator[LabeledSlice]:
    """Slices of an image in which the mask holds the label, in order.

    Parameters
    ----------
    image_path, mask_path : Path
        Two- or three-dimensional images of one size and geometry.
    label : int
        Value of the region in the mask.

    Raises
    ------
    ConfigError
        SimpleITK is not installed.
    DecodeError
        A file cannot be read.
    InputError
        Image and mask do not lie on the same grid, or the label does not occur.
    """
    image, mask = _read(image_path, "image"), _read(mask_path, "mask")
    if image.GetSize() != mask.GetSize():
        raise InputError(
            f"the image has {_size(image)} pixels and the mask {_size(mask)}, expected the same"
        )
    for name in ("Spacing", "Origin", "Direction"):
        ours, theirs = getattr(image, f"Get{name}")(), getattr(mask, f"Get{name}")()
        if not np.allclose(ours, theirs, rtol=0.0, atol=_TOLERANCE):
            raise InputError(
                f"{name.lower()} of the image is {ours} and of the mask {theirs}, expected the same"
            )
    sitk = _simple_itk()
    pixels, labels = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(mask)
    if pixels.ndim == 2:
        pixels, labels = pixels[None], labels[None]
    if pixels.ndim != 3 or labels.shape != pixels.shape:
        raise InputError(
            f"the image has {image.GetDimension()} dimensions and "
            f"{image.GetNumberOfComponentsPerPixel()} values a pixel, expected a gray image of "
            "2 or 3 dimensions"
        )
    column_mm, row_mm = image.GetSpacing()[:2]
    region = labels == label
    if not region.any():
        present = ", ".join(str(value) for value in np.unique(labels)[:10] if value)
        raise InputError(
            f"label {label} does not occur in the mask, which holds {present or 'no label'}"
        )
    for index in np.flatnonzero(region.any(axis=(1, 2))):
        yield LabeledSlice(int(index), pixels[index], region[index], (row_mm, column_mm))


def _simple_itk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise ConfigError(
            "reading image files needs SimpleITK, which is not installed. Install it with: "
            "pip install SimpleITK"
        ) from error
    return SimpleITK


def _read(path: Path, what: str) -> Any:
    sitk = _simple_itk()
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        # SimpleITK's own message holds the full path
        raise DecodeError(
            f"the {what} cannot be read by SimpleITK, expected DICOM, NIfTI, NRRD or another "
            "format it knows"
        ) from None
    if image.GetDimension() == 3 and image.GetSize()[2] == 1:
        image = image[:, :, 0]
    return image


def _size(image: Any) -> str:
    return " x ".join(str(n) for n in image.GetSize())
