"""A model bundle: the folder of models and settings that belong together.

``BUNDLE/manifest.json`` (docs/bundle-format.md) names the model files with size and SHA-256, the
result-changing settings, the radiomics features and their scaler, and where the model comes from.
Opening checks all of it; what does not fit together is refused.
"""

from ildsdk.bundle.layout import BUNDLE_SCHEMA, PIPELINE_VERSION, StoredPrecision
from ildsdk.bundle.record import Bundle
from ildsdk.bundle.writing import write_bundle

__all__ = ["BUNDLE_SCHEMA", "PIPELINE_VERSION", "Bundle", "StoredPrecision", "write_bundle"]
