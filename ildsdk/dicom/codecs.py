"""Stored values of one frame: native bytes read directly, compressed ones through pydicom.

Decoders come from permissively licensed packages only: python-gdcm (BSD) for JPEG, JPEG-LS and
JPEG 2000, pyjpegls (MIT), pylibjpeg with pylibjpeg-openjpeg (MIT), pydicom itself for RLE.
pylibjpeg-libjpeg is GPL and never needed. Before a decoder runs, :mod:`ildsdk.dicom.codestream`
checks what it will be given.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ildsdk.dicom import codestream, elements
from ildsdk.dicom.identity import valid_uid
from ildsdk.dicom.study import PixelLayout, SliceHeader
from ildsdk.errors import BrokenDecoderError, DecodeError

if TYPE_CHECKING:
    from ildsdk.dicom.decoders import Pydicom

# int32, or int64 where 32 bits are allocated.
StoredValues: TypeAlias = "npt.NDArray[np.int32] | npt.NDArray[np.int64]"

NATIVE: Final = frozenset(
    {
        elements.IMPLICIT_LITTLE,
        elements.EXPLICIT_LITTLE,
        elements.EXPLICIT_BIG,
        elements.DEFLATED,
    }
)
LOSSY: Final = frozenset(
    {f"1.2.840.10008.1.2.4.{suffix}" for suffix in (50, 51, 53, 55, 81, 91, 93, 203, 112)}
)
_GDCM: Final = "python-gdcm"
_OPENJPEG: Final = "pylibjpeg pylibjpeg-openjpeg"
# Transfer syntax -> packages whose installation makes it decodable.
REMEDIES: Final = {
    "1.2.840.10008.1.2.4.50": _GDCM,
    "1.2.840.10008.1.2.4.51": _GDCM,
    "1.2.840.10008.1.2.4.57": _GDCM,
    "1.2.840.10008.1.2.4.70": _GDCM,
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": _OPENJPEG,
    "1.2.840.10008.1.2.4.91": _OPENJPEG,
    "1.2.840.10008.1.2.4.201": _OPENJPEG,
    "1.2.840.10008.1.2.4.202": _OPENJPEG,
    "1.2.840.10008.1.2.4.203": _OPENJPEG,
    "1.2.840.10008.1.2.5": "pydicom",
}
_NAMES: Final = {
    "1.2.840.10008.1.2.4.52": "JPEG Extended (Process 3 and 5)",
    "1.2.840.10008.1.2.4.53": "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)",
    "1.2.840.10008.1.2.4.55": "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)",
    elements.GE_PRIVATE_BIG_PIXELS: "GE private, implicit VR little endian with big endian pixels",
}
# GDCM ends the process on some damaged input (an exception nobody can catch), the others do not.
_PREFERRED: Final = {
    "1.2.840.10008.1.2.4.50": ("pillow",),
    "1.2.840.10008.1.2.4.80": ("pyjpegls",),
    "1.2.840.10008.1.2.4.81": ("pyjpegls",),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg",),
    "1.2.840.10008.1.2.4.91": ("pylibjpeg",),
}
JPEG_EXTENDED: Final = "1.2.840.10008.1.2.4.51"
_MAX_COMPRESSED_BYTES: Final = 1 << 30


def is_decodable(transfer_syntax_uid: str) -> bool:
    """Whether a permissively licensed decoder exists (not: is installed)."""
    return transfer_syntax_uid in NATIVE or transfer_syntax_uid in REMEDIES


def load_decoders(headers: Iterable[SliceHeader]) -> None:
    """Import what decodes the slices, before threads do: kernels, pydicom where it is needed."""
    from ildsdk.dicom import kernels  # noqa: F401

    if any(header.transfer_syntax_uid not in NATIVE for header in headers):
        from ildsdk.dicom import decoders  # noqa: F401


def decoder_status() -> dict[str, tuple[str, ...]]:
    """Installed decoding plugins by transfer syntax (UID and name); empty where none is."""
    from ildsdk.dicom.decoders import PYDICOM

    return {
        syntax_name(uid): () if PYDICOM is None else _plugins(PYDICOM.get_decoder(uid), uid)
        for uid in REMEDIES
    }


def broken_packages() -> tuple[str, ...]:
    """Packages for decoding that are installed and cannot be imported."""
    from ildsdk.dicom.decoders import BROKEN_PACKAGES

    return BROKEN_PACKAGES


def _plugins(decoder: Any, uid: str) -> tuple[str, ...]:
    """Available plugins, ours first."""
    names: tuple[str, ...] = tuple(decoder.available_plugins)
    return tuple(sorted(names, key=lambda name: name not in _PREFERRED.get(uid, ())))


def syntax_name(transfer_syntax_uid: str) -> str:
    """UID with its name, for messages."""
    from ildsdk.dicom.decoders import PYDICOM

    if valid_uid(transfer_syntax_uid) is None:
        # Whatever stands there instead might name the patient.
        return "an invalid transfer syntax UID"
    if PYDICOM is None:
        return transfer_syntax_uid
    name = _NAMES.get(transfer_syntax_uid, PYDICOM.uid_class(transfer_syntax_uid).name)
    if name == transfer_syntax_uid:
        name = "unknown transfer syntax"
    return f"{transfer_syntax_uid} ({name})"


def read_stored_values(
    stream: BinaryIO, size: int, layout: PixelLayout, transfer_syntax_uid: str, source: str
) -> StoredValues:
    """Stored values of one frame as the file holds them, unused bits included.

    Parameters
    ----------
    stream : binary file
        Seekable, at the start of the object.
    size : int
        Length of the object in bytes.
    source : str
        Redacted label for messages.

    Returns
    -------
    ndarray
        int32 (int64 for 32 allocated bits) ``(n_rows, n_columns)``; signed or unsigned over
        all allocated bits, as PixelRepresentation says.

    Raises
    ------
    DecodeError
        No decoder, truncated, or damaged.
    BrokenDecoderError
        A decoder is installed and cannot be imported.
    """
    if transfer_syntax_uid in NATIVE:
        return _native(stream, size, layout, transfer_syntax_uid, source)
    if transfer_syntax_uid not in REMEDIES:
        raise DecodeError(
            f"{source}: pixels are encoded as {syntax_name(transfer_syntax_uid)}; no decoder under "
            "a permissive license exists: export the study again, for example as Explicit VR "
            "Little Endian"
        )
    return _compressed(stream, layout, transfer_syntax_uid, source)


def _native(
    stream: BinaryIO, size: int, layout: PixelLayout, uid: str, source: str
) -> StoredValues:
    if uid == elements.DEFLATED:
        stream.seek(elements.dataset_offset(stream, size))
        try:
            stream = io.BytesIO(elements.inflate(stream.read()))
        except elements.DamagedHeaderError as error:
            raise DecodeError(f"{source}: {error}") from None
    frame_bytes = layout.n_rows * layout.n_columns * layout.bits_allocated // 8
    start = layout.frame_index * frame_bytes
    if start + frame_bytes > layout.value_length:
        raise DecodeError(
            f"{source}: pixel data of {layout.value_length} bytes, "
            f"{start + frame_bytes} expected: the file is truncated or its header is wrong"
        )
    stream.seek(layout.value_offset + start)
    data = stream.read(frame_bytes)
    if len(data) < frame_bytes:
        raise DecodeError(
            f"{source}: {len(data)} of {frame_bytes} bytes of pixels found: the file is truncated"
        )
    order = "<" if layout.is_little_endian else ">"
    kind = "i" if layout.is_signed else "u"
    values = np.frombuffer(data, dtype=f"{order}{kind}{layout.bits_allocated // 8}")
    return _widened(values.reshape(layout.n_rows, layout.n_columns), layout)


def _widened(values: npt.NDArray[Any], layout: PixelLayout) -> StoredValues:
    if layout.bits_allocated == 32:
        return values.astype(np.int64)
    return values.astype(np.int32)


def _compressed(stream: BinaryIO, layout: PixelLayout, uid: str, source: str) -> StoredValues:
    from ildsdk.dicom.decoders import PYDICOM

    if PYDICOM is None:
        raise _broken(uid, source)
    frame_bytes = _frame_bytes(PYDICOM, stream, layout, uid, source)
    frame = codestream.checked(frame_bytes, layout, uid, source)
    if uid == JPEG_EXTENDED and layout.bits_stored > 8:
        return _widened(_jpeg_12_bit(frame, layout, source), layout)
    decoder = PYDICOM.get_decoder(uid)
    if not decoder.is_available:
        raise _no_decoder(uid, source)
    options: dict[str, Any] = {
        "rows": layout.n_rows,
        "columns": layout.n_columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.is_signed),
        "photometric_interpretation": layout.photometric_interpretation,
    }
    try:
        values, _ = decoder.as_array(
            io.BytesIO(PYDICOM.encapsulate([frame])),
            index=0,
            raw=True,
            decoding_plugin=_preferred_plugin(uid, decoder.available_plugins),
            **options,
        )
    except ImportError as error:
        raise _broken(uid, source, error.name) from None
    except Exception as error:
        # Decoders raise whatever they like on damaged data, and quote it: hence no text, no cause.
        raise DecodeError(
            f"{source}: the decoders for {syntax_name(uid)} failed "
            f"({', '.join(decoder.available_plugins)}: {type(error).__name__}): the pixels are "
            "damaged or use an option that is not supported"
        ) from None
    if values.shape != (layout.n_rows, layout.n_columns):
        raise DecodeError(
            f"{source}: decoded to {values.shape}, the header says "
            f"{(layout.n_rows, layout.n_columns)}"
        )
    return _widened(np.asarray(values), layout)


def _no_decoder(uid: str, source: str) -> DecodeError:
    """No decoder is installed, or the one that is cannot be imported."""
    if set(REMEDIES[uid].split()) & set(broken_packages()):
        return _broken(uid, source)
    return DecodeError(
        f"{source}: no decoder installed for {syntax_name(uid)}: "
        f"python -m pip install {REMEDIES[uid]}"
    )


def _broken(uid: str, source: str, module: str | None = None) -> BrokenDecoderError:
    """The decoders cannot be imported: the installation's fault, whatever the pixels are."""
    packages = ", ".join(broken_packages()) or module or REMEDIES[uid]
    return BrokenDecoderError(
        f"{source}: the decoders for {syntax_name(uid)} are installed but cannot be imported "
        f"({packages}), so the pixels were not looked at: "
        f"python -m pip install --force-reinstall {REMEDIES[uid]}"
    )


