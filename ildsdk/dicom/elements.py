"""Walk the data elements of a DICOM header without converting values (PS3.5 chapter 7).

The header pass touches every file of an archive, damaged ones too. pydicom's reader reports odd
values through the process-wide :mod:`warnings` machinery and quotes them; filtering that is not
thread-safe, and the quoted values may name the patient. This walker keeps the few
attributes of :mod:`ildsdk.dicom.tags` as raw bytes, skips everything else unread, warns never,
and raises :class:`DamagedHeaderError` with positions and lengths only. Pixels are pydicom's work.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from typing import BinaryIO, Final, TypeAlias

from ildsdk.dicom import tags

# An attribute's value: raw bytes, or for a sequence the items' attributes.
Element: TypeAlias = "bytes | list[dict[int, Element]]"
Elements: TypeAlias = dict[int, Element]

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
GE_PRIVATE_BIG_PIXELS: Final = "1.2.840.113619.5.2"

MAX_INFLATED_BYTES: Final = 1 << 30
_MAX_VALUE_BYTES: Final = 1 << 20
_MAX_ELEMENTS: Final = 2_000_000
_MAX_DEPTH: Final = 32
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT_VRS: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)


class NotDicomError(Exception):
    """The bytes are no DICOM object."""


class DamagedHeaderError(Exception):
    """The header cannot be followed to its end; the message holds positions, never values.

    Attributes
    ----------
    partial : dict
        Elements read before the damage: they may name the patient, as the file's path may.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.partial: Elements = {}


@dataclasses.dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data element's value lies (offset in the inflated bytes if deflated)."""

    tag: int
    length: int
    value_offset: int


@dataclasses.dataclass(frozen=True, slots=True)
class RawHeader:
    """Wanted attributes of one object, undecoded.

    Attributes
    ----------
    transfer_syntax_uid : str
        As declared, or as recognized from the bytes where the file does not declare it.
    is_little_endian : bool
        Byte order of binary values in ``elements``.
    pixel_element : PixelElement or None
        None where the object ends without pixel data.
    """

    elements: Elements
    transfer_syntax_uid: str
    is_little_endian: bool
    pixel_element: PixelElement | None


def read_raw_header(stream: BinaryIO, size: int) -> RawHeader:
    """Read the wanted attributes up to the pixel data.

    Parameters
    ----------
    stream : binary file
        Seekable, positioned at the start of the object.
    size : int
        Length of the object in bytes.

    Raises
    ------
    NotDicomError
        Neither the DICM prefix nor a plausible first element.
    DamagedHeaderError
        Truncated or contradictory before the pixel data.
    """
    start = _dataset_start(stream, size)
    stream.seek(start)
    meta = _Walker(stream, size, is_implicit=False, is_little=True).meta_group()
    declared = meta.get(tags.TRANSFER_SYNTAX_UID, b"")
    syntax = declared.decode("ascii", "replace").strip("\0 ") if isinstance(declared, bytes) else ""
    if syntax == DEFLATED:
        inflated = inflate(stream.read())
        stream, size = io.BytesIO(inflated), len(inflated)
    is_implicit, is_little = _value_encoding(stream, syntax)
    if not syntax:
        syntax = IMPLICIT_LITTLE if is_implicit else EXPLICIT_LITTLE if is_little else EXPLICIT_BIG
    walker = _Walker(stream, size, is_implicit=is_implicit, is_little=is_little)
    elements, pixel_element = walker.dataset()
    return RawHeader(elements, syntax, is_little, pixel_element)


def inflate(data: bytes) -> bytes:
    """Inflate a deflated dataset (PS3.5 A.5), no further than ``MAX_INFLATED_BYTES``.

    Raises
    ------
    DamagedHeaderError
        The deflate stream is broken or larger than the limit.
    """
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = engine.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error:
        raise DamagedHeaderError("the deflate stream is broken") from None
    if engine.unconsumed_tail:
        raise DamagedHeaderError(f"the deflated dataset exceeds {MAX_INFLATED_BYTES} bytes")
    if not engine.eof:
        raise DamagedHeaderError("the deflate stream is truncated")
    return inflated


