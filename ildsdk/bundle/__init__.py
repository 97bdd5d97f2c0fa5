"""A model bundle: the folder of models and settings that belong together.

``BUNDLE/manifest.json`` (docs/bundle-format.md) names the model files with size and SHA-256, the
result-changing settings, the radiomics features and their scaler, and where the model comes from.
Opening checks all of it; what does not fit together is refused.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ildsdk.bundle.layout import BUNDLE_SCHEMA, PIPELINE_VERSION, StoredPrecision
from ildsdk.bundle.record import Bundle

if TYPE_CHECKING:
    from ildsdk.bundle.writing import write_bundle

__all__ = ["BUNDLE_SCHEMA", "PIPELINE_VERSION", "Bundle", "StoredPrecision", "write_bundle"]


def __getattr__(name: str) -> Any:
    if name != "write_bundle":  # not needed to read one
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("ildsdk.bundle.writing").write_bundle