def _preferred_plugin(uid: str, available: tuple[str, ...]) -> str:
    """The fastest plugin that cannot abort the process; empty leaves the order to pydicom."""
    return next((name for name in _PREFERRED.get(uid, ()) if name in available), "")


def _jpeg_12_bit(frame: bytes, layout: PixelLayout, source: str) -> npt.NDArray[np.uint16]:
    """Decode 12-bit JPEG by GDCM itself: pydicom's GDCM plugin refuses it, GDCM does not."""
    try:
        import gdcm
    except Exception:
        raise _no_decoder(JPEG_EXTENDED, source) from None
    try:
        fragment = gdcm.Fragment()
        fragment.SetByteStringValue(frame)
        fragments = gdcm.SequenceOfFragments.New()
        fragments.AddFragment(fragment)
        element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        element.SetValue(fragments.__ref__())
        image = gdcm.Image()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((layout.n_columns, layout.n_rows, 1))
        image.SetDataElement(element)
        kind = gdcm.PhotometricInterpretation.GetPIType(layout.photometric_interpretation)
        image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
        image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(JPEG_EXTENDED)))
        image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
        # GDCM's binding hands bytes over as surrogate-escaped text.
        data = image.GetBuffer().encode("utf-8", "surrogateescape")
        values = np.frombuffer(data, dtype="<u2")
        return values.reshape(layout.n_rows, layout.n_columns)
    except Exception as error:
        raise DecodeError(
            f"{source}: GDCM failed on {syntax_name(JPEG_EXTENDED)} ({type(error).__name__}): "
            "the pixels are damaged"
        ) from None


