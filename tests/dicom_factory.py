"""Synthetic DICOM for tests: CT series as scanners store them, made on the fly.

The default picture is a body ellipse with two lungs in air, so that window, mask and features have
something to find. UIDs are derived from the arguments: the same call writes the same study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
NATIVE = (ExplicitVRLittleEndian, ExplicitVRBigEndian)


def make_uid(*facts: object) -> str:
    """A valid UID that depends on the facts only."""
    digest = hashlib.sha256("|".join(map(str, facts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def chest_hu(size: int = 128, *, seed: int = 0, level: float = 0.0) -> npt.NDArray[np.int16]:
    """A chest-like slice in HU: air -1000, body 40, lungs -850, bone 600, noise of 20 HU.

    ``level`` shifts the lungs up (1.0 = to -650 HU), so that slices differ.
    """
    y, x = np.mgrid[-1 : 1 : complex(size), -1 : 1 : complex(size)]
    picture = np.full((size, size), -1000.0)
    picture[(x / 0.85) ** 2 + (y / 0.65) ** 2 < 1] = 40
    for side in (-1, 1):
        picture[((x - side * 0.4) / 0.28) ** 2 + (y / 0.45) ** 2 < 1] = -850 + 200 * level
    picture[x**2 + (y - 0.45) ** 2 < 0.01] = 600
    noise = np.random.default_rng(seed).normal(0, 20, picture.shape)
    return np.clip(np.rint(picture + noise), -1024, 3071).astype(np.int16)


def ct_dataset(
    pixels_hu: npt.ArrayLike | None = None,
    *,
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_uid: str | None = None,
    patient_id: str = "PAT-0001",
    patient_name: str = "Test^Patient",
    birth_date: str = "",
    position: Sequence[float] = (-100.0, -100.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    pixel_spacing_mm: Sequence[float] = (0.7, 0.7),
    thickness_mm: float = 1.25,
    kernel: str = "B70f",
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "AXIAL"),
    description: str = "Thorax",
    instance_number: int = 1,
    intercept: float = -1024.0,
    slope: float = 1.0,
    is_signed: bool = False,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> Dataset:
    """One single-frame CT object; pixels are stored natively (compress it afterwards)."""
    hu = np.asarray(chest_hu() if pixels_hu is None else pixels_hu, dtype=np.float64)
    stored = np.rint((hu - intercept) / slope)
    order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.Modality = "CT"
    ds.ImageType = list(image_type)
    ds.Manufacturer = "ildsdk tests"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate = patient_id, patient_name, birth_date
    ds.StudyDate = "20240101"
    ds.StudyInstanceUID = study_uid or make_uid("study", patient_id)
    ds.SeriesInstanceUID = series_uid or make_uid("series", ds.StudyInstanceUID, kernel)
    ds.SOPInstanceUID = sop_uid or make_uid("sop", ds.SeriesInstanceUID, instance_number)
    ds.FrameOfReferenceUID = make_uid("frame", ds.StudyInstanceUID)
    ds.SeriesNumber, ds.InstanceNumber = 1, instance_number
    ds.SeriesDescription = description
    ds.ConvolutionKernel = kernel
    ds.SliceThickness = thickness_mm
    ds.ImagePositionPatient = [float(value) for value in position]
    ds.ImageOrientationPatient = [float(value) for value in orientation]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = hu.shape
    ds.PixelSpacing = [float(value) for value in pixel_spacing_mm]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(is_signed)
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    ds.PixelData = stored.astype(f"{order}{'i' if is_signed else 'u'}2").tobytes()
    _add_meta(ds, transfer_syntax)
    return ds


def write_ct_series(
    folder: Path,
    *,
    n_slices: int = 3,
    spacing_mm: float = 10.0,
    size: int = 128,
    start_mm: float = 0.0,
    seed: int = 0,
    pixels_hu: Callable[[int], npt.ArrayLike] | None = None,
    file_name: str = "slice-{number:03d}.dcm",
    edit: Callable[[Dataset, int], Any] | None = None,
    **facts: Any,
) -> list[Path]:
    """Write a CT series, one file per slice.

    Parameters
    ----------
    folder : Path
        Created if missing.
    pixels_hu : callable or None
        Slice number (from 0) -> HU array; a chest-like picture by default.
    file_name : str
        Pattern with ``{number}``, from 1.
    edit : callable or None
        Changes a data set before it is written: ``edit(ds, number_from_0)``.
    **facts
        For :func:`ct_dataset`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(n_slices):
        picture = (
            chest_hu(size, seed=seed + number, level=number / max(n_slices, 1))
            if pixels_hu is None
            else pixels_hu(number)
        )
        ds = ct_dataset(
            picture,
            position=(-100.0, -100.0, start_mm + spacing_mm * number),
            instance_number=number + 1,
            **facts,
        )
        if edit is not None:
            edit(ds, number)
        paths.append(save(ds, folder / file_name.format(number=number + 1)))
    return paths


def write_enhanced_ct(
    path: Path,
    *,
    n_frames: int = 4,
    spacing_mm: float = 10.0,
    size: int = 96,
    is_legacy: bool = False,
    intercepts: Sequence[float] | None = None,
    edit: Callable[[Dataset], Any] | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    **facts: Any,
) -> Path:
    """Write one enhanced (or legacy converted) multi-frame CT object.

    Frames are stored in descending position; ``intercepts`` gives each its own rescale.
    """
    ds = ct_dataset(chest_hu(size), transfer_syntax=transfer_syntax, **facts)
    ds.SOPClassUID = LegacyConvertedEnhancedCTImageStorage if is_legacy else EnhancedCTImageStorage
    ds.NumberOfFrames = n_frames
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=ds.ImageOrientationPatient)]
    shared.PixelMeasuresSequence = [
        _item(PixelSpacing=ds.PixelSpacing, SliceThickness=ds.SliceThickness)
    ]
    shared.CTReconstructionSequence = [_item(ConvolutionKernel=ds.ConvolutionKernel)]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames, groups = [], []
    for number in range(n_frames):
        intercept = -1024.0 if intercepts is None else intercepts[number]
        hu = chest_hu(size, seed=number)
        frames.append((hu.astype(np.int32) - int(intercept)).astype("<u2").tobytes())
        group = Dataset()
        z = spacing_mm * (n_frames - 1 - number)
        group.PlanePositionSequence = [_item(ImagePositionPatient=[-100.0, -100.0, z])]
        group.PixelValueTransformationSequence = [
            _item(RescaleSlope=1.0, RescaleIntercept=intercept, RescaleType="HU")
        ]
        group.CTImageFrameTypeSequence = [_item(FrameType=list(ds.ImageType))]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.PixelData = b"".join(frames)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "ConvolutionKernel",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(ds, keyword)
    _add_meta(ds, transfer_syntax)
    if edit is not None:
        edit(ds)
    return save(ds, path)


def save(ds: Dataset, path: Path) -> Path:
    """Write a data set with preamble and meta information."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID") or CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or "2.25.1"
    ds.save_as(path, enforce_file_format=True)
    return path


def _item(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def _add_meta(ds: Dataset, transfer_syntax: str) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = transfer_syntax
