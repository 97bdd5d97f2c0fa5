"""Which objects and frames can be answered at all: the rules for one image, in order.

An object is refused by the first rule that applies:

1. ``dicomdir``, ``dose-report``, ``secondary-capture``: by SOP class; a picture of a dose report
   or screen also by ImageType or SeriesDescription.
2. ``not-ct``: Modality is not CT. Without a Modality the SOP class must be a CT image, or the
   rescale must say Hounsfield units.
3. ``no-pixel-data``, ``rgb`` (more than one sample, or not MONOCHROME), ``bad-image-description``.
4. ``localizer``: ImageType, or scout / topogram / surview as a word of the series description.
5. ``derived``: projections (MIP, MinIP), renderings, material and perfusion maps, other
   rescale units than HU. Averaged or processed *axial* sections stay usable; they rank
   below original ones (see :mod:`ildsdk.dicom.series_rules`).
6. ``not-axial``: orientation missing (unless ImageType says AXIAL, then standard axes are
   assumed) or not two perpendicular unit vectors.
7. ``reformat``: the normal leaves the patient's long axis by more than 20 degrees. Prone, supine
   and decubitus patients are axial alike: only the normal counts.
8. ``no-pixel-spacing``, ``no-rescale``.
"""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np

from ildsdk.dicom import reasons, tags
from ildsdk.dicom.header import FrameFacts, Header

MAX_TILT_DEGREES: Final = 20.0
MIN_MATRIX: Final = 64
MAX_MATRIX: Final = 4096
MIN_SPACING_MM: Final = 0.05
MAX_SPACING_MM: Final = 5.0
MAX_SLOPE: Final = 1000.0
STANDARD_AXES: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

CT_SOP_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT Image",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT Image",
}
_DICOMDIR: Final = "1.2.840.10008.1.3.10"
_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
_DOSE_REPORTS: Final = ("1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.76")
_LOCALIZER_TYPES: Final = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM"})
_LOCALIZER_WORDS: Final = re.compile(r"\b(localizer|scout|topogram|surview|scanogram)\b", re.I)
_DOSE_WORDS: Final = re.compile(r"\b(dose (report|info|record)|patient protocol)\b", re.I)
_CAPTURE_TYPES: Final = frozenset({"SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE", "CAPTURE"})
_DERIVED_TYPES: Final = re.compile(
    r"^(MIP|MINIP|MIN_IP|MINIMUM|MAXIMUM|.*PROJECTION.*|CSA MIP|CSA 3D.*|VRT?|VOLREN.*|"
    r"VOLUME_RENDER.*|SURFACE_RENDER.*|3D.*|SSD|SUBTRACT.*|PERFUSION.*|.*_MAP|IODINE.*|"
    r"EFF_ATOMIC_NUM|ELECTRON_DENSITY|MATERIAL.*|Z_EFF|RHO)$"
)
_AXIAL_IMAGE_TYPE: Final = "AXIAL"


def refuse_object(header: Header) -> tuple[str, str] | None:
    """Reason and detail if the object as a whole cannot be answered, else None."""
    sop_class = header.text(tags.SOP_CLASS_UID)
    modality = header.text(tags.MODALITY).upper()
    image_type = tuple(piece.upper() for piece in header.texts(tags.IMAGE_TYPE))
    description = header.text(tags.SERIES_DESCRIPTION)
    if sop_class == _DICOMDIR:
        return reasons.DICOMDIR, reasons.MEANINGS[reasons.DICOMDIR]
    if sop_class in _DOSE_REPORTS:
        return reasons.DOSE_REPORT, "a radiation dose structured report"
    if modality not in ("", "CT"):
        return reasons.NOT_CT, f"modality {header.shown(tags.MODALITY)}, expected CT"
    if sop_class == _SECONDARY_CAPTURE or sop_class.startswith(_SECONDARY_CAPTURE + "."):
        return reasons.SECONDARY_CAPTURE, "a secondary-capture object, expected a CT image"
    if not modality and not _looks_like_ct(header, sop_class):
        return reasons.NOT_CT, "no modality, no CT image SOP class and no rescale to HU"
    if _DOSE_WORDS.search(description) or any("DOSE" in piece for piece in image_type):
        return reasons.DOSE_REPORT, "a dose report as a picture, by its series description or type"
    if _CAPTURE_TYPES.intersection(image_type):
        return reasons.SECONDARY_CAPTURE, f"image type {header.shown(tags.IMAGE_TYPE)}"
    pixels = header.raw.pixel_element
    if pixels is None or pixels.tag != tags.PIXEL_DATA or pixels.length == 0:
        return reasons.NO_PIXEL_DATA, "no integer pixel data in the object"
    return (
        _refuse_pixels(header)
        or _refuse_localizer(header, image_type, description)
        or (_refuse_frame_count(header))
    )


