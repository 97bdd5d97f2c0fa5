"""Studies of any number of slices as DICOM files, made of the embedded phantom study.

Explicit little endian, not compressed, as most archives hand them out: decoding is cheap for both
sides. Every slice has noise of its own, so that none repeats another.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

from ildsdk import defaults

NOISE_HU = 4.0
STEP_MM = 1.0


def write_study(folder: Path, n_slices: int, *, seed: int = 0) -> None:
    """Write a study of ``n_slices`` files into a new folder.

    Slices of the phantom come in their order, each several times with other noise; those at the
    ends, where the lung is small, are left out.
    """
    folder.mkdir(parents=True)
    originals = _demo_datasets()
    generator = np.random.default_rng([seed, n_slices])
    study_uid, series_uid = (f"1.2.826.0.1.3680043.10.1.{seed + 1}.{n_slices}.{i}" for i in (1, 2))
    for i in range(n_slices):
        dataset = originals[i * len(originals) // n_slices]
        stored = dataset.pixel_array
        noise = generator.normal(0, NOISE_HU, stored.shape).round().astype(stored.dtype)
        is_padding = stored == dataset.PixelPaddingValue
        varied = np.where(is_padding, stored, np.maximum(stored + noise, 0))
        copy = pydicom.Dataset()
        copy.update(dataset)
        copy.file_meta = pydicom.dataset.FileMetaDataset()
        copy.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        copy.file_meta.MediaStorageSOPInstanceUID = f"{series_uid}.{i + 1}"
        copy.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        copy.StudyInstanceUID, copy.SeriesInstanceUID = study_uid, series_uid
        copy.SOPInstanceUID, copy.InstanceNumber = f"{series_uid}.{i + 1}", i + 1
        x, y, _ = dataset.ImagePositionPatient
        copy.ImagePositionPatient = [x, y, STEP_MM * i]
        copy.SliceLocation = STEP_MM * i
        copy.PatientID, copy.PatientName = f"BENCHMARK-{seed}", "PHANTOM^BENCHMARK"
        del copy.PixelData
        copy.PixelData = varied.astype(stored.dtype).tobytes()
        copy["PixelData"].VR = "OW"
        copy.save_as(folder / f"{i + 1:04d}.dcm", enforce_file_format=True)


def write_one(path: Path) -> None:
    """Write the middle slice of the embedded phantom study, as it is, to a file."""
    with zipfile.ZipFile(defaults.demo_study_path()) as archive:
        names = sorted(archive.namelist())
        path.write_bytes(archive.read(names[len(names) // 2]))


def _demo_datasets() -> list[pydicom.Dataset]:
    with zipfile.ZipFile(defaults.demo_study_path()) as archive:
        members = [archive.read(name) for name in archive.namelist()]
    datasets = [pydicom.dcmread(io.BytesIO(member)) for member in members]
    datasets.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    return datasets[2:-2]
