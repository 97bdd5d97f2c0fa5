"""Radiomics of one slice: 102 features with pyradiomics' definitions, names and order.

    from ildsdk.radiomics import RadiomicsExtractor
    result = RadiomicsExtractor().extract(pixels_hu, lung_mask, pixel_spacing_mm)

Names are loaded on first use, so that importing this package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ildsdk.radiomics.extractor import RadiomicsExtractor, RadiomicsResult
    from ildsdk.radiomics.names import FEATURE_NAMES, FEATURE_SET_VERSION
    from ildsdk.radiomics.scaler import FeatureScaler
    from ildsdk.radiomics.scratch import RadiomicsScratch
    from ildsdk.radiomics.settings import RadiomicsSettings

__all__ = [
    "FEATURE_NAMES",
    "FEATURE_SET_VERSION",
    "FeatureScaler",
    "RadiomicsExtractor",
    "RadiomicsResult",
    "RadiomicsScratch",
    "RadiomicsSettings",
]

_HOME = {
    "FEATURE_NAMES": "names",
    "FEATURE_SET_VERSION": "names",
    "FeatureScaler": "scaler",
    "RadiomicsExtractor": "extractor",
    "RadiomicsResult": "extractor",
    "RadiomicsScratch": "scratch",
    "RadiomicsSettings": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