def dataset_offset(stream: BinaryIO, size: int) -> int:
    """Offset of the first byte after the file meta information."""
    stream.seek(_dataset_start(stream, size))
    _Walker(stream, size, is_implicit=False, is_little=True).meta_group()
    return stream.tell()


def _dataset_start(stream: BinaryIO, size: int) -> int:
    head = stream.read(140)
    if head[128:132] == b"DICM":
        return 132
    if size < 16 or len(head) < 16:
        raise NotDicomError
    # Without preamble an object starts with group 0002 or 0008 (0800 read little where big endian).
    group, _, vr, length16 = struct.unpack("<HH2sH", head[:8])
    (length32,) = struct.unpack("<L", head[4:8])
    known_vr = vr in _SHORT_VRS or vr in _LONG_VRS
    if group in (0x0002, 0x0008) and (
        (known_vr and length16 <= 1024) or (not known_vr and length32 <= 1024)
    ):
        return 0
    if group in (0x0200, 0x0800) and known_vr:
        return 0
    raise NotDicomError


def _value_encoding(stream: BinaryIO, syntax: str) -> tuple[bool, bool]:
    """Whether VRs are implicit and bytes little endian; the bytes decide over the declaration."""
    position = stream.tell()
    head = stream.read(6)
    stream.seek(position)
    if len(head) < 6:
        return syntax in ("", IMPLICIT_LITTLE, GE_PRIVATE_BIG_PIXELS), True
    group, _, vr = struct.unpack("<HH2s", head)
    is_implicit = vr not in _SHORT_VRS and vr not in _LONG_VRS
    # Groups at the start of a dataset are small: read with the wrong byte order they are large.
    return is_implicit, is_implicit or group < 0x0400


