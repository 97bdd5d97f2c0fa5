"""From stored values to Hounsfield units, and clean failures."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from ildsdk.dicom import codecs, codestream, discover, pixels, read_slice
from ildsdk.dicom.study import PixelLayout
from ildsdk.errors import DecodeError, InputError, SliceUnusableError
from tests import dicom_factory as factory

COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)


def only_header(path: Path):
    (study,) = discover(path).studies
    (header,) = study.slices
    return header


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_native_syntaxes(tmp_path: Path, syntax: str, is_signed: bool) -> None:
    picture = factory.chest_hu(seed=5)
    intercept = 0.0 if is_signed else -1024.0
    ds = factory.ct_dataset(
        picture, transfer_syntax=syntax, is_signed=is_signed, intercept=intercept
    )
    result = read_slice(only_header(factory.save(ds, tmp_path / "one.dcm")))
    assert result.pixels_hu.dtype == np.float32
    assert result.pixels_hu.flags.c_contiguous
    np.testing.assert_array_equal(result.pixels_hu, picture)
    assert result.pixel_spacing_mm == (0.7, 0.7)
    assert result.source == "one.dcm"


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_compressed_syntaxes(tmp_path: Path, syntax: str) -> None:
    if not get_encoder(syntax).is_available:
        pytest.skip("no encoder installed to make the file; real data covers decoding")
    picture = factory.chest_hu(seed=6)
    ds = factory.ct_dataset(picture)
    ds.compress(syntax)
    result = read_slice(only_header(factory.save(ds, tmp_path / "one.dcm")))
    np.testing.assert_array_equal(result.pixels_hu, picture)


@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_frames_of_enhanced_ct_have_their_own_rescale(
    tmp_path: Path, is_legacy: bool, is_compressed: bool
) -> None:
    path = factory.write_enhanced_ct(
        tmp_path / "multi.dcm",
        n_frames=3,
        is_legacy=is_legacy,
        intercepts=(-1024.0, -2000.0, -1100.0),
        edit=(lambda ds: ds.compress(RLELossless)) if is_compressed else None,
    )
    for header in discover(path).studies[0].slices:
        picture = factory.chest_hu(96, seed=(header.frame or 0) - 1)
        np.testing.assert_array_equal(read_slice(header).pixels_hu, picture)


def test_same_pixels_from_a_zip(tmp_path: Path) -> None:
    (path,) = factory.write_ct_series(tmp_path / "s", n_slices=1)
    archive = tmp_path / "s.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(path, "deep/one")
    np.testing.assert_array_equal(
        read_slice(only_header(archive)).pixels_hu, read_slice(only_header(path)).pixels_hu
    )


def padded(value_hu: int, *, declared: int | None, limit: int | None = None, **facts):
    """A chest inside a circle of padding; returns the data set and the circle's outside."""
    picture = factory.chest_hu().astype(np.int32)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    outside = x**2 + y**2 > 1
    picture[outside] = value_hu
    ds = factory.ct_dataset(picture, **facts)
    if declared is not None:
        ds.add_new(0x00280120, "SS" if declared < 0 else "US", declared)
    if limit is not None:
        ds.add_new(0x00280121, "SS" if limit < 0 else "US", limit)
    return ds, outside


@pytest.mark.parametrize(
    ("value_hu", "declared", "limit", "is_signed", "intercept"),
    [
        (-3024, -2000, None, True, -1024.0),
        (-3024, 63536, None, True, -1024.0),  # the same bits declared unsigned
        (62512, 63536, None, False, -1024.0),  # the same bits stored unsigned
        (-1024, 0, None, False, -1024.0),
        (-2048, None, None, True, 0.0),  # not declared: clipped
        (0, 0, None, True, 0.0),  # 0 HU, believed because it fills the corners
        (-1995, -2000, -1990, True, 0.0),
    ],
)
def test_padding_becomes_air(
    tmp_path: Path,
    value_hu: int,
    declared: int | None,
    limit: int | None,
    is_signed: bool,
    intercept: float,
) -> None:
    ds, outside = padded(
        value_hu, declared=declared, limit=limit, is_signed=is_signed, intercept=intercept
    )
    pixels_hu = read_slice(only_header(factory.save(ds, tmp_path / "one"))).pixels_hu
    assert pixels_hu.shape == (128, 128)
    assert (pixels_hu[outside] == -1024).all()
    assert pixels_hu.min() == -1024
    assert pixels_hu[~outside].max() > 500


def test_padding_declared_as_water_is_not_believed_inside(tmp_path: Path) -> None:
    picture = factory.chest_hu().copy()
    picture[60:64, 60:64] = 0
    ds = factory.ct_dataset(picture, is_signed=True, intercept=0.0)
    ds.add_new(0x00280120, "SS", 0)
    pixels_hu = read_slice(only_header(factory.save(ds, tmp_path / "one"))).pixels_hu
    assert (pixels_hu[60:64, 60:64] == 0).all()


