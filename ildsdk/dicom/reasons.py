"""Stable codes for files and slices that are not answered: the one place that lists them.

Each file handed to :func:`ildsdk.dicom.discover` ends either in ``Study.slices`` or in a
``skipped`` list with one of these codes. A code never changes its meaning; new ones may be added.
"""

from __future__ import annotations

from typing import Final

# What the bytes are.
NOT_DICOM: Final = "not-dicom"
UNREADABLE: Final = "unreadable"
ARCHIVE_LIMIT: Final = "archive-limit"
# What kind of object it is.
DICOMDIR: Final = "dicomdir"
DOSE_REPORT: Final = "dose-report"
NOT_CT: Final = "not-ct"
SECONDARY_CAPTURE: Final = "secondary-capture"
NO_PIXEL_DATA: Final = "no-pixel-data"
RGB: Final = "rgb"
LOCALIZER: Final = "localizer"
DERIVED: Final = "derived"
# Whether its numbers suffice.
BAD_IMAGE_DESCRIPTION: Final = "bad-image-description"
NO_RESCALE: Final = "no-rescale"
NO_PIXEL_SPACING: Final = "no-pixel-spacing"
NOT_AXIAL: Final = "not-axial"
REFORMAT: Final = "reformat"
# Its place in study and series.
SERIES_NOT_CHOSEN: Final = "series-not-chosen"
MIXED_GEOMETRY: Final = "mixed-geometry"
NO_POSITION: Final = "no-position"
DUPLICATE_SLICE: Final = "duplicate-slice"
NOT_SAMPLED: Final = "not-sampled"
# Found when the pixels are read (SliceUnusableError.reason).
CONSTANT_IMAGE: Final = "constant-image"
HU_IMPLAUSIBLE: Final = "hu-implausible"

MEANINGS: Final[dict[str, str]] = {
    NOT_DICOM: "the bytes are no DICOM object",
    UNREADABLE: "the object is damaged, truncated, encrypted or cannot be opened",
    ARCHIVE_LIMIT: "a zip member beyond the size or compression-ratio limit",
    DICOMDIR: "a DICOMDIR (table of contents, no image)",
    DOSE_REPORT: "a radiation dose report, structured or as a picture",
    NOT_CT: "another modality or kind of object (MR, SR, RTSTRUCT, SEG ...)",
    SECONDARY_CAPTURE: "a screen capture or other secondary-capture object",
    NO_PIXEL_DATA: "an image header without integer pixel data",
    RGB: "color or palette pixels, not Hounsfield units",
    LOCALIZER: "a localizer (scout, topogram, surview)",
    DERIVED: "a projection, rendering or map whose values are not attenuation of one section",
    BAD_IMAGE_DESCRIPTION: "rows, columns, bits or frames are missing or contradict each other",
    NO_RESCALE: "no usable RescaleSlope and RescaleIntercept: stored values cannot become HU",
    NO_PIXEL_SPACING: "no usable PixelSpacing (ImagerPixelSpacing is not a substitute in CT)",
    NOT_AXIAL: "the orientation is missing or invalid, so the slice cannot be shown to be axial",
    REFORMAT: "a coronal, sagittal or oblique plane",
    SERIES_NOT_CHOSEN: "usable, but another series of the study was chosen",
    MIXED_GEOMETRY: "other orientation, spacing or matrix than the majority of its series",
    NO_POSITION: "no position although the other slices of its series have one",
    DUPLICATE_SLICE: "same SOPInstanceUID or same position as a slice that is kept",
    NOT_SAMPLED: "closer to the slice before it than the sampling distance",
    CONSTANT_IMAGE: "all pixels have one value, or nothing but a frame is left",
    HU_IMPLAUSIBLE: "the values cannot be Hounsfield units of a body section",
}
