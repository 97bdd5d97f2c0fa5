"""Runs an experiment: prepare, folds, six systems on each fold, report; goes on where it stopped.

Every finished step leaves a file that is written last, so that a killed run repeats at most one
epoch. What is on disk is described in ``docs/experiments.md``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.dataset import SliceSet
from export.experiment.settings import ArchiveData, ExperimentSettings
from export.provenance import git_commit, versions
from export.splits import RESULT_SCHEMA, fold_cases, write_folds
from export.systems import SYSTEMS, System
from export.training_data import data_sha256
from export.whole_files import write_json, write_whole
from ildsdk.errors import ConfigError

EXPERIMENT_SCHEMA = "export.experiment/1"

Say = Callable[[str], None]


def run_experiment(
    settings: ExperimentSettings,
    work: Path,
    *,
    n_processes: int = 2,
    say: Say = lambda line: None,
    show_progress: bool = True,
    command: str = "",
) -> Path:
    """Run every step that is not complete, then write the report.

    Parameters
    ----------
    work : Path
        Folder of this experiment, made if missing.
    n_processes : int
        Of the preparation.
    command : str
        For the report: what was typed.

    Returns
    -------
    Path
        The report (Markdown).

    Raises
    ------
    ConfigError
        The folder was begun with other settings.
    LeakError
        A patient, a study or nearly the same slice stands on both sides of a fold.
    """
    work.mkdir(parents=True, exist_ok=True)
    _check_settings(work, settings, command)
    if settings.initial_weights:
        say("initial weights: check that their license allows what you will do with the models")
    slices = _prepared(work / "prepared", settings, n_processes, say, show_progress)
    say("checking that nothing leaks between training and test cases")
    folds = checked_folds(slices, settings)
    write_folds(work / "folds.json", folds)
    for number, test_cases in enumerate(folds):
        # Row by row of Table 2; what two systems share is trained by the first that needs it.
        for name in settings.systems:
            run_system(
                work / f"fold-{number}", slices, test_cases, SYSTEMS[name], settings,
                fold=number, say=say, show_progress=show_progress,
            )  # fmt: skip
    from export.reporting import write_report

    say("report")
    write_report(
        work,
        top_n=settings.report.top_n,
        n_bootstrap=settings.report.n_bootstrap,
        seed=settings.report.seed,
    )
    return work / "report" / "report.md"


def checked_folds(slices: SliceSet, settings: ExperimentSettings) -> list[list[str]]:
    """Test cases of each fold.

    Raises
    ------
    LeakError
        A patient, a study or nearly the same slice stands on both sides of a fold.
    """
    from export.leaks import check_folds

    folds = fold_cases(
        slices.case_ids, slices.labels, n_folds=settings.folds.n_folds, seed=settings.folds.seed
    )
    check_folds(slices, folds)
    return folds


def run_system(
    folder: Path,
    slices: SliceSet,
    test_cases: list[str],
    system: System,
    settings: ExperimentSettings,
    *,
    fold: int,
    say: Say,
    show_progress: bool,
) -> None:
    """Train one system on one fold and keep the vectors of all slices.

    Its ``result.json`` is written last; where that exists nothing is done.
    """
    from export.train import train_system

    out = folder / system.name
    of_run = {"test_cases": sorted(test_cases), "data_sha256": data_sha256(slices)}
    if (out / "result.json").exists():
        _check_result(out / "result.json", of_run)
        return
    out.mkdir(parents=True, exist_ok=True)
    held_out = set(test_cases)
    train_cases = sorted(set(slices.case_ids) - held_out)
    say(f"fold {fold}: {system.title}")
    weights = settings.initial_weights.get(system.backbone or "")
    trained = train_system(
        slices,
        train_cases,
        system,
        out,
        settings.training_for(system.name),
        classify_folder=folder / f"classify-{system.backbone}",
        maps_path=folder / f"maps-{system.backbone}.npy",
        initial_weights=None if weights is None else Path(weights),
        show_progress=show_progress,
    )
    vectors = trained.embed(slices)
    stream = io.BytesIO()
    np.save(stream, vectors)
    write_whole(out / "vectors.npy", stream.getvalue())
    result = {
        "schema": RESULT_SCHEMA,
        "system": system.name,
        "fold": fold,
        **of_run,
        "n_train_cases": len(train_cases),
        "seconds": epoch_seconds(system, trained.description["log"]),
        "log": trained.description["log"],
        "vectors_sha256": hashlib.sha256(vectors.tobytes()).hexdigest(),
    }
    write_json(out / "result.json", result)


def epoch_seconds(system: System, log: dict[str, list[dict[str, Any]]]) -> float:
    """Wall seconds of a system's own training epochs, over all starts of the run.

    Stage 1 counts for the system that is searched by its features, not again for the heads on it.
    """
    own = log.get("fusion" if system.head != "none" else "backbone", [])
    return round(sum(float(entry["seconds"]) for entry in own), 1)


def _check_result(path: Path, of_run: dict[str, Any]) -> None:
    """Refuse a finished result of other cases or data: it may have learned from these tests."""
    result = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key, value in of_run.items() if result.get(key) != value]
    if changed:
        raise ConfigError(
            f"{path.parent.parent.name}/{path.parent.name} was trained on other data or folds "
            f"({', '.join(changed)} differ); use another --work folder or delete that fold"
        )


def _prepared(
    folder: Path, settings: ExperimentSettings, n_processes: int, say: Say, show_progress: bool
) -> SliceSet:
    from export.prepare import prepare
    from export.sources import archive_sources, phantom_sources

    data = settings.data
    if isinstance(data, ArchiveData):
        sources = archive_sources(Path(data.cases_csv), data.every_mm)
    else:
        sources = phantom_sources(data.cases_per_label, data.seed, data.size, data.difficulty)
    return prepare(
        sources, folder, settings.method,
        n_processes=n_processes, show_progress=show_progress, say=say,
    )  # fmt: skip


def _check_settings(work: Path, settings: ExperimentSettings, command: str) -> None:
    path = work / "experiment.json"
    ours = json.loads(json.dumps(dataclasses.asdict(settings)))
    # The report may be asked for anew, in another way, without training anything again.
    report = ours.pop("report")
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))["settings"]
        # Absent where the folder was begun before the setting came: then nothing was set.
        theirs.setdefault("initial_weights", {})
        changed = sorted(key for key in ours if ours[key] != theirs.get(key))
        if changed:
            raise ConfigError(
                f"work folder {work.name!r} was begun with other settings ({', '.join(changed)}); "
                "use another --work folder or delete it"
            )
        return
    write_json(
        path,
        {
            "schema": EXPERIMENT_SCHEMA,
            "settings": ours,
            "report": report,
            "is_synthetic": settings.is_synthetic,
            "command": command,
            "git_commit": git_commit(),
            "versions": versions(),
        },
    )