def _frame_bytes(
    pydicom: Pydicom, stream: BinaryIO, layout: PixelLayout, uid: str, source: str
) -> bytes:
    if layout.value_length != elements.UNDEFINED_LENGTH:
        raise DecodeError(
            f"{source}: pixels are declared as {syntax_name(uid)} but stored with a fixed "
            f"length of {layout.value_length} bytes: the transfer syntax is wrong"
        )
    if layout.n_frames == 1:
        return _joined_fragments(stream, layout.value_offset, source)
    stream.seek(layout.value_offset)
    try:
        frame = pydicom.get_frame(
            stream,
            layout.frame_index,
            number_of_frames=layout.n_frames,
            extended_offsets=layout.extended_offsets,
        )
    except Exception as error:
        raise DecodeError(
            f"{source}: frame {layout.frame_index + 1} of {layout.n_frames} cannot be found in "
            f"the pixel data ({type(error).__name__}): damaged"
        ) from None
    return bytes(frame)


def _joined_fragments(stream: BinaryIO, offset: int, source: str) -> bytes:
    """Fragments of a single-frame object, without the basic offset table."""
    stream.seek(offset)
    fragments: list[bytes] = []
    total = 0
    while True:
        head = stream.read(8)
        if len(head) < 8:
            # The delimiter is missing: leave the judgment to the length of what came before it.
            break
        tag, length = struct.unpack("<LL", head)
        if tag == 0xE0DDFFFE:
            break
        total += length
        if tag != 0xE000FFFE or total > _MAX_COMPRESSED_BYTES:
            raise DecodeError(f"{source}: the compressed pixel data is damaged")
        fragment = stream.read(length)
        if len(fragment) < length:
            raise DecodeError(
                f"{source}: {len(fragment)} of {length} bytes of compressed pixels found: "
                "the file is truncated"
            )
        fragments.append(fragment)
    data = b"".join(fragments[1:])
    if not data:
        raise DecodeError(f"{source}: the pixel data holds no compressed frame")
    return data
