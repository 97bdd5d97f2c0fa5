"""The intake on real, public CT (skips where the data are absent)."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from ildsdk.dicom import discover, read_slice
from ildsdk.dicom.pixels import read_stored
from ildsdk.errors import DecodeError, IldError

LOSSLESS = ("1.2.1", "1.2", "1.2.2", "1.2.1.99", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90")
LOSSY = {"1.2.4.50": 25.0, "1.2.4.51": 5.0, "1.2.4.81": 1.0, "1.2.4.91": 1.0}


def files_of(path: Path) -> list[Path]:
    return [Path(base) / name for base, _, names in os.walk(path) for name in names]


def ctimage(shared_data: Path, syntax: str) -> Path:
    (path,) = (shared_data / "dicom_ts" / "ctimage").glob(f"*_1.2.840.10008.{syntax}.dcm")
    return path


def single_header(path: Path):
    (study,) = discover(path).studies
    (header,) = study.slices
    return header


@pytest.mark.parametrize("syntax", [*LOSSLESS, "1.2.5"])
def test_lossless_syntaxes_agree(shared_data: Path, syntax: str) -> None:
    header = single_header(ctimage(shared_data, syntax))
    hu = read_stored(header) * header.layout.slope + header.layout.intercept
    assert float(hu.mean()) == pytest.approx(-949.08, abs=0.005)
    assert (hu.min(), hu.max()) == (-3024, 1378)
    plain = read_slice(single_header(ctimage(shared_data, "1.2.1")))
    np.testing.assert_array_equal(read_slice(header).pixels_hu, plain.pixels_hu)


@pytest.mark.parametrize(("syntax", "tolerance_hu"), LOSSY.items())
def test_lossy_syntaxes_are_close(shared_data: Path, syntax: str, tolerance_hu: float) -> None:
    lossy = read_slice(single_header(ctimage(shared_data, syntax))).pixels_hu
    plain = read_slice(single_header(ctimage(shared_data, "1.2.1"))).pixels_hu
    assert float(np.abs(lossy - plain).mean()) < tolerance_hu


@pytest.mark.parametrize("syntax", ["1.2.4.53", "1.2.4.55"])
def test_undecodable_syntaxes(shared_data: Path, syntax: str) -> None:
    with pytest.raises(DecodeError, match=rf"{syntax} \(JPEG .*export the study again"):
        read_slice(single_header(ctimage(shared_data, syntax)))


def test_folder_of_one_slice_in_many_syntaxes(shared_data: Path) -> None:
    result = discover(shared_data / "dicom_ts" / "ctimage")
    (study,) = result.studies
    (header,) = study.slices
    assert read_slice(header).pixels_hu.max() == 1378
    assert {item.reason for item in study.skipped} == {"duplicate-slice"}
    assert [item.reason for item in result.skipped] == ["not-ct"]


@pytest.mark.parametrize(
    "folder",
    ["dicom/tcga_luad", "dicom/covid19_ny_sbu", "dicom/lung_pet_ct_dx", "dicom/crlm", "dicom_odd"],
)
def test_every_file_ends_somewhere_and_is_readable(shared_data: Path, folder: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = discover(shared_data / folder, every_mm=0)
        headers = [header for study in result.studies for header in study.slices]
        skipped = [*result.skipped, *(item for s in result.studies for item in s.skipped)]
        sources = [header.source for header in headers] + [item.source for item in skipped]
        assert len(sources) == len(set(sources)) == len(files_of(shared_data / folder))
        for header in headers:
            pixels_hu = read_slice(header).pixels_hu
            assert pixels_hu.min() >= -1024
            assert np.isfinite(pixels_hu).all()
            # Real slices are never cut to less than the scanner's matrix.
            assert pixels_hu.shape == (header.n_rows, header.n_columns)


def test_each_odd_file_alone(shared_data: Path) -> None:
    for path in files_of(shared_data / "dicom_odd"):
        try:
            result = discover(path)
            for study in result.studies:
                for header in study.slices:
                    read_slice(header)
        except IldError:
            continue
        assert result.studies or result.skipped


def test_patients_and_refused_planes(shared_data: Path) -> None:
    luad = discover(shared_data / "dicom" / "tcga_luad")
    assert len(luad.studies) == 15
    assert len({study.patient_hash for study in luad.studies}) == 15
    covid = discover(shared_data / "dicom" / "covid19_ny_sbu")
    refused = [i for s in covid.studies for i in s.skipped] + list(covid.skipped)
    assert sorted(item.detail.split()[0] for item in refused) == ["coronal", "sagittal"]
    assert len({study.patient_hash for study in covid.studies}) == 8


def test_sharp_kernel_is_chosen(shared_data: Path) -> None:
    studies = discover(shared_data / "dicom" / "lung_pet_ct_dx").studies
    assert [s.kernel for study in studies for s in study.series if s.is_chosen] == ["L", "B70f"]
    other = [s for study in studies for s in study.series if not s.is_chosen]
    assert [s.kernel for s in other] == ["B40f"]
