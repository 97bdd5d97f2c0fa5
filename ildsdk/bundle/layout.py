"""Names, versions and limits of a bundle folder, and the hash that an index remembers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

BUNDLE_SCHEMA = "ildsdk.bundle/3"
SCHEMA_V1 = "ildsdk.bundle/1"
SCHEMA_V2 = "ildsdk.bundle/2"
PIPELINE_VERSION = "ildsdk.pipeline/1"
"""Changes whenever HU, lung mask or model input of a slice change: embeddings made before and
after such a change do not compare, and an old bundle or index must not open silently."""

StoredPrecision = Literal["fp32", "int8"]
"""Forms of the backbone that a bundle can hold."""

MANIFEST_NAME = "manifest.json"
BACKBONE_NAME = "backbone.onnx"
MODEL_FILES = (BACKBONE_NAME, "fusion.onnx")
BACKBONE_INT8_NAME = "backbone-int8.onnx"
BACKBONE_INT8_SYMMETRIC_NAME = "backbone-int8-symmetric.onnx"
GRAPHS_BY_REFERENCE = (BACKBONE_INT8_NAME, BACKBONE_INT8_SYMMETRIC_NAME)
"""Graphs whose weights lie in ``backbone.onnx``."""
EXPLAIN_NAME = "explain.onnx"
CARD_NAME = "model_card.md"
# Not part of the bundle hash: an index goes on answering when a bundle gains one of them.
OPTIONAL_FILES = {
    SCHEMA_V1: (),
    SCHEMA_V2: (EXPLAIN_NAME, CARD_NAME),
    BUNDLE_SCHEMA: (*GRAPHS_BY_REFERENCE, EXPLAIN_NAME, CARD_NAME),
}

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_CARD_BYTES = 256 * 1024
MAX_MODEL_BYTES = 2 * 1024**3  # the limit of a protobuf message

_HASHED_KEYS = (
    "pipeline_version", "is_synthetic", "labels", "method", "embedding_size", "gem_p",
    "feature_set_version", "feature_names", "scaler",
)  # fmt: skip


def bundle_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 (hex) over the canonical JSON of what changes an embedding, and of nothing else."""
    hashed = {key: manifest[key] for key in _HASHED_KEYS}
    hashed["schema"] = SCHEMA_V1  # the same models have the same hash in every version
    hashed["files"] = {name: manifest["files"][name] for name in MODEL_FILES}
    text = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
