"""Writes a phantom case as a DICOM CT series that any reader accepts and none can mistake."""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from export.phantom.settings import PhantomCase

RESCALE_INTERCEPT = -1024
"""Stored value = HU + 1024, as most scanners do."""

IMPLEMENTATION_UID = "2.25.190446759233541520817395062104771268523"


def phantom_uid(*parts: object) -> str:
    """UID under the UUID root ``2.25`` that depends on the parts alone.

    References
    ----------
    DICOM PS3.5, B.2 (UUID derived UID).
    """
    text = "|".join(["ildsdk phantom", *map(str, parts)])
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def write_case(
    case: PhantomCase, folder: pathlib.Path | str, *, patient_name: str | None = None
) -> list[pathlib.Path]:
    """Write one file per slice into ``folder`` (made if missing).

    Parameters
    ----------
    case : PhantomCase
        What :func:`~export.phantom.case.generate_case` returned.
    folder : path
        Files are named ``0001.dcm`` onwards in order of position.
    patient_name : str, optional
        PatientName; by default ``PHANTOM^`` and the case id.

    Returns
    -------
    list of Path
        The files in order of position.

    Notes
    -----
    The files say that they are synthetic in PatientName, SeriesDescription, ImageComments,
    QualityControlSubject and ContentQualification.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Pixels belong to the identity: two settings of one seed are different studies.
    digest = hashlib.sha256(np.ascontiguousarray(case.pixels_hu).tobytes()).hexdigest()
    study_uid = phantom_uid("study", case.case_id, digest)
    series_uid = phantom_uid("series", case.case_id, digest)
    frame_uid = phantom_uid("frame", case.case_id, digest)
    paths = []
    for index in range(len(case.position_mm)):
        dataset = _slice_dataset(case, index, patient_name or f"PHANTOM^{case.case_id}")
        dataset.StudyInstanceUID = study_uid
        dataset.SeriesInstanceUID = series_uid
        dataset.FrameOfReferenceUID = frame_uid
        dataset.SOPInstanceUID = phantom_uid("slice", case.case_id, digest, index)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"{index + 1:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _slice_dataset(case: PhantomCase, index: int, patient_name: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = pydicom.uid.UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = "ILDSDK_PHANTOM_1"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    pixels = case.pixels_hu[index].astype(np.int32) - RESCALE_INTERCEPT
    n_rows, n_columns = pixels.shape
    row_spacing, column_spacing = (float(f"{value:.10g}") for value in case.pixel_spacing_mm)
    sign = -1.0 if case.prone else 1.0
    corner = [
        -sign * column_spacing * (n_columns - 1) / 2,
        -sign * row_spacing * (n_rows - 1) / 2,
        float(case.position_mm[index]),
    ]

    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = CTImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality = "CT"
    dataset.Manufacturer = "ildsdk phantom"
    dataset.ManufacturerModelName = "synthetic chest"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20000101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.StudyDescription = "SYNTHETIC PHANTOM"
    dataset.SeriesDescription = "SYNTHETIC PHANTOM"
    dataset.ImageComments = "Synthetic image made by a program. Not a patient. Not for diagnosis."
    dataset.ContentQualification = "RESEARCH"
    dataset.QualityControlSubject = "YES"
    dataset.PatientName = patient_name
    dataset.PatientID = case.case_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = case.sex
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "synthetic"
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientPosition = "HFP" if case.prone else "HFS"
    dataset.SeriesNumber = 1
    dataset.AcquisitionNumber = 1
    # Scanners number from the head down.
    dataset.InstanceNumber = len(case.position_mm) - index
    dataset.KVP = case.kvp
    dataset.XRayTubeCurrent = case.tube_current_ma
    dataset.ConvolutionKernel = case.kernel
    dataset.SliceThickness = case.slice_thickness_mm
    dataset.ReconstructionDiameter = round(column_spacing * n_columns, 3)
    dataset.GantryDetectorTilt = 0
    dataset.PositionReferenceIndicator = ""
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in corner]
    dataset.ImageOrientationPatient = [sign, 0, 0, 0, sign, 0]
    dataset.SliceLocation = f"{case.position_mm[index]:.6f}"
    dataset.PixelSpacing = [row_spacing, column_spacing]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = n_rows, n_columns
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleIntercept = RESCALE_INTERCEPT
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = -500, 1500
    dataset.BurnedInAnnotation = "NO"
    if case.padding_hu is not None:
        dataset.add_new("PixelPaddingValue", "SS", case.padding_hu - RESCALE_INTERCEPT)
    dataset.PixelData = pixels.astype("<i2").tobytes()
    return dataset
