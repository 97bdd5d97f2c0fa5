"""Reads an experiment, measures, draws and writes the report."""

from __future__ import annotations

import dataclasses
import datetime
import time
from pathlib import Path
from typing import Any

from export.provenance import git_commit
from export.reporting.conclusions import conclusions
from export.reporting.embedding_map import embedding_picture
from export.reporting.figures import (
    all_sums,
    baseline_figures,
    comparison_figures,
    system_figures,
)
from export.reporting.gallery import RULE, GalleryRow, gallery_picture, pick
from export.reporting.html import html
from export.reporting.markdown import markdown
from export.reporting.outcomes import SystemOutcome, system_outcome
from export.reporting.pictures import confusion_picture, interval_picture, precision_picture
from export.reporting.provenance import (
    training_seconds,
    versions,
    without_folders,
)
from export.reporting.published import MAIN_SYSTEM, PUBLISHED
from export.reporting.reading import Experiment, read_experiment
from export.reporting.search_loss import N_LSH_SEEDS
from export.reporting.sections import (
    CONFUSION,
    CURVES,
    GALLERY,
    INTERVALS,
    MAP,
    PICTURES,
    build_document,
    data_name,
)
from export.whole_files import without_nan, write_json, write_whole

SCHEMA = "export.report/1"
PICTURES_FOLDER = "pictures"


