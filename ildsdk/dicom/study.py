"""Records of the study intake: what :func:`ildsdk.dicom.discover` finds."""

from __future__ import annotations

import dataclasses

from ildsdk.dicom.source import Origin
from ildsdk.records import SeriesSummary, SkippedItem


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """What is needed to read one frame's pixels without parsing the header again.

    Attributes
    ----------
    value_offset, value_length : int
        Place of the pixel data value in bytes; in the inflated dataset for deflated objects.
        The length is ``0xFFFFFFFF`` for encapsulated pixels.
    n_frames : int
        Frames in the object.
    frame_index : int
        From 0.
    bits_allocated, bits_stored, high_bit : int
        As in DICOM.
    is_signed : bool
        PixelRepresentation 1.
    is_little_endian : bool
        Byte order of native pixels.
    slope, intercept : float
        HU = stored value * slope + intercept.
    padding : tuple of int or None
        Lowest and highest stored value that is padding, as signed or unsigned as the pixels.
    extended_offsets : tuple of bytes or None
        Extended Offset Table and its lengths.
    """

    n_rows: int
    n_columns: int
    value_offset: int
    value_length: int
    n_frames: int
    frame_index: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_little_endian: bool
    photometric_interpretation: str
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    extended_offsets: tuple[bytes, bytes] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """One slice that was chosen from its header; :func:`ildsdk.dicom.read_slice` reads it.

    Attributes
    ----------
    source : str
        Path inside the study with identifying parts removed, ``#frame`` appended for a
        frame of a multi-frame object.
    frame : int or None
        Frame number from 1 in a multi-frame object.
    position_mm : float or None
        Position along the slice normal (pointing to the head), in mm; None where the
        file does not tell.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    transfer_syntax_uid : str
        Encoding of the pixels.
    layout, origin
        For :func:`ildsdk.dicom.read_slice` only; ``origin`` holds the real path and never
        shows it.
    """

    source: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    frame: int | None
    position_mm: float | None
    n_rows: int
    n_columns: int
    pixel_spacing_mm: tuple[float, float]
    slice_thickness_mm: float | None
    transfer_syntax_uid: str
    layout: PixelLayout = dataclasses.field(repr=False, compare=False)
    origin: Origin = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study of one patient: its chosen series, and everything left out with the reason.

    Attributes
    ----------
    patient_hash : str or None
        Hex SHA-256 of the normalized PatientID (see ``ildsdk.dicom.identity``): a pseudonym to
        recognize the same patient, not an anonymization. None where no id is given.
    series : tuple of SeriesSummary
        Every series of the study, the chosen one first, then by SeriesInstanceUID.
    slices : tuple of SliceHeader
        The chosen series, by ascending position, sampled. Never empty.
    """

    study_instance_uid: str
    patient_hash: str | None
    series: tuple[SeriesSummary, ...]
    slices: tuple[SliceHeader, ...]
    skipped: tuple[SkippedItem, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """Everything under one path.

    Attributes
    ----------
    studies : tuple of Study
        Studies with at least one usable slice, in order of their first file. May be empty.
    skipped : tuple of SkippedItem
        Files that belong to no such study.
    """

    studies: tuple[Study, ...]
    skipped: tuple[SkippedItem, ...]
