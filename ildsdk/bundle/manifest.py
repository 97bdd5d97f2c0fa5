"""Reading and checking ``manifest.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from ildsdk._version import __version__
from ildsdk.bundle.layout import (
    BACKBONE_INT8_NAME,
    BACKBONE_INT8_SYMMETRIC_NAME,
    BUNDLE_SCHEMA,
    CARD_NAME,
    EXPLAIN_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MODEL_FILES,
    OPTIONAL_FILES,
    PIPELINE_VERSION,
    StoredPrecision,
    bundle_hash,
)
from ildsdk.errors import ModelError
from ildsdk.radiomics.names import FEATURE_NAMES, FEATURE_SET_VERSION
from ildsdk.radiomics.scaler import FeatureScaler
from ildsdk.settings import MethodSettings, settings_from_mapping


def read_manifest(folder: Path) -> dict[str, Any]:
    """Parsed manifest of a bundle of a version that this ildsdk reads.

    Raises
    ------
    ModelError
        No bundle, not JSON, too long, or of another schema or version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ModelError(
            f"{folder.name!r} is not a model bundle: it has no {MANIFEST_NAME}; expected a folder "
            "written by `python -m export bundle`"
        )
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ModelError(f"bundle manifest cannot be read: {error.strerror}") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise ModelError(f"bundle manifest has more than {MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"bundle manifest is not JSON: {error}") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if not isinstance(schema, str) or schema not in OPTIONAL_FILES:
        family, _, version = str(schema).partition("/")
        if family == BUNDLE_SCHEMA.partition("/")[0] and version.isdigit():
            raise ModelError(
                f"bundle has schema {schema!r}, this ildsdk {__version__} reads {BUNDLE_SCHEMA!r}; "
                "update ildsdk or take a bundle made for this version"
            )
        raise ModelError(f"bundle manifest has schema {schema!r}, expected {BUNDLE_SCHEMA!r}")
    return manifest  # type: ignore[no-any-return]


def fields_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Fields of a :class:`ildsdk.bundle.Bundle` but its folder, checked against each other.

    Raises
    ------
    ModelError
        Parts that do not fit together or do not fit this ildsdk.
    KeyError, TypeError, ValueError, AttributeError, IldError
        A key is missing or has a value of another kind.
    """
    feature_names = tuple(manifest["feature_names"])
    if manifest["feature_set_version"] != FEATURE_SET_VERSION or feature_names != FEATURE_NAMES:
        raise ModelError(
            f"bundle was trained on feature set {manifest['feature_set_version']!r} with "
            f"{len(feature_names)} features, this ildsdk computes {FEATURE_SET_VERSION!r} with "
            f"{len(FEATURE_NAMES)}"
        )
    scaler = FeatureScaler.from_dict(manifest["scaler"])
    if scaler.mean.shape != (len(feature_names),):
        raise ModelError(
            f"bundle scaler has {scaler.mean.size} values for {len(feature_names)} features"
        )
    checksums = _checksums(manifest)
    if manifest["pipeline_version"] != PIPELINE_VERSION:
        raise ModelError(
            f"bundle was trained with slice preparation {manifest['pipeline_version']!r}, this "
            f"ildsdk prepares slices by {PIPELINE_VERSION!r}; take a bundle made for this version"
        )
    embedding_size = manifest["embedding_size"]
    if not isinstance(embedding_size, int) or not 2 <= embedding_size <= 4096:
        raise ModelError(f"bundle embedding_size is {embedding_size!r}, expected 2 to 4096")
    method = settings_from_mapping(MethodSettings, manifest["method"])
    labels = tuple(str(label) for label in manifest["labels"])
    found_hash = bundle_hash(manifest)
    if manifest["bundle_hash"] != found_hash:
        raise ModelError(
            f"bundle manifest says hash {str(manifest['bundle_hash'])[:12]}, its contents give "
            f"{found_hash[:12]}: the manifest was changed after it was made"
        )
    return {
        "name": str(manifest["name"]),
        "bundle_hash": found_hash,
        "method": method,
        "scaler": scaler,
        "feature_names": feature_names,
        "labels": labels,
        "embedding_size": embedding_size,
        "gem_p": float(manifest["gem_p"]),
        "is_synthetic": bool(manifest["is_synthetic"]),
        "provenance": dict(manifest["provenance"]),
        "figures": dict(manifest["figures"]),
        "license": str(manifest["license"]),
        "intended_use": str(manifest["intended_use"]),
        "explain_sha256": checksums.get(EXPLAIN_NAME),
        "has_model_card": CARD_NAME in checksums,
        "checksums": checksums,
        **_precision(manifest, set(checksums)),
    }


def _checksums(manifest: dict[str, Any]) -> dict[str, str]:
    optional = OPTIONAL_FILES[manifest["schema"]]
    listed = set(manifest["files"])
    if not set(MODEL_FILES) <= listed <= {*MODEL_FILES, *optional}:
        more = f" and optionally {sorted(optional)}" if optional else ""
        raise ModelError(
            f"bundle lists files {sorted(listed)}, expected {sorted(MODEL_FILES)}{more}"
        )
    for name, file in manifest["files"].items():
        if set(file) != {"bytes", "sha256"}:
            raise ModelError(f"bundle file {name} is described by {sorted(file)}")
    return {name: str(file["sha256"]) for name, file in manifest["files"].items()}


def _precision(manifest: dict[str, Any], files: set[str]) -> dict[str, Any]:
    if manifest["schema"] != BUNDLE_SCHEMA:
        return {"default_precision": "fp32", "int8_agreement": None}
    has_int8, has_symmetric = (
        name in files for name in (BACKBONE_INT8_NAME, BACKBONE_INT8_SYMMETRIC_NAME)
    )
    default, agreement = manifest["default_precision"], manifest["int8_agreement"]
    if default not in get_args(StoredPrecision):
        raise ModelError(
            f"bundle default_precision is {default!r}, expected one of "
            f"{', '.join(get_args(StoredPrecision))}"
        )
    if default == "int8" and not has_int8:
        raise ModelError(f"bundle default_precision is 'int8', but it has no {BACKBONE_INT8_NAME}")
    if has_int8 != (agreement is not None):
        raise ModelError(
            f"bundle has {BACKBONE_INT8_NAME} without its int8_agreement, or the other way round"
        )
    if has_symmetric != ((agreement or {}).get("symmetric") is not None):
        raise ModelError(
            f"bundle has {BACKBONE_INT8_SYMMETRIC_NAME} without its agreement (int8_agreement, "
            "symmetric), or the other way round"
        )
    return {
        "default_precision": default,
        "int8_agreement": None if agreement is None else dict(agreement),
    }