class _Walker:
    """One pass over one object; counts elements so that crafted input ends."""

    def __init__(self, stream: BinaryIO, size: int, *, is_implicit: bool, is_little: bool) -> None:
        self._stream = stream
        self._size = size
        self._n_elements = 0
        order = "<" if is_little else ">"
        self._is_implicit = is_implicit
        self._explicit = struct.Struct(f"{order}HH2sH")
        self._implicit = struct.Struct(f"{order}HHL")
        self._long = struct.Struct(f"{order}L")

    def meta_group(self) -> Elements:
        """Elements of group 0002; the stream is left at the first element after it."""
        found: Elements = {}
        while True:
            position = self._stream.tell()
            head = self._next_head(is_implicit=False)
            if head is None or head[0] >> 16 != 0x0002:
                self._stream.seek(position)
                return found
            tag, _, length = head
            value = self._value(tag, length)
            found[tag] = value

    def dataset(self) -> tuple[Elements, PixelElement | None]:
        """Elements up to the pixel data, and where that lies."""
        found: Elements = {}
        try:
            return found, self._fill(found)
        except DamagedHeaderError as error:
            error.partial = found
            raise

    def _fill(self, found: Elements) -> PixelElement | None:
        while True:
            head = self._next_head(is_implicit=self._is_implicit)
            if head is None:
                return None
            tag, vr, length = head
            if tag in tags.PIXELS:
                return PixelElement(tag, length, self._stream.tell())
            if tag == 0:
                raise DamagedHeaderError(f"no data element at byte {self._stream.tell() - 8}")
            self._take(found, tag, vr, length, self._is_implicit, 0)

    def _take(
        self, found: Elements, tag: int, vr: bytes, length: int, is_implicit: bool, depth: int
    ) -> None:
        """Keep, descend into, or skip one element whose head was just read."""
        is_wanted = tag in tags.WANTED
        if is_wanted and tag in tags.SEQUENCES:
            found[tag] = self._items(length, is_implicit or vr == b"UN", depth + 1)
        elif length == UNDEFINED_LENGTH and (vr in (b"OB", b"OW") or tag in tags.PIXELS):
            self._skip_fragments()
        elif length == UNDEFINED_LENGTH:
            # PS3.5 6.2.2: the items inside an UN of undefined length are implicit little endian.
            self._items(length, is_implicit or vr == b"UN", depth + 1)
        elif is_wanted:
            found[tag] = self._value(tag, length)
        else:
            self._skip(length)

    def _items(self, length: int, is_implicit: bool, depth: int) -> list[Elements]:
        if depth > _MAX_DEPTH:
            raise DamagedHeaderError(f"sequences nested deeper than {_MAX_DEPTH}")
        items: list[Elements] = []
        end = None if length == UNDEFINED_LENGTH else self._end_of(length)
        while end is None or self._stream.tell() < end:
            position = self._stream.tell()
            head = self._stream.read(8)
            if len(head) < 8:
                raise DamagedHeaderError(f"truncated inside a sequence at byte {position}")
            group, element, item_length = self._implicit.unpack(head)
            tag = group << 16 | element
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise DamagedHeaderError(f"no sequence item at byte {position}")
            items.append(self._item(item_length, is_implicit, depth))
        return items

    def _item(self, length: int, is_implicit: bool, depth: int) -> Elements:
        found: Elements = {}
        end = None if length == UNDEFINED_LENGTH else self._end_of(length)
        while end is None or self._stream.tell() < end:
            position = self._stream.tell()
            head = self._next_head(is_implicit=is_implicit)
            if head is None:
                raise DamagedHeaderError(f"truncated inside an item at byte {position}")
            tag, vr, element_length = head
            if tag == _ITEM_END:
                break
            self._take(found, tag, vr, element_length, is_implicit, depth)
        return found

    def _skip_fragments(self) -> None:
        """Pass over encapsulated pixels inside a sequence (an icon): bytes, not elements."""
        while True:
            head = self._next_head(is_implicit=True)
            if head is None:
                raise DamagedHeaderError("truncated inside encapsulated data")
            tag, _, length = head
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM:
                raise DamagedHeaderError(f"no fragment at byte {self._stream.tell() - 8}")
            self._skip(length)

    def _next_head(self, *, is_implicit: bool) -> tuple[int, bytes, int] | None:
        """Tag, VR (empty if implicit) and length; None at the end of the bytes."""
        self._n_elements += 1
        if self._n_elements > _MAX_ELEMENTS:
            raise DamagedHeaderError(f"more than {_MAX_ELEMENTS} data elements")
        head = self._stream.read(8)
        if not head:
            return None
        if len(head) < 8:
            raise DamagedHeaderError(f"truncated at byte {self._stream.tell()}")
        if not is_implicit:
            group, element, vr, length = self._explicit.unpack(head)
            tag = group << 16 | element
            if group == 0xFFFE:
                return tag, b"", int(self._implicit.unpack(head)[2])
            if vr in _LONG_VRS:
                tail = self._stream.read(4)
                if len(tail) < 4:
                    raise DamagedHeaderError(f"truncated at byte {self._stream.tell()}")
                return tag, vr, int(self._long.unpack(tail)[0])
            if vr in _SHORT_VRS or (vr.isalpha() and vr.isupper()):
                return tag, vr, int(length)
            # Some writers switch to implicit VR inside sequences: read this one so.
        group, element, length = self._implicit.unpack(head)
        return group << 16 | element, b"", int(length)

    def _end_of(self, length: int) -> int:
        end = self._stream.tell() + length
        if end > self._size:
            raise DamagedHeaderError(
                f"a value of {length} bytes at byte {self._stream.tell()} runs past the end "
                f"({self._size} bytes)"
            )
        return end

    def _skip(self, length: int) -> None:
        if length == UNDEFINED_LENGTH:
            raise DamagedHeaderError("an item of undefined length where none can be")
        self._stream.seek(self._end_of(length))

    def _value(self, tag: int, length: int) -> bytes:
        if length > _MAX_VALUE_BYTES:
            raise DamagedHeaderError(
                f"({tag >> 16:04x},{tag & 0xFFFF:04x}) has {length} bytes, "
                f"at most {_MAX_VALUE_BYTES} expected"
            )
        self._end_of(length)
        return self._stream.read(length)
