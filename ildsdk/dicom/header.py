"""Values of one object's header, and its frames: from raw bytes to checked numbers.

A single-frame CT is one frame whose attributes stand at the top level; an enhanced (also
legacy converted) multi-frame CT has them in functional groups, per frame or shared
(PS3.3 C.7.6.16). Both end as :class:`FrameFacts`.
"""

from __future__ import annotations

import dataclasses
import math
import re
import struct
from collections.abc import Iterator
from typing import Final

from ildsdk.dicom import tags
from ildsdk.dicom.elements import Elements, RawHeader
from ildsdk.dicom.redact import names_patient

# Text from the file that is shown: one line, printable ASCII, short.
_SHOWN: Final = re.compile(r"[^A-Za-z0-9 _.,:;+/()\[\]\\-]")
_MAX_SHOWN: Final = 64
# Beyond any length, count or HU; keeps infinities and overflows out.
_MAX_NUMBER: Final = 1e9
_MAX_FRAMES: Final = 20_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameFacts:
    """Geometry and rescale of one frame, None where the file does not tell or tells nonsense.

    Attributes
    ----------
    frame : int or None
        From 1 in a multi-frame object, None in a single-frame one.
    image_type : tuple of str
        ImageType and FrameType values, upper case.
    orientation : tuple of 6 floats or None
        ImageOrientationPatient.
    position : tuple of 3 floats or None
        ImagePositionPatient in mm.
    pixel_spacing_mm : tuple of 2 floats or None
        ``(row_spacing, column_spacing)``.
    """

    frame: int | None
    image_type: tuple[str, ...]
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, float] | None
    slice_thickness_mm: float | None
    spacing_between_mm: float | None
    slice_location_mm: float | None
    instance_number: int | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    kernel: str | None


