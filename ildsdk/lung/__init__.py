"""Lung window, two-means threshold and lung mask of one axial CT slice (method section 1).

Names load on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ildsdk.lung.segment import segment_lung
    from ildsdk.lung.threshold import TwoMeansSplit, two_means_split, two_means_threshold
    from ildsdk.lung.window import apply_lung_window

__all__ = [
    "TwoMeansSplit",
    "apply_lung_window",
    "segment_lung",
    "two_means_split",
    "two_means_threshold",
]

_HOMES = {
    "TwoMeansSplit": "ildsdk.lung.threshold",
    "apply_lung_window": "ildsdk.lung.window",
    "segment_lung": "ildsdk.lung.segment",
    "two_means_split": "ildsdk.lung.threshold",
    "two_means_threshold": "ildsdk.lung.threshold",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
