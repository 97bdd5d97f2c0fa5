"""Which files become slices, which are skipped and why."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ildsdk.dicom import discover, is_lung_kernel, patient_hash, reasons
from ildsdk.dicom.image_rules import normal_of
from ildsdk.errors import ConfigError
from tests import dicom_factory as factory


def skip_reasons(result) -> dict[str, str]:
    items = [*result.skipped, *(item for study in result.studies for item in study.skipped)]
    assert all(item.reason in reasons.MEANINGS for item in items)
    return {item.source: item.reason for item in items}


def test_nested_folder_is_sorted_by_position_not_by_name_or_number(tmp_path: Path) -> None:
    def shuffle(ds: Dataset, number: int) -> None:
        ds.InstanceNumber = 99 - number
        if number == 1:
            ds.ImagePositionPatient = [-100, -100, 500]

    paths = factory.write_ct_series(tmp_path / "a" / "b", n_slices=4, edit=shuffle)
    paths[2].rename(tmp_path / "no-suffix")
    study = discover(tmp_path).studies[0]
    assert [s.position_mm for s in study.slices] == [0.0, 20.0, 30.0, 500.0]
    assert study.slices[1].source == "no-suffix"
    assert study.slices[0].source == "a/b/slice-001.dcm"
    assert study.series[0].is_chosen
    assert study.series[0].n_slices == 4


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    factory.write_ct_series(tmp_path, n_slices=5, spacing_mm=4.0)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    result = discover(tmp_path)
    used = {s.source for study in result.studies for s in study.slices}
    skipped = skip_reasons(result)
    assert used == {"slice-001.dcm", "slice-004.dcm"}
    assert skipped == {
        "slice-002.dcm": "not-sampled",
        "slice-003.dcm": "not-sampled",
        "slice-005.dcm": "not-sampled",
        "notes.txt": "not-dicom",
        "empty": "not-dicom",
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Modality": "MR"}, "not-ct"),
        ({"Modality": "", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "not-ct"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary-capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "Modality": "SR"}, "dose-report"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"SeriesDescription": "Topogram 0.6"}, "localizer"),
        ({"SeriesDescription": "Dose Report"}, "dose-report"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "derived"),
        ({"RescaleType": "Z_EFF"}, "derived"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "rgb"),
        ({"ImageOrientationPatient": list(factory.CORONAL)}, "reformat"),
        ({"ImageOrientationPatient": list(factory.SAGITTAL)}, "reformat"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.8, -0.6]}, "reformat"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not-axial"),
        ({"ImageOrientationPatient": None, "ImageType": ["ORIGINAL", "PRIMARY"]}, "not-axial"),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.7, 0.7]}, "no-pixel-spacing"),
        ({"PixelSpacing": [0, 0.7]}, "no-pixel-spacing"),
        ({"RescaleIntercept": None}, "no-rescale"),
        ({"RescaleSlope": 0}, "no-rescale"),
        ({"PixelData": None}, "no-pixel-data"),
        ({"Rows": 8}, "bad-image-description"),
        ({"BitsStored": 17}, "bad-image-description"),
        ({"NumberOfFrames": 7}, "bad-image-description"),
    ],
)
def test_refused_images(tmp_path: Path, changes: dict, reason: str) -> None:
    def edit(ds: Dataset, number: int) -> None:
        for keyword, value in changes.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    factory.write_ct_series(tmp_path, n_slices=1, edit=edit)
    result = discover(tmp_path)
    assert result.studies == ()
    assert skip_reasons(result) == {"slice-001.dcm": reason}


@pytest.mark.parametrize(
    "changes",
    [
        {"Modality": ""},
        {"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]},  # prone
        {"ImageOrientationPatient": [0, -1, 0, 1, 0, 0]},  # decubitus
        {"ImageOrientationPatient": [1, 0, 0, 0, 0.97, -0.243]},  # tilted gantry
        {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]},
        {"RescaleType": "Houndsfield Unit"},
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": None},
        {"StudyInstanceUID": None},
        {"SeriesInstanceUID": "PATIENT NAME"},
        {"SOPInstanceUID": None},
        {"InstanceNumber": None},
        {"SliceThickness": None},
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_odd_but_usable_images(tmp_path: Path, changes: dict) -> None:
    def edit(ds: Dataset, number: int) -> None:
        for keyword, value in changes.items():
            setattr(ds, keyword, value)

    factory.write_ct_series(tmp_path, n_slices=1, edit=edit)
    (study,) = discover(tmp_path).studies
    (header,) = study.slices
    for uid in (header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid):
        assert uid.replace(".", "").isdigit()


def test_lung_kernel_then_thickness_then_count(tmp_path: Path) -> None:
    factory.write_ct_series(tmp_path / "1", n_slices=20, kernel="B31f", thickness_mm=1.0)
    factory.write_ct_series(tmp_path / "2", n_slices=20, kernel="B60f", thickness_mm=5.0)
    factory.write_ct_series(tmp_path / "3", n_slices=20, kernel="B70f", thickness_mm=1.0)
    factory.write_ct_series(tmp_path / "4", n_slices=21, kernel="B80f", thickness_mm=1.0)
    study = discover(tmp_path).studies[0]
    assert [s.kernel for s in study.series if s.is_chosen] == ["B80f"]
    why = {s.kernel: s.reason for s in study.series}
    assert why["B31f"].startswith("kernel B31f is no lung kernel")
    assert "thickness 5" in why["B60f"]
    assert why["B70f"].startswith("20 slices")
    assert "first of 4" in why["B80f"]


def test_short_and_derived_and_expiratory_series_come_last(tmp_path: Path) -> None:
    # A single sharp test slice must not win over the whole lung.
    factory.write_ct_series(tmp_path / "1", n_slices=1, kernel="B90s", thickness_mm=0.6)
    derived = ("DERIVED", "SECONDARY", "REFORMATTED")
    factory.write_ct_series(
        tmp_path / "2", n_slices=9, kernel="B80f", thickness_mm=0.6, image_type=derived
    )
    factory.write_ct_series(
        tmp_path / "3", n_slices=9, kernel="B70f", thickness_mm=0.6, description="HRCT EXP 1mm"
    )
    factory.write_ct_series(tmp_path / "4", n_slices=9, kernel="B30f", thickness_mm=3.0)
    study = discover(tmp_path).studies[0]
    why = {s.kernel: s.reason for s in study.series}
    assert study.series[0].kernel == "B30f"
    assert "under half" in why["B90s"]
    assert why["B80f"].startswith("derived")
    assert why["B70f"].startswith("expiratory")


def test_series_uid_overrides_and_unknown_one_lists_what_there_is(tmp_path: Path) -> None:
    factory.write_ct_series(tmp_path / "1", kernel="B31f", series_uid="1.2.3")
    factory.write_ct_series(tmp_path / "2", kernel="B70f", series_uid="1.2.4")
    factory.write_ct_series(
        tmp_path / "3", kernel="T20s", series_uid="1.2.5", image_type=("ORIGINAL", "X", "LOCALIZER")
    )
    study = discover(tmp_path, series_uid="1.2.3").studies[0]
    assert {s.series_instance_uid for s in study.slices} == {"1.2.3"}
    with pytest.raises(ConfigError, match=r"'9\.9' is not in the study; .* 1\.2\.3, 1\.2\.4$"):
        discover(tmp_path, series_uid="9.9")
    with pytest.raises(ConfigError, match="localizer"):
        discover(tmp_path, series_uid="1.2.5")


def test_file_order_does_not_change_the_choice(tmp_path: Path) -> None:
    for folder, uids in (("x", ("1.2.1", "1.2.2")), ("y", ("1.2.2", "1.2.1"))):
        for number, uid in enumerate(uids):
            factory.write_ct_series(tmp_path / folder / str(number), series_uid=uid)
        study = discover(tmp_path / folder).studies[0]
        assert study.slices[0].series_instance_uid == "1.2.1"


def test_one_study_per_patient_and_hash_hides_the_id(tmp_path: Path) -> None:
    for name in ("A1", " a1 ", "B2"):
        factory.write_ct_series(
            tmp_path / name.strip(), patient_id=name, study_uid=factory.make_uid(name), n_slices=1
        )
    factory.write_ct_series(tmp_path / "none", patient_id="", n_slices=1)
    hashes = [study.patient_hash for study in discover(tmp_path).studies]
    assert len(hashes) == 4
    assert len(set(hashes)) == 3  # "A1" and " a1 " are one patient
    assert None in hashes
    assert patient_hash("A1") in hashes
    assert all(value is None or len(value) == 64 for value in hashes)


def test_two_patients_under_one_study_uid_are_kept_apart(tmp_path: Path) -> None:
    factory.write_ct_series(tmp_path / "1", patient_id="P1", study_uid="1.2.3", series_uid="1.1")
    factory.write_ct_series(tmp_path / "2", patient_id="P2", study_uid="1.2.3", series_uid="1.2")
    studies = discover(tmp_path).studies
    assert len(studies) == 2
    assert studies[0].patient_hash != studies[1].patient_hash


def test_duplicates_and_mixed_geometry(tmp_path: Path) -> None:
    factory.write_ct_series(tmp_path / "a", n_slices=3)
    factory.write_ct_series(tmp_path / "same-uid", n_slices=1)
    factory.write_ct_series(
        tmp_path / "same-place",
        n_slices=1,
        image_type=("DERIVED", "PRIMARY", "AXIAL"),
        edit=lambda ds, number: setattr(ds, "SOPInstanceUID", "1.1"),
    )
    factory.write_ct_series(
        tmp_path / "other-fov",
        n_slices=2,
        pixel_spacing_mm=(0.9, 0.9),
        start_mm=100,
        edit=lambda ds, number: setattr(ds, "SOPInstanceUID", f"1.2.{number}"),
    )
    result = discover(tmp_path)
    assert len(result.studies[0].slices) == 3
    assert skip_reasons(result) == {
        "same-uid/slice-001.dcm": "duplicate-slice",
        "same-place/slice-001.dcm": "duplicate-slice",
        "other-fov/slice-001.dcm": "mixed-geometry",
        "other-fov/slice-002.dcm": "mixed-geometry",
    }


def test_same_sop_uid_at_another_position_is_a_duplicate(tmp_path: Path) -> None:
    factory.write_ct_series(
        tmp_path, n_slices=2, edit=lambda ds, number: setattr(ds, "SOPInstanceUID", "1.2.3")
    )
    result = discover(tmp_path)
    assert len(result.studies[0].slices) == 1
    assert skip_reasons(result) == {"slice-002.dcm": "duplicate-slice"}


def test_missing_positions(tmp_path: Path) -> None:
    def locate(ds: Dataset, number: int) -> None:
        del ds.ImagePositionPatient
        ds.SliceLocation = 50.0 - 10 * number

    def count(ds: Dataset, number: int) -> None:
        del ds.ImagePositionPatient
        ds.InstanceNumber = 10 - number
        ds.SliceThickness = 5.0

    factory.write_ct_series(tmp_path / "location", edit=locate)
    factory.write_ct_series(tmp_path / "number", n_slices=4, edit=count)
    factory.write_ct_series(
        tmp_path / "one-lost",
        n_slices=4,
        edit=lambda ds, number: number == 1 and delattr(ds, "ImagePositionPatient"),
    )
    by_location = discover(tmp_path / "location").studies[0].slices
    assert [s.position_mm for s in by_location] == [30.0, 40.0, 50.0]
    by_number = discover(tmp_path / "number").studies[0]
    assert [s.position_mm for s in by_number.slices] == [None, None]
    assert [s.source for s in by_number.slices] == ["slice-004.dcm", "slice-002.dcm"]
    assert skip_reasons(discover(tmp_path / "one-lost")) == {"slice-002.dcm": "no-position"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4000), min_size=1, max_size=40, unique=True), st.integers(0, 300))
def test_sampling_is_greedy_and_never_closer(tmp_path_factory, tenths, every) -> None:
    from ildsdk.dicom.geometry import Placed, sample

    class FakeFacts:
        spacing_between_mm = slice_thickness_mm = None

    class FakeCandidate:
        facts = FakeFacts()

    positions = sorted(value / 10 for value in tenths)
    placed = [Placed(FakeCandidate(), position) for position in positions]  # type: ignore[arg-type]
    taken, left = sample(placed, every / 10)
    found = [entry.position_mm for entry in taken]
    assert found[0] == positions[0]
    assert len(taken) + len(left) == len(placed)
    assert all(b - a >= every / 10 - 0.1001 for a, b in itertools.pairwise(found))
    # No left-out slice would have fitted after its predecessor.
    for position in set(positions) - set(found):
        last = max(value for value in found if value < position)
        assert position - last < every / 10


def test_sampling_tolerates_rounded_positions(tmp_path: Path) -> None:
    factory.write_ct_series(tmp_path, n_slices=17, spacing_mm=1.249)
    assert len(discover(tmp_path).studies[0].slices) == 3  # 0, 9.99, 19.98
    assert len(discover(tmp_path, every_mm=0).studies[0].slices) == 17


def test_zip_gives_the_same_slices_as_the_folder(tmp_path: Path) -> None:
    paths = factory.write_ct_series(tmp_path / "study", n_slices=4)
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in paths:
            file.write(path, f"../../{path.name}")
    from_zip, from_folder = discover(archive), discover(tmp_path / "study")
    assert [s.position_mm for s in from_zip.studies[0].slices] == [
        s.position_mm for s in from_folder.studies[0].slices
    ]
    assert not list(tmp_path.parent.glob("slice-*.dcm"))


def test_missing_path_and_bad_distance(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        discover(tmp_path / "Secret^Name")
    assert "Secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="every_mm"):
        discover(tmp_path, every_mm=-1)


def test_enhanced_multi_frame(tmp_path: Path) -> None:
    factory.write_enhanced_ct(tmp_path / "multi.dcm", n_frames=5, spacing_mm=5.0)
    study = discover(tmp_path).studies[0]
    assert [(s.frame, s.position_mm) for s in study.slices] == [(5, 0.0), (3, 10.0), (1, 20.0)]
    assert study.slices[0].source == "multi.dcm#5"
    assert [item.source for item in study.skipped] == ["multi.dcm#2", "multi.dcm#4"]
    assert study.series[0].kernel == "B70f"


def test_groups_that_do_not_match_the_frames(tmp_path: Path) -> None:
    factory.write_enhanced_ct(
        tmp_path / "multi.dcm", edit=lambda ds: setattr(ds, "NumberOfFrames", 9)
    )
    assert skip_reasons(discover(tmp_path)) == {"multi.dcm": "bad-image-description"}


@pytest.mark.parametrize(
    ("kernel", "is_lung"),
    [
        ("B70f", True),
        ("B50f", True),
        ("B40f", False),
        ("Br59d\\3", True),
        ("Br40d\\3", False),
        ("Bl57", True),
        ("I70f\\2", True),
        ("LUNG", True),
        ("BONEPLUS", True),
        ("CHST", True),
        ("STANDARD", False),
        ("L", True),
        ("YC", True),
        ("B", False),
        ("FC51", True),
        ("FC86", True),
        ("FC17", False),
        ("", False),
        (None, False),
    ],
)
def test_kernel_names(kernel: str | None, is_lung: bool) -> None:
    assert is_lung_kernel(kernel) is is_lung


def test_normal_points_to_the_head() -> None:
    assert normal_of((1, 0, 0, 0, -1, 0)) == pytest.approx((0, 0, 1))
    assert normal_of((-1, 0, 0, 0, -1, 0)) == pytest.approx((0, 0, 1))