def test_padding_beyond_the_stored_bits_and_overlay_bits(tmp_path: Path) -> None:
    picture = factory.chest_hu()
    ds = factory.ct_dataset(picture)
    ds.BitsStored, ds.HighBit = 12, 11
    stored = np.frombuffer(ds.PixelData, dtype="<u2").reshape(128, 128).copy()
    stored[:3] = 63536
    stored[64] |= 0x4000  # an overlay bit
    ds.PixelData = stored.tobytes()
    ds.add_new(0x00280120, "US", 63536)
    pixels_hu = read_slice(only_header(factory.save(ds, tmp_path / "one"))).pixels_hu
    assert (pixels_hu[:3] == -1024).all()
    np.testing.assert_array_equal(pixels_hu[3:], picture[3:])


def test_sign_is_extended_from_the_stored_bits(tmp_path: Path) -> None:
    picture = np.clip(factory.chest_hu(), -1024, 2047)
    ds = factory.ct_dataset(picture, is_signed=True, intercept=0.0)
    ds.BitsStored, ds.HighBit = 12, 11
    stored = np.frombuffer(ds.PixelData, dtype="<u2") & 0x0FFF  # the upper bits are not set
    ds.PixelData = stored.astype("<u2").tobytes()
    header = only_header(factory.save(ds, tmp_path / "one"))
    np.testing.assert_array_equal(read_slice(header).pixels_hu, picture)


@pytest.mark.parametrize(("frame_hu", "margin"), [(0, 0), (3000, 0), (-1024, 8)])
def test_constant_frame_is_cropped(tmp_path: Path, frame_hu: int, margin: int) -> None:
    picture = np.full((220, 260), frame_hu, dtype=np.int16)
    inner = factory.chest_hu(128, seed=1)
    picture[40:168, 60:188] = inner
    ds = factory.ct_dataset(picture)
    pixels_hu = read_slice(only_header(factory.save(ds, tmp_path / "one"))).pixels_hu
    assert pixels_hu.shape == (128 + 2 * margin, 128 + 2 * margin)
    window = slice(margin, 128 + margin)
    np.testing.assert_array_equal(pixels_hu[window, window], inner)


def test_narrow_border_is_left_alone(tmp_path: Path) -> None:
    picture = factory.chest_hu()
    picture[0], picture[-1], picture[:, 0], picture[:, -1] = 0, 0, 0, 0
    ds = factory.ct_dataset(picture)
    assert read_slice(only_header(factory.save(ds, tmp_path / "one"))).pixels_hu.shape == (128, 128)


@pytest.mark.parametrize(
    ("picture", "reason", "detail"),
    [
        (np.full((128, 128), 17), "constant-image", "17 HU"),
        (np.pad(factory.chest_hu(32), 80, constant_values=0), "constant-image", "32 x 32"),
        (np.clip(factory.chest_hu(), 0, 255), "hu-implausible", "from 0 to 255 HU"),
        (np.clip(factory.chest_hu(), -1024, -700), "hu-implausible", "0.0 % above"),
        (factory.chest_hu().astype(int) * 40, "hu-implausible", "beyond 16000 HU"),
    ],
)
def test_values_that_are_no_hounsfield_units(
    tmp_path: Path, picture: np.ndarray, reason: str, detail: str
) -> None:
    ds = factory.ct_dataset(picture, intercept=-16000.0 if picture.min() < -1100 else -1024.0)
    if picture.min() < -1100:
        ds = factory.ct_dataset(picture / 40, intercept=-40960.0 / 40)
        ds.RescaleSlope, ds.RescaleIntercept = 40.0, -40960.0
    header = only_header(factory.save(ds, tmp_path / "one"))
    with pytest.raises(SliceUnusableError) as caught:
        read_slice(header)
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_most_slices_need_no_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds, _ = padded(-3024, declared=-2000, is_signed=True)
    header = only_header(factory.save(ds, tmp_path / "one"))
    monkeypatch.setattr(pixels, "_by_steps", lambda *_: pytest.fail("not taken for plain"))
    assert read_slice(header).pixels_hu.min() == -1024


@pytest.mark.parametrize(
    ("inside_hu", "reason", "detail"),
    [
        (-200, "constant-image", "from -200 to -200 HU"),  # darker than tissue, brighter than air
        (40, "constant-image", "from 40 to 40 HU"),
        (-1024, "constant-image", "-1024 HU"),
    ],
)
def test_padding_does_not_count_as_air(
    tmp_path: Path, inside_hu: int, reason: str, detail: str
) -> None:
    ds, outside = padded(-3024, declared=-2000, is_signed=True)
    picture = np.where(outside, -3024, inside_hu)
    ds.PixelData = (picture + 1024).astype("<i2").tobytes()
    with pytest.raises(SliceUnusableError) as caught:
        read_slice(only_header(factory.save(ds, tmp_path / "one")))
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_truncated_pixels(tmp_path: Path) -> None:
    (path,) = factory.write_ct_series(tmp_path, n_slices=1)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DecodeError, match="truncated"):
        read_slice(only_header(tmp_path))


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("syntax", COMPRESSED)
def test_truncated_compressed_pixels(tmp_path: Path, syntax: str, cut: float) -> None:
    if not get_encoder(syntax).is_available:
        pytest.skip("no encoder installed to make the file")
    ds = factory.ct_dataset()
    ds.compress(syntax)
    path = factory.save(ds, tmp_path / "one")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with pytest.raises(DecodeError):
        read_slice(only_header(tmp_path))


