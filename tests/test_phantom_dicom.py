"""The phantom's DICOM series and archives."""

from __future__ import annotations

import csv

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from export.phantom import (  # noqa: E402
    LABELS,
    PhantomSettings,
    generate_case,
    write_archive,
    write_case,
)

SMALL = PhantomSettings(size=96, n_slices=3)


def _seed_where(label: str, wanted) -> int:
    for seed in range(60):
        if wanted(generate_case(label, seed, PhantomSettings(size=64, n_slices=1))):
            return seed
    raise AssertionError("no such case among 60 seeds")


def test_round_trip_keeps_hu_and_geometry(tmp_path) -> None:
    case = generate_case("IPF-ILD", 2, SMALL)
    paths = write_case(case, tmp_path / "series")
    assert [path.name for path in paths] == ["0001.dcm", "0002.dcm", "0003.dcm"]
    uids = set()
    for index, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        hu = dataset.pixel_array * int(dataset.RescaleSlope) + int(dataset.RescaleIntercept)
        np.testing.assert_array_equal(hu, case.pixels_hu[index])
        row, column = np.asarray(dataset.ImageOrientationPatient, float).reshape(2, 3)
        np.testing.assert_allclose(np.cross(row, column), [0, 0, 1])
        place = np.asarray(dataset.ImagePositionPatient, float)
        assert place[2] == pytest.approx(case.position_mm[index])
        # The middle of the picture is the middle of the gantry.
        middle = place + (row + column) * case.pixel_spacing_mm[0] * (96 - 1) / 2
        np.testing.assert_allclose(middle[:2], 0, atol=1e-4)
        assert float(dataset.PixelSpacing[0]) == pytest.approx(case.pixel_spacing_mm[0])
        assert dataset.Modality == "CT"
        assert list(dataset.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
        assert dataset.ConvolutionKernel == case.kernel
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            uid = pydicom.uid.UID(dataset[keyword].value)
            assert uid.is_valid
            assert uid.startswith("2.25.")
        uids.add(dataset.SOPInstanceUID)
    assert len(uids) == 3
    first, last = pydicom.dcmread(paths[0]), pydicom.dcmread(paths[-1])
    assert first.StudyInstanceUID == last.StudyInstanceUID
    assert first.SeriesInstanceUID == last.SeriesInstanceUID


def test_files_say_that_they_are_synthetic(tmp_path) -> None:
    case = generate_case("Normal", 0, SMALL)
    dataset = pydicom.dcmread(write_case(case, tmp_path)[0])
    assert str(dataset.PatientName) == "PHANTOM^PHANTOM-NORMAL-0000"
    assert dataset.PatientID == "PHANTOM-NORMAL-0000"
    assert dataset.SeriesDescription == "SYNTHETIC PHANTOM"
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.PatientBirthDate == ""
    renamed = pydicom.dcmread(write_case(case, tmp_path / "b", patient_name="PLANTED^NAME")[0])
    assert str(renamed.PatientName) == "PLANTED^NAME"


def test_padding_is_declared(tmp_path) -> None:
    seed = _seed_where("Normal", lambda case: case.padding_hu == -2000)
    case = generate_case("Normal", seed, SMALL)
    dataset = pydicom.dcmread(write_case(case, tmp_path)[0])
    assert dataset.PixelPaddingValue + dataset.RescaleIntercept == -2000
    assert dataset.pixel_array[0, 0] == dataset.PixelPaddingValue


def test_prone_is_written_as_prone(tmp_path) -> None:
    seed = _seed_where("Normal", lambda case: case.prone)
    case = generate_case("Normal", seed, SMALL)
    dataset = pydicom.dcmread(write_case(case, tmp_path)[0])
    assert dataset.PatientPosition == "HFP"
    assert list(dataset.ImageOrientationPatient) == [-1, 0, 0, 0, -1, 0]


def test_uids_depend_on_the_case_alone(tmp_path) -> None:
    case = generate_case("ASS-ILD", 1, SMALL)
    again = write_case(case, tmp_path / "a"), write_case(case, tmp_path / "b")
    assert again[0][1].read_bytes() == again[1][1].read_bytes()
    other = generate_case("ASS-ILD", 1, PhantomSettings(size=96, n_slices=3, difficulty=0.9))
    changed = pydicom.dcmread(write_case(other, tmp_path / "c")[1])
    assert changed.SOPInstanceUID != pydicom.dcmread(again[0][1]).SOPInstanceUID


def test_archive_has_a_folder_per_case_and_a_table(tmp_path) -> None:
    seen: list[tuple[int, int]] = []
    settings = PhantomSettings(size=64, n_slices=2)
    n_slices = write_archive(
        tmp_path, 2, seed=7, settings=settings, progress=lambda *step: seen.append(step)
    )
    assert n_slices == 16
    assert seen == [(done, 8) for done in range(1, 9)]
    with (tmp_path / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "case_id", "label", "site", "verification"]
    assert [row["label"] for row in rows] == [label for label in LABELS for _ in range(2)]
    for row in rows:
        assert len(list((tmp_path / row["path"]).glob("*.dcm"))) == 2


def test_archive_does_not_depend_on_workers(tmp_path) -> None:
    settings = PhantomSettings(size=64, n_slices=1)
    write_archive(tmp_path / "one", 1, 3, settings, 1)
    write_archive(tmp_path / "two", 1, 3, settings, 2)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 5
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
