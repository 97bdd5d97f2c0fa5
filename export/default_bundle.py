"""The embedded default bundle and index, from nothing: phantom CT to evaluated, indexed bundle.

Stages, each with its own folder in the work folder and skipped when that is complete:
archive -> prepared -> training -> onnx -> evaluation -> bundle -> index.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from export.dataset import SliceSet, load_slice_set
from export.train_settings import TrainSettings
from ildsdk.errors import ConfigError
from ildsdk.settings import MethodSettings

INTENDED_USE = (
    "Trying and testing the ildsdk software. Trained on computer-made phantoms only: its answers "
    "say nothing about any real patient and must not be used for diagnosis or any clinical "
    "decision."
)
_SETTINGS_NAME = "default-bundle.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DefaultBundleSettings:
    """What the default bundle is made of.

    Attributes
    ----------
    n_cases_per_label : int
        Phantom cases of each class, held-out ones included.
    n_held_out_per_label : int
        Of these, cases of each class kept out of training and index.
    phantom_seed : int
        Seed of the first case of each class.
    phantom_size : int
        Rows and columns of a phantom slice.
    difficulty : float
        0 to 1, see ``export.phantom``.
    n_index_cases_per_label : int or None
        Training cases of each class in the index; None takes all.
    """

    n_cases_per_label: int = 24
    n_held_out_per_label: int = 6
    phantom_seed: int = 1000
    phantom_size: int = 512
    difficulty: float = 0.5
    n_index_cases_per_label: int | None = None
    method: MethodSettings = dataclasses.field(
        default_factory=lambda: MethodSettings(input_size=160)
    )
    training: TrainSettings = dataclasses.field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        if not 1 <= self.n_held_out_per_label <= self.n_cases_per_label - 2:
            raise ConfigError(
                f"n_held_out_per_label is {self.n_held_out_per_label}, expected 1 to "
                f"{self.n_cases_per_label - 2} of {self.n_cases_per_label} cases"
            )


def make_default_bundle(
    work: Path,
    settings: DefaultBundleSettings,
    *,
    name: str = "phantom-default",
    n_processes: int = 2,
    say: Callable[[str], None] = lambda line: None,
    show_progress: bool = True,
) -> Path:
    """Run every stage that is not complete; returns the bundle folder (index beside it).

    Raises
    ------
    ConfigError
        The work folder was begun with other settings.
    ModelError
        The exported graphs differ from the trained networks.
    """
    # Imported here: torch takes a second, and `--help` should not.
    from export.evaluate import evaluate
    from export.train import MODEL_NAME, load_trained, train

    _check_settings(work, settings)
    archive = work / "archive"
    if not (archive / "cases.csv").exists():
        say("phantom archive")
        make_archive(archive, settings, n_processes, show_progress)
    prepared = work / "prepared"
    if not (prepared / "table.json").exists():
        say("prepare")
        from export.prepare import archive_sources, prepare

        prepare(
            archive_sources(archive / "cases.csv"), prepared, settings.method,
            n_processes=n_processes, show_progress=show_progress,
        )  # fmt: skip
    slices = load_slice_set(prepared)
    if not (work / "training" / MODEL_NAME).exists():
        say("train")
        train(
            slices, work / "training", settings.training,
            test_share=settings.n_held_out_per_label / settings.n_cases_per_label,
            show_progress=show_progress,
        )  # fmt: skip
    trained = load_trained(work / "training" / MODEL_NAME)
    onnx_folder = work / "onnx"
    if not (onnx_folder / "export.json").exists():
        say("export to ONNX")
        export_trained(slices, trained, onnx_folder, say=say)
    evaluation = work / "evaluation"
    if not (evaluation / "evaluation.md").exists():
        say("evaluate")
        evaluate(
            slices, trained, onnx_folder, evaluation, is_synthetic=True,
            n_threads=settings.training.n_threads, show_progress=show_progress,
        )  # fmt: skip
    bundle_folder = work / "bundle"
    if not bundle_folder.exists():
        say("bundle")
        assemble_bundle(
            bundle_folder, name, trained, onnx_folder, evaluation, settings.method,
            is_synthetic=True, license="Apache-2.0", intended_use=INTENDED_USE,
        )  # fmt: skip
    if not (work / "index").exists():
        say("index")
        index_cases = _index_cases(trained.train_cases, archive, settings.n_index_cases_per_label)
        build_index_from_cases(
            work / "index", archive / "cases.csv", index_cases, bundle_folder,
            _held_out_calibration(evaluation), show_progress,
        )  # fmt: skip
    return bundle_folder


def make_archive(
    archive: Path, settings: DefaultBundleSettings, n_processes: int, show_progress: bool
) -> None:
    """Write the phantom DICOM archive with its ``cases.csv``."""
    from export.phantom import PhantomSettings, write_archive

    with tqdm(total=0, desc="phantom", unit="case", disable=not show_progress) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write_archive(
            archive,
            settings.n_cases_per_label,
            seed=settings.phantom_seed,
            settings=PhantomSettings(size=settings.phantom_size, difficulty=settings.difficulty),
            n_workers=n_processes,
            progress=progress,
        )


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

    radiomics_sha256 = hashlib.sha256(slices.radiomics.tobytes()).hexdigest()
    if trained.description.get("radiomics_sha256") != radiomics_sha256:
        raise ConfigError(
            "the prepared set is not the one that this model was trained on (its radiomics "
            "differ); export with the folder that was given to train"
        )
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
    (out / "export.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


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
    """
    from export.model_card import model_card
    from export.provenance import git_commit, versions
    from export.to_onnx import BACKBONE_NAME, EXPLAIN_NAME, FUSION_NAME
    from ildsdk.bundle import write_bundle

    exported = json.loads((onnx_folder / "export.json").read_text(encoding="utf-8"))
    figures = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))
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


def _held_out_calibration(evaluation: Path) -> tuple[float, str]:
    """Threshold of "no similar case" measured on the held-out cases.

    The indexed cases were trained on: left out one at a time they still resemble each other
    more than a new case does.
    """
    figures = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))
    threshold = float(figures["systems"]["fusion"]["no_match_threshold"])
    return threshold, "percentile 1 of best scores of held-out cases"


def _index_cases(train_cases: tuple[str, ...], archive: Path, n_per_label: int | None) -> list[str]:
    from ildsdk.ingest import read_cases_csv

    known = set(train_cases)
    by_label: dict[str, list[str]] = {}
    for case in read_cases_csv(archive / "cases.csv"):
        if case.case_id in known:
            by_label.setdefault(case.label, []).append(case.case_id)
    return [case for cases in by_label.values() for case in sorted(cases)[:n_per_label]]


def _check_settings(work: Path, settings: DefaultBundleSettings) -> None:
    work.mkdir(parents=True, exist_ok=True)
    path = work / _SETTINGS_NAME
    ours = json.loads(json.dumps(dataclasses.asdict(settings)))
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(key for key in ours if ours[key] != theirs.get(key))
        if changed:
            raise ConfigError(
                f"work folder {work.name!r} was begun with other settings ({', '.join(changed)}); "
                "use another --work folder or delete it"
            )
    else:
        path.write_text(json.dumps(ours, indent=1) + "\n", encoding="utf-8")