def test_codestream_of_another_size(tmp_path: Path) -> None:
    ds = factory.ct_dataset()
    ds.compress(JPEGLSLossless)
    ds.Rows = 256
    header = only_header(factory.save(ds, tmp_path / "one"))
    with pytest.raises(DecodeError, match=r"128 x 128 .* header says 256 x 128"):
        read_slice(header)


def test_codestream_cut_before_its_end_marker(tmp_path: Path) -> None:
    ds = factory.ct_dataset()
    ds.compress(JPEGLSLossless)
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([frame[: len(frame) // 2]])
    header = only_header(factory.save(ds, tmp_path / "one"))
    with pytest.raises(DecodeError, match="no end marker"):
        read_slice(header)


def test_only_needed_jpeg_segments_reach_the_decoder() -> None:
    head = b"\xff\xc3\x00\x0b\x10\x00\x80\x00\x80\x01\x01\x11\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00" + b"data\xff\xd9"
    jfif = b"\xff\xe0\x00\x10JFIF\x00\xbc\x01\x00\x00\x01\x00\x01\x00\x00"
    layout = only_layout()
    frame = b"\xff\xd8" + jfif + head + scan
    uid = "1.2.840.10008.1.2.4.70"
    assert codestream.checked(frame, layout, uid, "x") == b"\xff\xd8" + head + scan
    for broken, message in [
        (frame.replace(b"\xff\xc3", b"\xff\xc0"), "does not belong"),
        (frame.replace(b"\x00\x80\x00\x80\x01", b"\x00\x80\x00\x80\x03"), "of 3 components"),
        (frame.replace(b"\x0b\x10", b"\x0b\x20"), "32 bits"),
        (b"\xff\xd8" + scan, "does not belong"),
        (frame[2:], "no intact codestream"),
    ]:
        with pytest.raises(DecodeError, match=message):
            codestream.checked(broken, layout, uid, "x")


def only_layout() -> PixelLayout:
    return PixelLayout(
        n_rows=128,
        n_columns=128,
        value_offset=0,
        value_length=0xFFFFFFFF,
        n_frames=1,
        frame_index=0,
        bits_allocated=16,
        bits_stored=16,
        high_bit=15,
        is_signed=False,
        is_little_endian=True,
        photometric_interpretation="MONOCHROME2",
        slope=1.0,
        intercept=0.0,
        padding=None,
    )


def test_file_changed_or_gone_after_discovery(tmp_path: Path) -> None:
    (path,) = factory.write_ct_series(tmp_path, n_slices=1, file_name="secretname.dcm")
    header = only_header(tmp_path)
    factory.write_ct_series(tmp_path, n_slices=1, size=96, file_name="secretname.dcm")
    with pytest.raises(InputError, match="changed"):
        read_slice(header)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_slice(header)
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.100", "1.2.3.4", "1.2.840.113619.5.2"]
)
def test_impossible_syntax_is_named(tmp_path: Path, syntax: str) -> None:
    ds = factory.ct_dataset()
    ds.compress(RLELossless)
    ds.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "one"
    ds.save_as(path, implicit_vr=False, little_endian=True)
    with pytest.raises(DecodeError) as caught:
        read_slice(only_header(path))
    assert syntax in str(caught.value)
    assert "export the study again" in str(caught.value)


def test_missing_decoder_names_the_package(tmp_path: Path, monkeypatch) -> None:
    ds = factory.ct_dataset()
    ds.compress(JPEGLSLossless)
    header = only_header(factory.save(ds, tmp_path / "one"))
    decoder = get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(DecodeError, match="pip install pyjpegls"):
        read_slice(header)


def test_high_throughput_jpeg_2000_is_offered() -> None:
    assert "pylibjpeg" in codecs.REMEDIES[HTJ2KLossless]
    status = codecs.decoder_status()
    assert len(status) == len(codecs.REMEDIES)
    assert any(name.startswith(HTJ2KLossless) for name in status)


def test_concurrent_reads_equal_serial_ones(tmp_path: Path) -> None:
    factory.write_ct_series(
        tmp_path, n_slices=8, edit=lambda ds, number: ds.compress(JPEGLSLossless)
    )
    headers = discover(tmp_path).studies[0].slices
    serial = [read_slice(header).pixels_hu for header in headers]
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        discover(tmp_path)
        found[number] = read_slice(headers[number]).pixels_hu

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(serial):
        np.testing.assert_array_equal(found[number], expected)