class Header:
    """Typed view of one object's raw header.

    Parameters
    ----------
    raw : RawHeader
        From :func:`ildsdk.dicom.elements.read_raw_header`.
    tokens : frozenset of str
        From :func:`ildsdk.dicom.redact.identifying_tokens`: what :meth:`shown` never shows.
    """

    def __init__(self, raw: RawHeader, tokens: frozenset[str] = frozenset()) -> None:
        self.raw = raw
        self._tokens = tokens
        self._order = "<" if raw.is_little_endian else ">"

    def text(self, tag: int, elements: Elements | None = None) -> str:
        """Value as stripped text, empty where missing; may name the patient."""
        value = (self.raw.elements if elements is None else elements).get(tag)
        if not isinstance(value, bytes):
            return ""
        return value.decode("latin-1").strip("\0 \t\r\n")

    def texts(self, tag: int, elements: Elements | None = None) -> tuple[str, ...]:
        """Backslash-separated values, each stripped."""
        text = self.text(tag, elements)
        return tuple(piece.strip() for piece in text.split("\\")) if text else ()

    def shown(self, tag: int, elements: Elements | None = None) -> str | None:
        """Value fit for a message: printable, one line, short.

        None where missing, ``"(withheld)"`` where it holds a part of the patient's name or id.
        """
        text = _SHOWN.sub("_", self.text(tag, elements))[:_MAX_SHOWN]
        return "(withheld)" if names_patient(text, self._tokens) else text or None

    def numbers(
        self, tag: int, count: int, elements: Elements | None = None
    ) -> tuple[float, ...] | None:
        """Exactly ``count`` decimal numbers of plausible size, or None."""
        pieces = self.texts(tag, elements)
        if len(pieces) != count:
            return None
        try:
            values = tuple(float(piece) for piece in pieces)
        except ValueError:
            return None
        return values if all(abs(value) <= _MAX_NUMBER for value in values) else None

    def number(self, tag: int, elements: Elements | None = None) -> float | None:
        """The first value as a finite number, or None (writers repeat single values)."""
        pieces = self.texts(tag, elements)
        try:
            value = float(pieces[0]) if pieces else math.nan
        except ValueError:
            return None
        return value if abs(value) <= _MAX_NUMBER else None

    def unsigned(self, tag: int) -> int | None:
        """A binary 16-bit value read as unsigned, or None."""
        value = self.raw.elements.get(tag)
        if not isinstance(value, bytes) or len(value) not in (2, 4):
            return None
        return int(
            struct.unpack(f"{self._order}H" if len(value) == 2 else f"{self._order}L", value)[0]
        )

    def integer(self, tag: int) -> int | None:
        """A whole decimal number, or None."""
        value = self.number(tag)
        return int(value) if value is not None and value == int(value) else None

    def n_frames(self) -> int | None:
        """NumberOfFrames, 1 where missing, None where it is no plausible number."""
        if not self.text(tags.NUMBER_OF_FRAMES):
            return 1
        count = self.integer(tags.NUMBER_OF_FRAMES)
        return count if count is not None and 1 <= count <= _MAX_FRAMES else None

    def is_enhanced(self) -> bool:
        """Whether the object carries functional groups."""
        return isinstance(self.raw.elements.get(tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE), list)

    def n_functional_groups(self) -> int:
        """Number of frames the functional groups describe."""
        return len(_items(self.raw.elements, tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE))

    def frames(self) -> Iterator[FrameFacts]:
        """Facts of each frame, in stored order."""
        top = self.raw.elements
        if not self.is_enhanced():
            yield self._frame(None, {}, {}, top)
            return
        shared_items = _items(top, tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
        shared = shared_items[0] if shared_items else {}
        for number, own in enumerate(
            _items(top, tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE), start=1
        ):
            yield self._frame(number, own, shared, top)

    def _frame(
        self, number: int | None, own: Elements, shared: Elements, top: Elements
    ) -> FrameFacts:
        def group(sequence: int) -> Elements:
            # Per frame before shared before top level (legacy converters leave some there).
            for level in (own, shared):
                items = _items(level, sequence)
                if items:
                    return items[0]
            return top

        measures = group(tags.PIXEL_MEASURES_SEQUENCE)
        transformation = group(tags.PIXEL_VALUE_TRANSFORMATION_SEQUENCE)
        frame_type = group(tags.CT_IMAGE_FRAME_TYPE_SEQUENCE)
        image_type = self.texts(tags.IMAGE_TYPE) + self.texts(tags.FRAME_TYPE, frame_type)
        spacing = self.numbers(tags.PIXEL_SPACING, 2, measures)
        return FrameFacts(
            frame=number,
            image_type=tuple(piece.upper() for piece in image_type),
            orientation=self.numbers(
                tags.IMAGE_ORIENTATION_PATIENT, 6, group(tags.PLANE_ORIENTATION_SEQUENCE)
            ),
            position=self.numbers(
                tags.IMAGE_POSITION_PATIENT, 3, group(tags.PLANE_POSITION_SEQUENCE)
            ),
            pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
            slice_thickness_mm=_positive(self.number(tags.SLICE_THICKNESS, measures)),
            spacing_between_mm=_positive(self.number(tags.SPACING_BETWEEN_SLICES, measures)),
            slice_location_mm=self.number(tags.SLICE_LOCATION) if number is None else None,
            instance_number=self.integer(tags.INSTANCE_NUMBER) if number is None else number,
            slope=self.number(tags.RESCALE_SLOPE, transformation),
            intercept=self.number(tags.RESCALE_INTERCEPT, transformation),
            rescale_type=self.text(tags.RESCALE_TYPE, transformation).upper(),
            kernel=self.shown(tags.CONVOLUTION_KERNEL, group(tags.CT_RECONSTRUCTION_SEQUENCE)),
        )


def _items(elements: Elements, sequence: int) -> list[Elements]:
    value = elements.get(sequence)
    return value if isinstance(value, list) else []


def _positive(value: float | None) -> float | None:
    return abs(value) if value else None
