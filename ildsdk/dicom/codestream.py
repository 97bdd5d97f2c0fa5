"""Check a compressed frame before a decoder sees it (ISO 10918-1, 14495-1, 15444-1).

Decoders are native code that trusts its input: GDCM ends the whole process when a codestream is
larger than the buffer it was promised, or carries an odd JFIF version; several fill what is missing
with gray and say nothing. So a frame must have the size, the single component and the coding
process its header promises and its end marker, and of a JPEG only the segments that
decoding needs are handed on.
"""

from __future__ import annotations

import struct
from typing import Final

from ildsdk.dicom.study import PixelLayout
from ildsdk.errors import DecodeError

# Start-of-frame markers a transfer syntax may use.
_FRAME_MARKERS: Final = {
    "1.2.840.10008.1.2.4.50": (0xC0,),
    "1.2.840.10008.1.2.4.51": (0xC0, 0xC1),
    "1.2.840.10008.1.2.4.57": (0xC3,),
    "1.2.840.10008.1.2.4.70": (0xC3,),
    "1.2.840.10008.1.2.4.80": (0xF7,),
    "1.2.840.10008.1.2.4.81": (0xF7,),
}
_JPEG_2000: Final = frozenset(f"1.2.840.10008.1.2.4.{suffix}" for suffix in (90, 91, 201, 202, 203))
_START_OF_SCAN: Final = 0xDA
# DHT, DQT, DRI, and LSE of JPEG-LS.
_KEPT_SEGMENTS: Final = frozenset({0xC4, 0xDB, 0xDD, 0xF8})
# APP0-APP15 and COM: not needed for one gray component.
_DROPPED_SEGMENTS: Final = frozenset({*range(0xE0, 0xF0), 0xFE})


def checked(frame: bytes, layout: PixelLayout, transfer_syntax_uid: str, source: str) -> bytes:
    """The frame, fit for a decoder.

    Parameters
    ----------
    frame : bytes
        One frame's codestream.
    source : str
        Redacted label for messages.

    Raises
    ------
    DecodeError
        Truncated, damaged, or not what the header describes.
    """
    if transfer_syntax_uid in _JPEG_2000:
        found = _jpeg_2000_size(frame)
    elif transfer_syntax_uid in _FRAME_MARKERS:
        frame, found = _clean_jpeg(frame, _FRAME_MARKERS[transfer_syntax_uid], source)
    else:
        return frame
    if found is None:
        raise DecodeError(f"{source}: the pixel data holds no intact codestream header: damaged")
    if frame.rstrip(b"\0")[-2:] != b"\xff\xd9":
        raise DecodeError(f"{source}: the codestream has no end marker: the file is truncated")
    expected = (layout.n_rows, layout.n_columns, 1)
    if found[:3] != expected:
        raise DecodeError(
            f"{source}: the codestream holds {found[0]} x {found[1]} pixels of {found[2]} "
            f"components, the header says {expected[0]} x {expected[1]} of 1"
        )
    if found[3] > layout.bits_allocated:
        raise DecodeError(
            f"{source}: the codestream holds {found[3]} bits a pixel, the header allocates "
            f"{layout.bits_allocated}"
        )
    return frame


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, components, bits from SIZ (ISO 15444-1 A.5.1), inside a JP2 wrapper too."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(frame) < start + 43:
        return None
    width, height, left, top = struct.unpack(">4L", frame[start + 8 : start + 24])
    components, depth = struct.unpack(">HB", frame[start + 40 : start + 43])
    return height - top, width - left, components, (depth & 0x7F) + 1


def _clean_jpeg(
    frame: bytes, frame_markers: tuple[int, ...], source: str
) -> tuple[bytes, tuple[int, int, int, int] | None]:
    """Codestream without APPn and COM; rows, columns, components and bits from its frame header."""
    found: tuple[int, int, int, int] | None = None
    pieces = [b"\xff\xd8"]
    position = 2
    if frame[:2] != b"\xff\xd8":
        return frame, None
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack(">H", frame[position + 2 : position + 4])
        segment = frame[position : position + 2 + length]
        position += 2 + length
        if length < 2 or position > len(frame):
            break
        if marker in frame_markers and found is None and length == 11:
            bits, height, width, components = struct.unpack(">BHHB", segment[4:10])
            found = height, width, components, bits
        elif marker == _START_OF_SCAN and found is not None and length == 8:
            return b"".join([*pieces, segment, frame[position:]]), found
        elif marker in _DROPPED_SEGMENTS:
            continue
        elif marker not in _KEPT_SEGMENTS:
            raise DecodeError(
                f"{source}: JPEG segment {marker:#04x} of {length} bytes does not belong to "
                "this transfer syntax with one component: damaged"
            )
        pieces.append(segment)
    return frame, None
