"""One file of a study: its identity, its frames, or why it is refused as a whole."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import BinaryIO, Final

from ildsdk.dicom import codecs, identity, reasons, tags
from ildsdk.dicom.elements import DamagedHeaderError, Elements, NotDicomError, read_raw_header
from ildsdk.dicom.header import FrameFacts, Header
from ildsdk.dicom.image_rules import refuse_object
from ildsdk.dicom.redact import identifying_tokens
from ildsdk.dicom.source import Entry, StudySource
from ildsdk.dicom.study import PixelLayout

_CHUNK_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who an object belongs to."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    patient_hash: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """One file: refused as a whole, or with its frames."""

    entry: Entry
    tokens: frozenset[str] = frozenset()
    identity: Identity | None = None
    refusal: tuple[str, str] | None = None
    frames: tuple[FrameFacts, ...] = ()
    layout: PixelLayout | None = None
    transfer_syntax_uid: str = ""
    is_lossy: bool = False
    description: str = ""
    kernel: str | None = None
    slice_thickness_mm: float | None = None


_PICTURES: Final = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF"}


def read_file(source: StudySource, entry: Entry) -> FoundFile:
    """Read one header; never raises for what the file holds."""
    if entry.problem is not None:
        return FoundFile(entry=entry, refusal=entry.problem)
    tokens: frozenset[str] = frozenset()
    try:
        with source.open(entry) as stream:
            try:
                raw = read_raw_header(stream, entry.origin.size)
            except DamagedHeaderError as error:
                # What was read before the damage may name the patient, like the path.
                tokens = frozenset(identifying_tokens(error.partial))
                detail = f"damaged header: {error}"
                return FoundFile(entry=entry, tokens=tokens, refusal=(reasons.UNREADABLE, detail))
            tokens = frozenset(identifying_tokens(raw.elements))
            return _describe(entry, Header(raw, tokens), tokens, stream)
    except NotDicomError:
        return FoundFile(entry=entry, refusal=(reasons.NOT_DICOM, _what_it_is(source, entry)))
    except OSError as error:
        why = error.strerror or type(error).__name__
        return FoundFile(
            entry=entry, tokens=tokens, refusal=(reasons.UNREADABLE, f"not read ({why})")
        )
    except Exception as error:
        # Damaged data finds ways nobody thought of; text and cause could quote it.
        detail = f"damaged ({type(error).__name__})"
        return FoundFile(entry=entry, tokens=tokens, refusal=(reasons.UNREADABLE, detail))


def _what_it_is(source: StudySource, entry: Entry) -> str:
    """Why a file is no DICOM object; pictures are told, because they are tried often."""
    if entry.origin.size == 0:
        return "an empty file"
    try:
        with source.open(entry) as stream:
            start = stream.read(8)
    except Exception:  # a damaged zip raises whatever it likes
        start = b""
    kind = next((name for magic, name in _PICTURES.items() if start.startswith(magic)), None)
    if kind is None:
        return "no DICOM prefix and no DICOM data element"
    return (
        f"a {kind} picture, which does not tell its Hounsfield units or pixel spacing: hand pixels "
        "in HU to ildsdk.Retriever.embed_slice"
    )


def _describe(entry: Entry, header: Header, tokens: frozenset[str], stream: BinaryIO) -> FoundFile:
    if not header.raw.elements:
        return FoundFile(
            entry=entry, refusal=(reasons.UNREADABLE, "none of the attributes the intake reads")
        )
    refusal = refuse_object(header)
    first = next(header.frames(), None)
    return FoundFile(
        entry=entry,
        tokens=tokens,
        identity=_identify(header, stream),
        refusal=refusal,
        frames=() if refusal else tuple(header.frames()),
        layout=None if refusal else _layout(header),
        transfer_syntax_uid=header.raw.transfer_syntax_uid,
        is_lossy=header.raw.transfer_syntax_uid in codecs.LOSSY
        or header.text(tags.LOSSY_IMAGE_COMPRESSION) == "01",
        description=header.text(tags.SERIES_DESCRIPTION),
        kernel=first.kernel if first else None,
        slice_thickness_mm=first.slice_thickness_mm if first else None,
    )


def _identify(header: Header, stream: BinaryIO) -> Identity | None:
    patient = identity.patient_hash(header.text(tags.PATIENT_ID))
    study = identity.valid_uid(header.text(tags.STUDY_INSTANCE_UID))
    series = identity.valid_uid(header.text(tags.SERIES_INSTANCE_UID))
    sop = identity.valid_uid(header.text(tags.SOP_INSTANCE_UID))
    frame_of_reference = header.text(tags.FRAME_OF_REFERENCE_UID)
    if study is None:
        facts = (patient or "", header.text(tags.STUDY_DATE), frame_of_reference)
        # With no fact at all nothing says that two files belong together.
        study = identity.derived_uid("study", *(facts if any(facts) else (_digest(stream),)))
    if series is None:
        series = identity.derived_uid(
            "series", study, header.text(tags.SERIES_NUMBER), header.text(tags.CONVOLUTION_KERNEL)
        )
    if sop is None:
        sop = identity.derived_uid("instance", series, _digest(stream))
    return Identity(
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=sop,
        patient_hash=patient,
    )


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _layout(header: Header) -> PixelLayout:
    """Pixel layout of the first frame; the rescale of each frame is filled in later."""
    raw = header.raw
    pixel_element = raw.pixel_element
    rows, columns = header.unsigned(tags.ROWS), header.unsigned(tags.COLUMNS)
    allocated = header.unsigned(tags.BITS_ALLOCATED)
    # refuse_object has checked these; the check here is for the type checker.
    if pixel_element is None or rows is None or columns is None or allocated is None:
        raise DamagedHeaderError("image description incomplete")
    stored = header.unsigned(tags.BITS_STORED) or allocated
    high = header.unsigned(tags.HIGH_BIT)
    is_signed = header.unsigned(tags.PIXEL_REPRESENTATION) == 1
    return PixelLayout(
        n_rows=rows,
        n_columns=columns,
        value_offset=pixel_element.value_offset,
        value_length=pixel_element.length,
        n_frames=header.n_frames() or 1,
        frame_index=0,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high is None else high,
        is_signed=is_signed,
        is_little_endian=raw.is_little_endian,
        photometric_interpretation=header.text(tags.PHOTOMETRIC_INTERPRETATION).upper()
        or "MONOCHROME2",
        slope=1.0,
        intercept=0.0,
        padding=_padding(header, allocated, is_signed),
        extended_offsets=_extended_offsets(raw.elements),
    )


def _padding(header: Header, bits_allocated: int, is_signed: bool) -> tuple[int, int] | None:
    # The VR (US or SS) is often wrong: the bit pattern is what is compared, read like the pixels.
    values = []
    for tag in (tags.PIXEL_PADDING_VALUE, tags.PIXEL_PADDING_RANGE_LIMIT):
        pattern = header.unsigned(tag)
        if pattern is not None:
            n_bits = min(16, bits_allocated)
            pattern &= (1 << n_bits) - 1
            sign = 1 << (n_bits - 1)
            values.append((pattern ^ sign) - sign if is_signed else pattern)
    return (min(values), max(values)) if values else None


def _extended_offsets(elements: Elements) -> tuple[bytes, bytes] | None:
    offsets = elements.get(tags.EXTENDED_OFFSET_TABLE)
    lengths = elements.get(tags.EXTENDED_OFFSET_TABLE_LENGTHS)
    if isinstance(offsets, bytes) and isinstance(lengths, bytes) and offsets:
        return offsets, lengths
    return None
