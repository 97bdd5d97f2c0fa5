"""A patient's name, id and birth date leave the intake nowhere; paths neither."""

from __future__ import annotations

import dataclasses
import json
import logging
import zipfile
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from ildsdk.dicom import discover, read_slice
from ildsdk.dicom.redact import Redactor, identifying_tokens, normalize
from ildsdk.errors import IldError
from tests import dicom_factory as factory

NAME, PATIENT_ID, BIRTH = "Müllerovski^Anna Beata", "ZX-77-4711", "19531127"
PLANTED = ("mullerovski", "müllerovski", "anna", "beata", "4711", "19531127", "27111953")


def everything_said(path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """All text a discovery and reading gives away: records, reprs, errors, logs."""
    caplog.clear()  # pydicom's complaints about the planted values, made while writing them
    with caplog.at_level(logging.DEBUG):
        result = discover(path)
        said = [repr(result), str(result)]
        for study in result.studies:
            said.append(json.dumps([dataclasses.asdict(item) for item in study.series]))
            said.append(json.dumps([dataclasses.asdict(item) for item in study.skipped]))
            for header in study.slices:
                try:
                    said.append(read_slice(header).source)
                except IldError as error:
                    said.extend([str(error), repr(error.__cause__)])
        said.append(json.dumps([dataclasses.asdict(item) for item in result.skipped]))
    return "\n".join([*said, caplog.text])


def assert_clean(text: str, *more: str) -> None:
    lowered = text.lower()
    found = [
        lowered[max(0, lowered.index(t) - 60) :][:140] for t in (*PLANTED, *more) if t in lowered
    ]
    assert not found, found


def plant(folder: Path) -> None:
    """Files named after the patient: good, damaged, not DICOM, refused, truncated."""
    named = {"patient_name": NAME, "patient_id": PATIENT_ID, "birth_date": BIRTH}

    def charset(ds: Dataset, number: int) -> None:
        ds.SpecificCharacterSet = "ISO_IR 192"

    factory.write_ct_series(
        folder / "MULLEROVSKI_Anna" / "1953-11-27",
        file_name="zx774711_{number}.dcm",
        edit=charset,
        **named,
    )
    (broken,) = factory.write_ct_series(
        folder / "x", n_slices=1, file_name="Müllerovski broken", edit=charset, **named
    )
    broken.write_bytes(broken.read_bytes()[:600])
    (folder / "x" / "anna.txt").write_text("Anna was here")
    (folder / "x" / "27.11.1953").write_bytes(b"\0" * 500)

    def hostile(ds: Dataset, number: int) -> None:
        charset(ds, number)
        ds.ConvolutionKernel = "ANNA"
        ds.SeriesDescription = NAME
        ds.ImageType = ["ORIGINAL", "MULLEROVSKI", "LOCALIZER"]
        ds.SeriesInstanceUID = PATIENT_ID

    factory.write_ct_series(folder / "y", n_slices=1, edit=hostile, **named)

    def other_modality(ds: Dataset, number: int) -> None:
        ds.Modality = "BEATA"

    factory.write_ct_series(folder / "z", n_slices=1, edit=other_modality, **named)
    (short,) = factory.write_ct_series(
        folder / "t", n_slices=1, start_mm=300, file_name="4711", edit=charset, **named
    )
    short.write_bytes(short.read_bytes()[:-900])


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_planted_patient_appears_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "Anna Mullerovski"
    plant(folder)
    text = everything_said(folder, caplog)
    assert_clean(text, str(tmp_path).lower())
    assert text.count("redacted-") > 5


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_planted_patient_appears_nowhere_from_a_zip(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant(tmp_path / "in")
    archive = tmp_path / "Anna.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((tmp_path / "in").rglob("*")):
            file.write(path, path.relative_to(tmp_path / "in"))
    assert_clean(everything_said(archive, caplog), str(tmp_path).lower())


def test_single_file_named_after_the_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = factory.write_ct_series(
        tmp_path, n_slices=1, patient_name=NAME, patient_id=PATIENT_ID, file_name="beata.dcm"
    )
    assert discover(path).studies[0].slices[0].source == "redacted-1.dcm"
    assert_clean(everything_said(path, caplog), str(tmp_path).lower())


def test_damaged_file_alone_still_tells_its_patient(tmp_path: Path) -> None:
    (path,) = factory.write_ct_series(
        tmp_path, n_slices=1, patient_name=NAME.replace("ü", "u"), file_name="anna-beata.dcm"
    )
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x28\x00\x30\x00") + 10])
    (item,) = discover(tmp_path).skipped
    assert (item.source, item.reason) == ("redacted-1.dcm", "unreadable")


def test_labels_stay_apart_and_do_not_depend_on_anything_secret() -> None:
    paths = [("anna", "1.dcm"), ("anna", "2.dcm"), ("zoe-anna", "1.dcm"), ("other", "anna.dcm")]
    redactor = Redactor({"anna"}, paths)
    labels = [redactor.label(path) for path in paths]
    assert labels == [
        "redacted-1/1.dcm",
        "redacted-1/2.dcm",
        "redacted-3/1.dcm",
        "other/redacted-2.dcm",
    ]
    # The name's letters must not be recoverable: another name gives the same labels.
    other = Redactor({"olga"}, [tuple(p.replace("anna", "olga") for p in path) for path in paths])
    assert other.label(("olga", "1.dcm")) == labels[0]


def test_date_spread_over_folders() -> None:
    tokens = identifying_tokens({0x00100030: b"19531127"})
    path = ("1953", "11", "27", "a.dcm")
    label = Redactor(tokens, [path]).label(path)
    assert "1953" not in label
    assert "27" not in label


@pytest.mark.parametrize(
    ("raw", "folder"),
    [
        ("Wang^XiaoDong=王^小东".encode("gb18030"), "王小东 CT"),
        ("Wang^XiaoDong=王^小东".encode(), "王小东 CT"),
        ("山田^太郎".encode("shift_jis"), "山田"),
        ("Müller^Jörg".encode("latin-1"), "Mueller Muller"),
    ],
)
def test_names_in_other_scripts(raw: bytes, folder: str) -> None:
    tokens = identifying_tokens({0x00100010: raw})
    assert Redactor(tokens, [(folder,)]).label((folder,)) == "redacted-1"


def test_short_tokens_and_control_characters() -> None:
    tokens = identifying_tokens({0x00100010: b"Li^An", 0x00100020: b"7"})
    assert tokens == {"lian"}
    assert Redactor(tokens, [("a7",)]).label(("a7",)) == "a7"
    path = ("\x1b[31mred\udcff\n",)
    label = Redactor((), [path]).label(path)
    assert label.isprintable()
    label.encode("utf-8")


def test_normalize() -> None:
    assert normalize("Å-b_C 1") == "abc1"
