"""From a trained model to a checked bundle folder and to an index built with it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from export.dataset import SliceSet
from export.whole_files import write_json
from ildsdk.errors import ConfigError
from ildsdk.settings import MethodSettings


def export_trained(
    slices: SliceSet,
    trained: Any,
    out: Path,
    *,
    compress: bool = True,
    n_check: int = 24,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Export a trained model to ONNX, checked on slices of the held-out cases.

    Raises
    ------
    ConfigError
        The prepared set is not the one the model was trained on.
    ModelError
        The exported graphs differ from the trained networks.
    """
    from export.provenance import data_hash, model_hash
    from export.to_onnx import export_models

    require_training_set(slices, trained)
    rows = slices.rows_of(trained.held_out_cases)
    rows = rows[np.linspace(0, rows.size - 1, min(n_check, rows.size)).astype(int)]
    identity = model_hash(trained, slices.method)
    report = export_models(
        trained.backbone,
        trained.fusion,
        out,
        images=slices.images[rows].astype(np.float32),
        radiomics=trained.scaler.transform(slices.radiomics[rows]),
        compress=compress,
        metadata={"model_hash": identity},
        say=say,
    )
    paths = (report.backbone, report.fusion, report.explain)
    about = {
        "model_hash": identity,
        "data_sha256": data_hash(slices),
        "parity": [dataclasses.asdict(parity) for parity in report.parity],
        "compressed_cosine_min": report.compressed_cosine_min,
        "compressed_cosine_mean": report.compressed_cosine_mean,
        "n_slices_checked": int(rows.size),
        "bytes": {path.name: path.stat().st_size for path in paths},
    }
    write_json(out / "export.json", about)  # last: its presence says that the graphs are there


def require_training_set(slices: SliceSet, trained: Any) -> None:
    """Require the prepared set that a model was trained on.

    Raises
    ------
    ConfigError
        Radiomics, input size, window or another setting of the method differ.
    """
    description = trained.description
    found = {
        "radiomics": hashlib.sha256(slices.radiomics.tobytes()).hexdigest(),
        "method": dataclasses.asdict(slices.method),
    }
    expected = {
        "radiomics": description.get("radiomics_sha256"),
        "method": description.get("method"),
    }
    if changed := [name for name in found if found[name] != expected[name]]:
        raise ConfigError(
            f"the prepared set is not the one that this model was trained on "
            f"({' and '.join(changed)} differ); give the folder that was given to train"
        )


def assemble_bundle(
    folder: Path,
    name: str,
    trained: Any,
    onnx_folder: Path,
    evaluation: Path,
    method: MethodSettings,
    *,
    is_synthetic: bool,
    license: str,
    intended_use: str,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write the bundle folder from the exported graphs, their checks and their evaluation.

    Parameters
    ----------
    data : mapping or None
        How the training archive was made, for provenance and model card; None: not known.

    Raises
    ------
    ConfigError
        ONNX files or evaluation are of another model.
    ModelError
        The folder exists, or the parts do not fit together.
    """
    from export.model_card import model_card
    from export.provenance import git_commit, model_hash, versions
    from export.to_onnx import BACKBONE_NAME, EXPLAIN_NAME, FUSION_NAME
    from ildsdk.bundle import write_bundle

    exported = json.loads((onnx_folder / "export.json").read_text(encoding="utf-8"))
    figures = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))
    identity = model_hash(trained, method)
    for what, theirs in (("ONNX files", exported), ("evaluation", figures)):
        if theirs.get("model_hash") != identity:
            raise ConfigError(
                f"the {what} belong to model {str(theirs.get('model_hash'))[:12]}, the training "
                f"folder holds model {identity[:12]}; export and evaluate this one first"
            )
    about: dict[str, Any] = {
        "name": name,
        "license": license,
        "intended_use": intended_use,
        "is_synthetic": is_synthetic,
        "labels": trained.label_names,
        "method": method,
        "embedding_size": trained.fusion.linear.out_features,
        "gem_p": trained.backbone.gem.p,
        "figures": figures,
        # training: configuration (settings, augmentation, method), cases and log.
        "provenance": {
            "training": trained.description,
            "seed": trained.description["settings"]["seed"],
            "model_hash": exported.pop("model_hash"),
            "data_sha256": exported.pop("data_sha256"),
            "data": dict(data) if data else None,
            "export": exported,
            "git_commit": git_commit(),
            "versions": versions(),
        },
    }
    write_bundle(
        folder,
        backbone=onnx_folder / BACKBONE_NAME,
        fusion=onnx_folder / FUSION_NAME,
        explain=onnx_folder / EXPLAIN_NAME,
        model_card=model_card(**about),
        scaler=trained.scaler,
        **about,
    )


def build_index_from_cases(
    out: Path,
    cases_csv: Path,
    case_ids: list[str],
    bundle_folder: Path,
    calibration: tuple[float, str],
    show_progress: bool,
) -> None:
    """Index the named cases of an archive with the SDK's own index build."""
    from ildsdk.bundle import Bundle
    from ildsdk.ingest import build_index, read_cases_csv

    wanted = set(case_ids)
    cases = [case for case in read_cases_csv(cases_csv) if case.case_id in wanted]
    with tqdm(total=len(cases), desc="index", unit="case", disable=not show_progress) as bar:
        build_index(
            out,
            cases,
            Bundle.open(bundle_folder),
            name="phantom-default",
            calibration=calibration,
            is_synthetic=True,
            progress=lambda done, total: bar.update(done - bar.n) and None,
        )
