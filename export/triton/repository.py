"""A bundle as a Triton model repository: all of it or nothing, and never over something."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from export.triton.configs import (
    BACKBONE,
    BACKBONE_FILE,
    BACKBONE_INT8_FILE,
    CUDA,
    ENSEMBLE,
    FUSION,
    FUSION_FILE,
    TritonSettings,
    backbone_configs,
    ensemble_config,
    fusion_configs,
)
from export.triton.pbtxt import Message, to_text
from export.triton.readme import readme
from export.triton.tensors import Graph
from ildsdk._version import __version__
from ildsdk.bundle import Bundle
from ildsdk.errors import ConfigError, ModelError

REPOSITORY_SCHEMA = "ildsdk.triton/1"
MODELS_NAME, MODEL_JSON_NAME, README_NAME = "models", "model.json", "README.md"


def write_repository(
    out: Path,
    bundle: Bundle,
    settings: TritonSettings,
    *,
    version: int = 1,
    with_int8: bool = False,
) -> Path:
    """Write a bundle as a model repository.

    Parameters
    ----------
    out : Path
        Folder that does not exist yet: ``models/`` for ``tritonserver --model-repository``,
        ``model.json`` with what a client must know (scaler, feature names, window), README.
    bundle : Bundle
    settings : TritonSettings
    version : int
        Number of the version folders.
    with_int8 : bool
        Also the 8-bit backbone, for CPUs; its file and the one it takes its weights from lie
        in one folder.

    Returns
    -------
    Path
        The models folder.

    Raises
    ------
    ConfigError
        The folder exists, or the bundle has no 8-bit backbone.
    ModelError
        The graphs do not fit each other or the bundle, or nothing can be written there.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(
            f"{out.name!r} exists already; repositories are not overwritten, name another folder"
        )
    if with_int8 and bundle.backbone_int8 is None:
        raise ConfigError(
            f"bundle {bundle.name!r} has no 8-bit network (backbone-int8.onnx); leave --int8 out"
        )
    backbone, fusion = Graph.read(bundle.backbone), Graph.read(bundle.fusion)
    _check(bundle, backbone, fusion)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Renamed out of a temporary folder that goes away whatever happens.
        with tempfile.TemporaryDirectory(prefix=".triton-", dir=out.parent) as parent:
            draft = Path(parent) / "repository"
            _write(draft, bundle, backbone, fusion, settings, version, with_int8)
            draft.rename(out)
    except OSError as error:
        raise ModelError(f"repository {out.name!r} cannot be written: {error.strerror}") from error
    return out / MODELS_NAME


def _write(
    draft: Path,
    bundle: Bundle,
    backbone: Graph,
    fusion: Graph,
    settings: TritonSettings,
    version: int,
    with_int8: bool,
) -> None:
    models = draft / MODELS_NAME
    files = {BACKBONE_FILE: bundle.backbone}
    if with_int8 and bundle.backbone_int8 is not None:
        files[BACKBONE_INT8_FILE] = bundle.backbone_int8
    own_engines = dataclasses.replace(
        settings, engine_folder=f"{settings.engine_folder}/{bundle.bundle_hash[:12]}"
    )
    _write_model(
        models / BACKBONE, version, files,
        backbone_configs(backbone, own_engines, has_int8=with_int8),
    )  # fmt: skip
    _write_model(
        models / FUSION, version, {FUSION_FILE: bundle.fusion}, fusion_configs(fusion, settings)
    )
    _write_model(
        models / ENSEMBLE, version, {}, {CUDA: ensemble_config(backbone, fusion, settings)}
    )
    facts = _facts(bundle, backbone, fusion, version)
    (draft / MODEL_JSON_NAME).write_text(
        json.dumps(facts, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    (draft / README_NAME).write_text(readme(facts, settings, with_int8), encoding="utf-8")


def _write_model(
    folder: Path, version: int, files: dict[str, Path], configs: dict[str, Message]
) -> None:
    """A model's folder; the version folder of an ensemble stays empty, as Triton wants it."""
    (folder / str(version)).mkdir(parents=True)
    for name, source in files.items():
        shutil.copyfile(source, folder / str(version) / name)
    for variant, config in configs.items():
        path = folder / "config.pbtxt"
        if variant != CUDA:
            path = folder / "configs" / f"{variant}.pbtxt"
            path.parent.mkdir(exist_ok=True)
        path.write_text(to_text(config), encoding="utf-8")


def _check(bundle: Bundle, backbone: Graph, fusion: Graph) -> None:
    size = bundle.method.input_size
    passed = backbone.outputs.get("deep_features")
    facts = {
        "backbone.onnx takes image (1, S, S)": {
            name: tensor.dims for name, tensor in backbone.inputs.items()
        }
        == {"image": (1, size, size)},
        "backbone.onnx gives what fusion.onnx takes": passed is not None
        and fusion.inputs.get("deep_features") == passed,
        "fusion.onnx takes the bundle's features": set(fusion.inputs)
        == {"deep_features", "radiomics"}
        and fusion.inputs["radiomics"].dims == (len(bundle.feature_names),),
        "fusion.onnx gives the embedding": {
            name: tensor.dims for name, tensor in fusion.outputs.items()
        }
        == {"embedding": (bundle.embedding_size,)},
    }
    wrong = [fact for fact, holds in facts.items() if not holds]
    if wrong:
        raise ModelError(f"bundle {bundle.name!r} fits no repository: not so that {wrong[0]}")


def _facts(bundle: Bundle, backbone: Graph, fusion: Graph, version: int) -> dict[str, Any]:
    """What a client must know to prepare an input and to read the answer."""
    method = bundle.method
    return {
        "schema": REPOSITORY_SCHEMA,
        "created_with": f"ildsdk {__version__}",
        "name": bundle.name,
        "bundle_hash": bundle.bundle_hash,
        "version": version,
        "is_synthetic": bundle.is_synthetic,
        "license": bundle.license,
        "intended_use": bundle.intended_use,
        "labels": list(bundle.labels),
        "inputs": {
            tensor.name: [tensor.data_type, *tensor.dims]
            for tensor in (*backbone.inputs.values(), fusion.inputs["radiomics"])
        },
        "outputs": {
            tensor.name: [tensor.data_type, *tensor.dims] for tensor in fusion.outputs.values()
        },
        "window_center_hu": method.window_center_hu,
        "window_width_hu": method.window_width_hu,
        "crop_margin": method.crop_margin,
        "min_lung_area_mm2": method.min_lung_area_mm2,
        "feature_names": list(bundle.feature_names),
        "scaler": bundle.scaler.to_dict(),
        "files_sha256": {
            path.name: bundle.checksums[path.name] for path in (bundle.backbone, bundle.fusion)
        },
    }
