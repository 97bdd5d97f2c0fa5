"""A work folder as an experiment leaves it, small and made up."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from export.dataset import SCHEMA
from export.reporting.published import MAIN_SYSTEM
from ildsdk.settings import MethodSettings

LABELS = ("A|x", "B<b>")
SIDE = 32
ODD_CASE = "<script>alert(1)</script>|$\\frac$\u202e_x_"


def vectors_of(labels: np.ndarray, cases: np.ndarray, strength: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(cases.max() + 1, 8))[cases]
    found = strength * np.eye(8)[labels] + 0.4 * own + 0.3 * rng.normal(size=(labels.size, 8))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def write_vectors(work: Path, system: str, fold: int, vectors: np.ndarray) -> None:
    folder = work / f"fold-{fold}" / system
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", vectors)
    digest = hashlib.sha256(vectors.tobytes()).hexdigest()
    result = {
        "schema": "export.fold-result/1", "system": system, "fold": fold, "seconds": 1.5,
        "vectors_sha256": digest,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def make_work(
    work: Path,
    strengths: dict[str, float],
    *,
    missing: tuple[tuple[str, int], ...] = (),
    is_synthetic: bool = True,
) -> Path:
    """16 cases of two classes, 4 to 6 slices each, 3 folds; one case has an odd name."""
    rng = np.random.default_rng(0)
    names = [ODD_CASE, *(f"case-{number:02d}" for number in range(1, 16))]
    class_of = [number % 2 for number in range(16)]
    cases = np.repeat(np.arange(16), rng.integers(4, 7, size=16))
    labels = np.array(class_of)[cases]
    prepared = work / "prepared"
    prepared.mkdir(parents=True)
    np.save(prepared / "images.npy", rng.random((cases.size, 1, SIDE, SIDE)).astype(np.float16))
    np.save(prepared / "radiomics.npy", rng.normal(size=(cases.size, 3)))
    table = {
        "schema": SCHEMA,
        "method": dataclasses.asdict(MethodSettings(input_size=SIDE)),
        "cases": {
            name: {"label": LABELS[class_of[number]], "patient_keys": [], "study_keys": []}
            for number, name in enumerate(names)
        },
        "slices": [
            {"case_id": names[case], "position_mm": None, "perceptual_hash": "0"} for case in cases
        ],
    }
    (prepared / "table.json").write_text(json.dumps(table), encoding="utf-8")
    folds = [{"test_cases": names[first:last]} for first, last in ((0, 6), (6, 12), (12, 16))]
    (work / "folds.json").write_text(json.dumps({"schema": "export.folds/1", "folds": folds}))
    settings = {
        "is_synthetic": is_synthetic, "seed": 7, "command": "python -m export experiment tiny.toml",
        "git_commit": "0" * 40,
        "settings": {"epochs": 2, "nested": {"rate": 1e-4, "cases_csv": "/home/somebody/c.csv"}},
    }  # fmt: skip
    (work / "experiment.json").write_text(json.dumps(settings), encoding="utf-8")
    for system, strength in strengths.items():
        for fold in range(3):
            if (system, fold) not in missing:
                write_vectors(work, system, fold, vectors_of(labels, cases, strength, seed=fold))
    return work


STRENGTHS = {"omic": 0.3, MAIN_SYSTEM: 1.5}