def refuse_frame(facts: FrameFacts) -> tuple[str, str] | None:
    """Reason and detail if one frame cannot be answered, else None."""
    if _LOCALIZER_TYPES.intersection(facts.image_type):
        return reasons.LOCALIZER, "frame type localizer"
    for piece in facts.image_type:
        if _DERIVED_TYPES.match(piece):
            return reasons.DERIVED, "a projection, rendering or map by its image type"
    if facts.rescale_type and not _is_hounsfield(facts.rescale_type):
        return reasons.DERIVED, "rescaled to another unit than HU"
    return _refuse_geometry(facts) or _refuse_numbers(facts)


def orientation_of(facts: FrameFacts) -> tuple[float, ...] | None:
    """Orientation, standard axes where missing and ImageType says AXIAL, None if unusable."""
    if facts.orientation is None:
        return STANDARD_AXES if _AXIAL_IMAGE_TYPE in facts.image_type else None
    row, column = np.array(facts.orientation[:3]), np.array(facts.orientation[3:])
    is_unit = abs(np.linalg.norm(row) - 1) < 0.02 and abs(np.linalg.norm(column) - 1) < 0.02
    return facts.orientation if is_unit and abs(float(row @ column)) < 0.02 else None


def normal_of(orientation: tuple[float, ...]) -> tuple[float, float, float]:
    """Unit normal of the image plane, turned so that its largest component is positive.

    The cross product of the row and column directions (PS3.3 C.7.6.2.1.1). Turned to the head
    for axial planes, so that positions of differently stored series compare.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    normal = normal / np.linalg.norm(normal)
    if normal[int(np.argmax(np.abs(normal)))] < 0:
        normal = -normal
    return float(normal[0]), float(normal[1]), float(normal[2])


def _looks_like_ct(header: Header, sop_class: str) -> bool:
    if sop_class:
        return sop_class in CT_SOP_CLASSES
    return _is_hounsfield(header.text(tags.RESCALE_TYPE).upper())


def _is_hounsfield(rescale_type: str) -> bool:
    # "Houndsfield Unit" and "Hounsfield" occur; US means unspecified and is common in CT.
    return rescale_type == "US" or rescale_type.startswith(("HU", "HOUN"))


def _refuse_pixels(header: Header) -> tuple[str, str] | None:
    samples = header.unsigned(tags.SAMPLES_PER_PIXEL)
    photometric = header.text(tags.PHOTOMETRIC_INTERPRETATION).upper()
    if samples not in (None, 1) or photometric not in ("", "MONOCHROME1", "MONOCHROME2"):
        shown = header.shown(tags.PHOTOMETRIC_INTERPRETATION)
        return reasons.RGB, f"{samples} samples per pixel, {shown}; expected 1, MONOCHROME2"
    rows, columns = header.unsigned(tags.ROWS), header.unsigned(tags.COLUMNS)
    if not rows or not columns:
        return reasons.BAD_IMAGE_DESCRIPTION, "Rows or Columns missing"
    if min(rows, columns) < MIN_MATRIX or max(rows, columns) > MAX_MATRIX:
        return (
            reasons.BAD_IMAGE_DESCRIPTION,
            f"{rows} x {columns} pixels, expected {MIN_MATRIX} to {MAX_MATRIX} a side",
        )
    allocated = header.unsigned(tags.BITS_ALLOCATED)
    stored = header.unsigned(tags.BITS_STORED)
    stored = allocated if stored is None else stored
    high = header.unsigned(tags.HIGH_BIT)
    if allocated not in (8, 16, 32) or not stored or stored > allocated:
        return (
            reasons.BAD_IMAGE_DESCRIPTION,
            f"{allocated} bits allocated, {stored} stored; expected 8, 16 or 32, no more stored",
        )
    if high is not None and not stored - 1 <= high < allocated:
        return (
            reasons.BAD_IMAGE_DESCRIPTION,
            f"high bit {high} with {stored} of {allocated} bits stored",
        )
    if header.unsigned(tags.PIXEL_REPRESENTATION) not in (0, 1):
        return reasons.BAD_IMAGE_DESCRIPTION, "PixelRepresentation missing or not 0 or 1"
    return None


def _refuse_localizer(
    header: Header, image_type: tuple[str, ...], description: str
) -> tuple[str, str] | None:
    if _LOCALIZER_TYPES.intersection(image_type):
        return reasons.LOCALIZER, f"image type {header.shown(tags.IMAGE_TYPE)}"
    if _LOCALIZER_WORDS.search(description):
        return reasons.LOCALIZER, "named a localizer by its series description"
    return None


def _refuse_frame_count(header: Header) -> tuple[str, str] | None:
    n_frames = header.n_frames()
    if n_frames is None:
        return reasons.BAD_IMAGE_DESCRIPTION, "NumberOfFrames is no plausible whole number"
    if header.is_enhanced():
        n_groups = header.n_functional_groups()
        if n_groups != n_frames:
            return (
                reasons.BAD_IMAGE_DESCRIPTION,
                f"{n_frames} frames but functional groups for {n_groups}",
            )
    elif n_frames > 1:
        return (
            reasons.BAD_IMAGE_DESCRIPTION,
            f"{n_frames} frames without functional groups: no position for each",
        )
    return None


def _refuse_geometry(facts: FrameFacts) -> tuple[str, str] | None:
    orientation = orientation_of(facts)
    if orientation is None:
        found = "missing" if facts.orientation is None else "not two perpendicular unit vectors"
        return reasons.NOT_AXIAL, f"ImageOrientationPatient {found}"
    normal = normal_of(orientation)
    tilts = [math.degrees(math.acos(min(1.0, abs(component)))) for component in normal]
    if tilts[2] <= MAX_TILT_DEGREES:
        return None
    plane = "oblique"
    if tilts[1] <= MAX_TILT_DEGREES:
        plane = "coronal"
    elif tilts[0] <= MAX_TILT_DEGREES:
        plane = "sagittal"
    return (
        reasons.REFORMAT,
        f"{plane} plane, {tilts[2]:.0f} degrees from axial, at most {MAX_TILT_DEGREES:.0f} taken",
    )


def _refuse_numbers(facts: FrameFacts) -> tuple[str, str] | None:
    spacing = facts.pixel_spacing_mm
    if spacing is None:
        return reasons.NO_PIXEL_SPACING, "PixelSpacing missing or not two numbers"
    if not all(MIN_SPACING_MM <= value <= MAX_SPACING_MM for value in spacing):
        return (
            reasons.NO_PIXEL_SPACING,
            f"PixelSpacing {spacing[0]:g} x {spacing[1]:g} mm, expected "
            f"{MIN_SPACING_MM:g} to {MAX_SPACING_MM:g}",
        )
    if facts.slope is None or facts.intercept is None:
        return reasons.NO_RESCALE, "RescaleSlope or RescaleIntercept missing or unusable"
    if not 0 < abs(facts.slope) <= MAX_SLOPE:
        return reasons.NO_RESCALE, f"RescaleSlope {facts.slope:g}, expected up to {MAX_SLOPE:g}"
    return None
