"""Folds by case, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.whole_files import write_json
from ildsdk.errors import ConfigError

FOLDS_SCHEMA = "export.folds/1"
RESULT_SCHEMA = "export.fold-result/1"
"""Of one system's ``result.json`` on one fold."""


def fold_cases(
    case_ids: Sequence[str], labels: Sequence[str], n_folds: int = 5, seed: int = 0
) -> list[list[str]]:
    """Deal the cases of each class to folds (the paper: five folds, 16 : 4 in each class).

    Parameters
    ----------
    case_ids, labels : sequence of str
        One entry per slice (or per case): the case it belongs to and its diagnosis.
    n_folds : int
        2 or more.
    seed : int
        Same seed and cases, same folds, in whatever order the slices come.

    Returns
    -------
    list of list of str
        Test cases of each fold, sorted; the rest of the cases train. Every case is tested exactly
        once, and the folds of a class differ by one case at most, those of the whole set too.

    Raises
    ------
    ConfigError
        A case carries two diagnoses, a class has fewer cases than there are folds, or
        ``n_folds`` is below 2.
    """
    if n_folds < 2:
        raise ConfigError(f"n_folds is {n_folds!r}, expected 2 or more")
    label_of: dict[str, str] = {}
    for case_id, label in zip(case_ids, labels, strict=True):
        if label_of.setdefault(case_id, label) != label:
            raise ConfigError(
                f"case {case_id!r} carries two diagnoses ({label_of[case_id]!r}, {label!r}); "
                "one case has one"
            )
    rng = np.random.default_rng(seed)
    folds: list[list[str]] = [[] for _ in range(n_folds)]
    n_dealt = 0
    for label in sorted(set(label_of.values())):
        cases = sorted(case for case, its_label in label_of.items() if its_label == label)
        if len(cases) < n_folds:
            raise ConfigError(
                f"class {label!r} has {len(cases)} cases, expected {n_folds} or more for "
                f"{n_folds} folds"
            )
        # Going on where the last class stopped, so that left-over cases do not all fall on fold 0.
        for case in rng.permutation(np.array(cases, dtype=object)):
            folds[n_dealt % n_folds].append(case)
            n_dealt += 1
    return [sorted(fold) for fold in folds]


def write_folds(path: Path, folds: Sequence[Sequence[str]]) -> None:
    """Write ``folds.json``; whole or not at all."""
    record = {"schema": FOLDS_SCHEMA, "folds": [{"test_cases": list(fold)} for fold in folds]}
    write_json(path, record)


def read_folds(path: Path) -> list[list[str]]:
    """Test cases of each fold from a ``folds.json``.

    Raises
    ------
    ConfigError
        No such file, no JSON, another schema, an empty fold, or a case that is tested twice.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"folds {path.name!r} cannot be read ({type(error).__name__}); expected a JSON file "
            f"of schema {FOLDS_SCHEMA!r}"
        ) from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != FOLDS_SCHEMA:
        raise ConfigError(f"folds {path.name!r} have schema {schema!r}, expected {FOLDS_SCHEMA!r}")
    try:
        folds = [fold["test_cases"] for fold in record["folds"]]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f'folds {path.name!r} are not of the form {{"folds": [{{"test_cases": [...]}}]}}'
        ) from error
    seen: dict[str, int] = {}
    for number, fold in enumerate(folds):
        is_list = isinstance(fold, list) and all(isinstance(case, str) for case in fold)
        if not (is_list and fold):
            raise ConfigError(f"fold {number} of {path.name!r} names no test cases")
        for case in fold:
            if seen.setdefault(case, number) != number or fold.count(case) > 1:
                raise ConfigError(
                    f"case {case!r} is tested in fold {seen[case]} and again in fold {number} of "
                    f"{path.name!r}; every case is tested once"
                )
    if len(folds) < 2:
        raise ConfigError(f"{path.name!r} holds {len(folds)} folds, expected 2 or more")
    return folds
