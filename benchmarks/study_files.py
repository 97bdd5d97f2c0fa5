"""Studies of any number of slices as DICOM files, made of one healthy phantom.

Healthy, because the reference stack's mask loses diseased lung and would do less work there.
Explicit little endian, not compressed, as most archives hand files out: decoding is cheap for both
sides. Every slice has noise of its own, so that none repeats another.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pydicom

from export.phantom import PhantomSettings, generate_case
from export.phantom.dicom_writer import write_case

LABEL, SEED, N_ORIGINALS = "Normal", 2001, 16
NOISE_HU = 4.0
STEP_MM = 1.0


def write_phantom(folder: Path) -> None:
    """Write the phantom itself, which no index holds; takes some ten seconds."""
    write_case(generate_case(LABEL, SEED, PhantomSettings(n_slices=N_ORIGINALS)), folder)


def write_study(folder: Path, n_slices: int, phantom: Path) -> None:
    """Write a study of ``n_slices`` files into a new folder.

    Parameters
    ----------
    phantom : Path
        Folder that :func:`write_phantom` wrote. Its slices come in their order, each several
        times with other noise; the two at either end, where the lung is small, are left out.
    """
    folder.mkdir(parents=True)
    originals = [pydicom.dcmread(path) for path in sorted(phantom.iterdir())][2:-2]
    generator = np.random.default_rng(n_slices)
    study_uid, series_uid = (f"1.2.826.0.1.3680043.10.1.{n_slices}.{i}" for i in (1, 2))
    for i in range(n_slices):
        original = originals[i * len(originals) // n_slices]
        stored = original.pixel_array
        noise = generator.normal(0, NOISE_HU, stored.shape).round().astype(stored.dtype)
        is_padding = stored == original.get("PixelPaddingValue", stored.min())
        changed = copy.copy(original)
        changed.PixelData = np.where(is_padding, stored, stored + noise).tobytes()
        changed.StudyInstanceUID, changed.SeriesInstanceUID = study_uid, series_uid
        changed.SOPInstanceUID = changed.file_meta.MediaStorageSOPInstanceUID = (
            f"{series_uid}.{i + 1}"
        )
        changed.InstanceNumber = i + 1
        changed.ImagePositionPatient = [*original.ImagePositionPatient[:2], STEP_MM * i]
        changed.SliceLocation = STEP_MM * i
        changed.save_as(folder / f"{i + 1:04d}.dcm", enforce_file_format=True)