def write_report(
    work: Path,
    out: Path | None = None,
    *,
    top_n: int = 10,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Write ``report.md``, ``report.html``, ``results.json`` and the pictures of an experiment.

    Parameters
    ----------
    work : Path
        The experiment's folder: ``experiment.json``, ``folds.json``, ``prepared/`` and
        ``fold-N/<system>/`` with ``vectors.npy`` and ``result.json``. Systems and folds without
        both files are reported as missing.
    out : Path, optional
        Folder of the report; ``work/report`` by default.
    top_n : int
        Neighbors of precision@n, recall@n and nDCG@n, at least 5 (the gallery shows five).
    n_bootstrap : int
        Samples of cases behind each interval.
    seed : int
        Of the samples, the slices of Table 3, the map and the gallery.

    Returns
    -------
    dict
        What ``results.json`` holds: every figure, None where one does not exist.

    Raises
    ------
    ConfigError
        The folder is no finished experiment, is damaged, or the report cannot be written.
    ValueError
        ``top_n`` below 5 or ``n_bootstrap`` below 1.
    RuntimeError
        The certified exact search differs from brute force.
    """
    if top_n < 5:
        raise ValueError(f"top_n is {top_n}, expected at least 5")
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap is {n_bootstrap}, expected at least 1")
    started = time.monotonic()
    experiment = read_experiment(work)
    outcomes = {
        name: system_outcome(
            experiment, name, top_n=top_n, seed=seed, lsh_seeds=range(seed, seed + N_LSH_SEEDS)
        )
        for name in experiment.systems
    }
    rows = pick(experiment, _shown_outcome(outcomes), seed)
    results = without_nan(
        _figures(experiment, outcomes, rows, top_n=top_n, n_bootstrap=n_bootstrap, seed=seed)
    )
    pictures = _draw(experiment, results, rows, seed)
    results["made"] = {
        "command": f"python -m export report {work.name} --top-n {top_n} "
        f"--bootstrap {n_bootstrap} --seed {seed}",
        "written_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "git_commit": git_commit() or "unknown (not a git checkout)",
        "versions": versions(),
        "training_seconds": training_seconds(experiment),
    }
    _write(work / "report" if out is None else out, results, pictures)
    return results


def _shown_outcome(outcomes: dict[str, SystemOutcome]) -> SystemOutcome:
    """The system of the gallery: the main one, or the last of the tables that has a result."""
    return outcomes[MAIN_SYSTEM if MAIN_SYSTEM in outcomes else list(outcomes)[-1]]


def _figures(
    experiment: Experiment,
    outcomes: dict[str, SystemOutcome],
    rows: list[GalleryRow],
    *,
    top_n: int,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    sums = all_sums(outcomes)
    comparison = comparison_figures(sums, n_bootstrap=n_bootstrap, seed=seed)
    widest = max(outcomes.values(), key=lambda outcome: len(outcome.cases))
    slices = experiment.slices
    return {
        "schema": SCHEMA,
        "is_synthetic": experiment.is_synthetic,
        "data": data_name(experiment.is_synthetic),
        "labels": list(slices.label_names),
        "n_prepared_slices": len(slices),
        "n_prepared_cases": len(experiment.class_of_case),
        "n_query_slices": int(widest.truth.size),
        "n_query_cases": len(widest.cases),
        "n_folds": len(experiment.folds),
        "missing": experiment.missing(),
        "cases_never_queried": experiment.cases_never_queried(),
        "settings": {
            "top_n": top_n,
            "n_bootstrap": n_bootstrap,
            "seed": seed,
            "n_hyperplane_seeds": N_LSH_SEEDS,
        },
        "systems": {
            name: system_figures(outcome, sums[name], n_bootstrap=n_bootstrap, seed=seed)
            for name, outcome in outcomes.items()
        },
        "baseline": baseline_figures(widest),
        "comparison": comparison,
        "conclusions": conclusions(comparison, n_bootstrap),
        "published_on_other_data": {
            name: dataclasses.asdict(row) for name, row in PUBLISHED.items()
        },
        "gallery": {
            "system": _shown_outcome(outcomes).name,
            "rule": RULE,
            "rows": [_gallery_entry(experiment, row) for row in rows],
        },
        "embedding_map_fold": _map_fold(experiment),
        "experiment": without_folders(experiment.settings),
    }


def _gallery_entry(experiment: Experiment, row: GalleryRow) -> dict[str, Any]:
    slices = experiment.slices

    def named(number: int) -> dict[str, Any]:
        return {
            "slice": number,
            "case_id": slices.case_ids[number],
            "label": slices.labels[number],
        }

    return {
        "fold": row.fold,
        "query": named(row.query),
        "neighbors": [
            {
                **named(number),
                "score": score,
                "is_right": slices.labels[number] == slices.labels[row.query],
            }
            for number, score in zip(row.neighbors, row.scores, strict=True)
        ],
    }


def _map_fold(experiment: Experiment) -> int:
    """The first of the folds that most systems have."""
    folds = range(len(experiment.folds))
    return max(folds, key=lambda fold: sum(key[1] == fold for key in experiment.results))


def _draw(
    experiment: Experiment, results: dict[str, Any], rows: list[GalleryRow], seed: int
) -> dict[str, bytes]:
    data = "phantom" if experiment.is_synthetic else "the user's archive"
    systems, baseline = results["systems"], results["baseline"]
    drawn = {
        INTERVALS: interval_picture(systems, results["comparison"], baseline, data),
        CONFUSION: confusion_picture(systems, results["labels"], data),
        CURVES: precision_picture(systems, baseline, data),
        MAP: embedding_picture(experiment, results["embedding_map_fold"], seed, data),
        GALLERY: gallery_picture(experiment, rows, results["gallery"]["system"], data),
    }
    return {name: content for name, content in drawn.items() if content is not None}


def _write(out: Path, results: dict[str, Any], pictures: dict[str, bytes]) -> None:
    folder = out / PICTURES_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    document = build_document(results, pictures)
    for name in PICTURES:
        if name in pictures:
            write_whole(folder / name, pictures[name])
        else:
            (folder / name).unlink(missing_ok=True)  # of an earlier report
    texts = {
        "report.md": markdown(document, PICTURES_FOLDER),
        "report.html": html(document, pictures),
    }
    write_json(out / "results.json", results)
    for name, text in texts.items():
        write_whole(out / name, text.encode("utf-8", errors="replace"))
