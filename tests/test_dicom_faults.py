"""Damaged, hostile and odd input ends in a result, a skip or a typed error. Never a traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from ildsdk.dicom import discover, elements, read_slice, source
from ildsdk.errors import IldError, InputError
from tests import dicom_factory as factory


def run_all(path: Path) -> list[str]:
    """Discover and read; names of what came out. Anything but an IldError fails the test."""
    outcomes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = discover(path, every_mm=0)
        outcomes.extend(item.reason for item in result.skipped)
        for study in result.studies:
            outcomes.extend(item.reason for item in study.skipped)
            for header in study.slices:
                try:
                    pixels_hu = read_slice(header).pixels_hu
                    assert np.isfinite(pixels_hu).all()
                    outcomes.append("read")
                except IldError as error:
                    outcomes.append(type(error).__name__)
    return outcomes


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", ImplicitVRLittleEndian])
def test_truncated_anywhere(tmp_path: Path, syntax: str) -> None:
    ds = factory.ct_dataset(transfer_syntax=syntax)
    data = factory.save(ds, tmp_path / "whole").read_bytes()
    folder = tmp_path / "cut"
    folder.mkdir()
    end = data.index(b"\xe0\x7f\x10\x00") + 200
    for length in range(0, end, 7):
        (folder / f"{length:05d}").write_bytes(data[:length])
    outcomes = run_all(folder)
    assert "read" not in outcomes
    assert len(outcomes) == len(list(folder.iterdir()))


@pytest.mark.parametrize("kind", ["single", "multi", "compressed"])
def test_random_bytes_flipped(tmp_path: Path, kind: str) -> None:
    if kind == "multi":
        data = factory.write_enhanced_ct(tmp_path / "whole", n_frames=2, size=64).read_bytes()
    else:
        ds = factory.ct_dataset(factory.chest_hu(64))
        if kind == "compressed":
            ds.compress("1.2.840.10008.1.2.5")
        data = factory.save(ds, tmp_path / "whole").read_bytes()
    folder = tmp_path / "flipped"
    folder.mkdir()
    random = np.random.default_rng(7)
    header_end = data.index(b"\xe0\x7f\x10\x00") + 100
    for number in range(150):
        damaged = bytearray(data)
        for place in random.integers(0, header_end, 3):
            damaged[place] = random.integers(0, 256)
        (folder / str(number)).write_bytes(damaged)
    for path in sorted(folder.iterdir()):
        assert run_all(path)
    run_all(folder)


def test_hostile_headers(tmp_path: Path) -> None:
    prefix = b"\0" * 128 + b"DICM"
    explicit = prefix + b"\x02\0\x10\0UI\x14\0" + b"1.2.840.10008.1.2.1\0"
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested = (b"\x08\0\x15\x11SQ\0\0\xff\xff\xff\xff" + item) * 5000
    cases = {
        "prefix only": prefix,
        "zeros": prefix + b"\0" * 100_000,
        "huge length": explicit + b"\x10\0\x10\0PN\xff\xff" + b"A" * 20,
        "huge wanted": explicit + b"\x10\0\x10\0UN\0\0\xff\xff\xff\x7f" + b"A" * 20,
        "deep": explicit + nested,
        "random": explicit + np.random.default_rng(1).bytes(50_000),
    }
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        result = discover(path)
        assert result.studies == ()
        assert result.skipped[0].reason in ("unreadable", "not-ct"), name


def test_values_out_of_range_do_not_overflow(tmp_path: Path) -> None:
    def edit(ds, number: int) -> None:
        keyword, value = [
            ("RescaleSlope", "1e300"),
            ("RescaleIntercept", "9e99"),
            ("SliceThickness", "1e400"),
            ("ImagePositionPatient", ["1e308", "1e308", "1e308"]),
            ("InstanceNumber", "999999999999"),
        ][number]
        ds.add_new(keyword, {"InstanceNumber": "IS"}.get(keyword, "DS"), value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        factory.write_ct_series(tmp_path, n_slices=5, edit=edit)
    assert sorted(run_all(tmp_path)) == ["no-position", "no-rescale", "no-rescale", "read", "read"]


def test_deflate_bomb_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(elements, "MAX_INFLATED_BYTES", 1 << 20)
    ds = factory.ct_dataset(transfer_syntax=DeflatedExplicitVRLittleEndian)
    data = factory.save(ds, tmp_path / "one").read_bytes()
    start = elements.dataset_offset(io.BytesIO(data), len(data))
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = engine.compress(b"\0" * (4 << 20)) + engine.flush()
    (tmp_path / "one").write_bytes(data[:start] + bomb)
    (item,) = discover(tmp_path).skipped
    assert item.reason == "unreadable"
    assert "exceeds" in item.detail


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def test_zip_limits(tmp_path: Path, monkeypatch) -> None:
    bomb = zipped(tmp_path / "bomb.zip", {"bomb": b"\0" * (16 << 20), "ok.txt": b"x"})
    reasons = {item.source: item.reason for item in discover(bomb).skipped}
    assert reasons == {"bomb": "archive-limit", "ok.txt": "not-dicom"}
    monkeypatch.setattr(source, "MAX_MEMBER_BYTES", 1000)
    assert discover(bomb).skipped[0].reason == "archive-limit"
    monkeypatch.setattr(source, "MAX_ARCHIVE_MEMBERS", 1)
    with pytest.raises(InputError, match="2 members"):
        discover(bomb)
    monkeypatch.setattr(source, "MAX_ARCHIVE_MEMBERS", 9)
    monkeypatch.setattr(source, "MAX_ARCHIVE_BYTES", 1 << 20)
    with pytest.raises(InputError, match="bytes inflated"):
        discover(bomb)


def test_damaged_zip(tmp_path: Path) -> None:
    (path,) = factory.write_ct_series(tmp_path / "s", n_slices=1)
    data = zipped(tmp_path / "good.zip", {"one": path.read_bytes()}).read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(data[:-50])
    with pytest.raises(InputError, match="damaged") as caught:
        discover(cut)
    assert str(tmp_path) not in str(caught.value)
    middle = tmp_path / "middle.zip"
    spoiled = bytearray(data)
    spoiled[len(data) // 2 : len(data) // 2 + 400] = b"\x55" * 400
    middle.write_bytes(spoiled)
    assert run_all(middle)[0] in ("unreadable", "InputError", "DecodeError")


def test_links_pipes_and_closed_files(tmp_path: Path) -> None:
    factory.write_ct_series(tmp_path, n_slices=1)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    result = discover(tmp_path)
    assert {item.source: item.reason for item in result.skipped} == {
        "pipe": "unreadable",
        "dangling": "unreadable",
    }
    assert len(result.studies[0].slices) == 1


def test_import_is_light_and_leaves_pydicom_alone(repo: Path) -> None:
    code = (
        "import sys, ildsdk.dicom as d\n"
        "assert 'pydicom' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert callable(d.discover) and callable(d.read_slice)\n"
        "assert 'pydicom' not in sys.modules, 'headers need no pydicom'\n"
        "import ildsdk.dicom.discovery\n"
        "assert callable(d.discover)\n"
        "assert not set(d.__all__) - set(dir(d))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repo, check=True, timeout=60)


def test_a_picture_is_told_where_its_pixels_may_go(tmp_path: Path) -> None:
    (tmp_path / "slice.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(600))
    (tmp_path / "slice.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(600))
    details = [item.detail for item in discover(tmp_path).skipped]
    assert len(details) == 2
    assert all("Retriever.embed_slice" in detail for detail in details)
