"""Assembling a bundle folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ildsdk._version import __version__
from ildsdk.bundle.layout import (
    BACKBONE_INT8_NAME,
    BACKBONE_INT8_SYMMETRIC_NAME,
    BUNDLE_SCHEMA,
    CARD_NAME,
    EXPLAIN_NAME,
    MANIFEST_NAME,
    MODEL_FILES,
    PIPELINE_VERSION,
    StoredPrecision,
    bundle_hash,
    sha256_of_file,
)
from ildsdk.bundle.record import Bundle
from ildsdk.errors import ModelError
from ildsdk.radiomics.names import FEATURE_NAMES, FEATURE_SET_VERSION
from ildsdk.radiomics.scaler import FeatureScaler
from ildsdk.settings import MethodSettings


def write_bundle(
    folder: str | Path,
    *,
    name: str,
    method: MethodSettings,
    backbone: str | Path,
    fusion: str | Path,
    scaler: FeatureScaler,
    labels: Sequence[str],
    embedding_size: int,
    gem_p: float,
    is_synthetic: bool,
    provenance: Mapping[str, Any],
    figures: Mapping[str, Any],
    license: str,
    intended_use: str,
    backbone_int8: str | Path | None = None,
    backbone_int8_symmetric: str | Path | None = None,
    default_precision: StoredPrecision = "fp32",
    int8_agreement: Mapping[str, Any] | None = None,
    explain: str | Path | None = None,
    model_card: str | None = None,
) -> Bundle:
    """Assemble a bundle folder from its parts and open it, which checks it.

    The folder must not exist yet: a bundle is never changed in place. It is put together
    beside its final place and renamed, so a failure leaves nothing half-written.

    Parameters
    ----------
    backbone, fusion : path
        ONNX files as in docs/bundle-format.md; all parameters not named here are attributes
        of :class:`Bundle`.
    backbone_int8 : path, optional
        ONNX file with the inputs and outputs of the backbone, whose external data lie in
        ``backbone.onnx``; needs ``int8_agreement``.
    backbone_int8_symmetric : path, optional
        The same for TensorRT; needs ``int8_agreement["symmetric"]``.
    explain : path, optional
        ONNX file of activation maps; then the backbone has the output ``feature_map`` too.
    model_card : str, optional
        Markdown.

    Raises
    ------
    ModelError
        The folder exists, or the parts do not fit together.
    """
    folder = Path(folder)
    if folder.exists():
        raise ModelError(
            f"bundle folder {folder.name!r} exists already; bundles are not overwritten"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Renamed out of a temporary folder that goes away whatever happens.
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=folder.parent) as parent:
        draft = Path(parent) / "bundle"
        draft.mkdir()
        sources = dict(zip(MODEL_FILES, (backbone, fusion), strict=True))
        more = {
            BACKBONE_INT8_NAME: backbone_int8,
            BACKBONE_INT8_SYMMETRIC_NAME: backbone_int8_symmetric,
            EXPLAIN_NAME: explain,
        }
        sources |= {key: source for key, source in more.items() if source is not None}
        for file_name, source in sources.items():
            shutil.copyfile(source, draft / file_name)
        if model_card is not None:
            (draft / CARD_NAME).write_text(model_card, encoding="utf-8", newline="\n")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
            for path in sorted(draft.iterdir())
        }
        manifest: dict[str, Any] = {
            "schema": BUNDLE_SCHEMA,
            "pipeline_version": PIPELINE_VERSION,
            "name": name,
            "bundle_hash": "",
            "created_with": f"ildsdk {__version__}",
            "is_synthetic": is_synthetic,
            "license": license,
            "intended_use": intended_use,
            "labels": list(labels),
            "method": dataclasses.asdict(method),
            "embedding_size": embedding_size,
            "gem_p": gem_p,
            "feature_set_version": FEATURE_SET_VERSION,
            "feature_names": list(FEATURE_NAMES),
            "scaler": scaler.to_dict(),
            "files": files,
            "default_precision": default_precision,
            "int8_agreement": None if int8_agreement is None else dict(int8_agreement),
            "figures": dict(figures),
            "provenance": dict(provenance),
        }
        manifest["bundle_hash"] = bundle_hash(manifest)
        (draft / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
        Bundle.open(draft)
        draft.rename(folder)
    return Bundle.open(folder)
