"""Studies of any length for measurements: slices of the demo study, each with noise of its own.

    python -m benchmarks.long_study OUT --slices 300 [--jpegls]

Every slice differs from every other in its pixels, so none is recognized as a repeated one. They
are phantoms, as the demo study is.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from export.phantom.dicom_writer import phantom_uid
from ildsdk import defaults

NOISE_HU = 3  # added noise is uniform in -3 to 3 HU: too little to change what a slice shows
SPACING_MM = 1.0


def write_long_study(
    out: Path, n_slices: int, *, seed: int = 0, is_compressed: bool = False
) -> Path:
    """Write ``n_slices`` files of one series, 1 mm apart; returns the folder.

    Parameters
    ----------
    seed : int
        Another seed gives another study: other pixels, other UIDs.
    is_compressed : bool
        JPEG-LS lossless, as the demo study, instead of plain 16-bit pixels.
    """
    out.mkdir(parents=True)
    with zipfile.ZipFile(defaults.demo_study_path()) as archive:
        sources = []
        for name in sorted(archive.namelist())[2:-2]:  # the ends show too little lung
            with archive.open(name) as stream:
                source = pydicom.dcmread(stream)
            source.decompress()
            sources.append(source)
    rng = np.random.default_rng(seed)
    for number in range(n_slices):
        dataset = sources[number * len(sources) // n_slices].copy()
        pixels = dataset.pixel_array
        noise = rng.integers(-NOISE_HU, NOISE_HU + 1, pixels.shape, dtype=np.int16)
        dataset.PixelData = (pixels + noise).astype(pixels.dtype).tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.StudyInstanceUID = phantom_uid("long study", seed, n_slices)
        dataset.SeriesInstanceUID = phantom_uid("long series", seed, n_slices)
        dataset.SOPInstanceUID = phantom_uid("long slice", seed, n_slices, number)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        corner = list(dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [*corner[:2], f"{SPACING_MM * number:.6f}"]
        dataset.SliceLocation = f"{SPACING_MM * number:.6f}"
        dataset.SliceThickness = SPACING_MM
        dataset.InstanceNumber = n_slices - number
        if is_compressed:
            dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.save_as(out / f"{number + 1:04d}.dcm", enforce_file_format=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--jpegls", action="store_true")
    arguments = parser.parse_args()
    write_long_study(arguments.out, arguments.slices, is_compressed=arguments.jpegls)


if __name__ == "__main__":
    main()
