"""Study intake: discover a DICOM study, choose its series, read pixels in Hounsfield units.

The only package that imports pydicom. Names load on first use, so importing this
package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ildsdk.dicom.codecs import broken_packages, decoder_status, load_decoders
    from ildsdk.dicom.discovery import discover
    from ildsdk.dicom.identity import patient_hash
    from ildsdk.dicom.pixels import checked_pixels_hu, read_slice
    from ildsdk.dicom.series_rules import is_lung_kernel
    from ildsdk.dicom.study import Discovery, SliceHeader, Study

__all__ = [
    "Discovery",
    "SliceHeader",
    "Study",
    "broken_packages",
    "checked_pixels_hu",
    "decoder_status",
    "discover",
    "is_lung_kernel",
    "load_decoders",
    "patient_hash",
    "read_slice",
]

_HOME = {
    "Discovery": "study",
    "SliceHeader": "study",
    "Study": "study",
    "broken_packages": "codecs",
    "checked_pixels_hu": "pixels",
    "discover": "discovery",
    "decoder_status": "codecs",
    "is_lung_kernel": "series_rules",
    "load_decoders": "codecs",
    "patient_hash": "identity",
    "read_slice": "pixels",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
