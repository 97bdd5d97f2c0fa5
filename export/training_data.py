"""Who trains, who validates, who is only watched; and what a run's data are, as a hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export.dataset import SliceSet
from export.sampling import split_cases
from export.train_settings import TrainSettings
from ildsdk.errors import ConfigError

_N_HASHED_IMAGES = 64
Rows = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Rows of a slice set by what training may do with them; no case has two roles.

    Attributes
    ----------
    train : ndarray
        Weights are fitted to these.
    validation : ndarray
        Early stopping chooses the epoch by these: held out of the training cases.
    watched : ndarray
        Test cases whose figures go into the log for information; nothing is chosen by them.
    """

    train: Rows
    validation: Rows
    watched: Rows


def roles_of(
    slices: SliceSet,
    train_cases: Sequence[str],
    validation_cases: Sequence[str] = (),
    watched_cases: Sequence[str] = (),
) -> Roles:
    """Rows of the cases of each role.

    Raises
    ------
    ConfigError
        A case has two roles, is unknown, or a class has no training case.
    """
    named = {"train": train_cases, "validation": validation_cases, "watched": watched_cases}
    role_of: dict[str, str] = {}
    known = set(slices.case_ids)
    for role, cases in named.items():
        for case in cases:
            if case not in known:
                raise ConfigError(f"{role} case {case!r} has no prepared slice")
            if role_of.setdefault(case, role) != role:
                raise ConfigError(f"case {case!r} is both {role_of[case]} and {role}")
    rows = {role: slices.rows_of(cases) for role, cases in named.items()}
    missing = sorted(set(slices.labels) - {slices.labels[i] for i in rows["train"]})
    if missing:
        raise ConfigError(f"class {missing[0]!r} has no training case")
    return Roles(**rows)


def hold_out_validation(
    slices: SliceSet, train_cases: Sequence[str], settings: TrainSettings
) -> tuple[list[str], list[str]]:
    """Take early stopping's cases out of the TRAINING cases: (training, validation).

    Without early stopping every case trains.
    """
    if not settings.patience:
        return sorted(train_cases), []
    rows = slices.rows_of(train_cases)
    return split_cases(
        [slices.case_ids[i] for i in rows],
        [slices.labels[i] for i in rows],
        settings.validation_share,
        settings.seed,
    )


def data_sha256(slices: SliceSet) -> str:
    """Hash of table, radiomics and up to 64 images spread over the set.

    All images would be gigabytes at the paper's scale; another archive, window or mask changes
    the radiomics, another input size the images.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([slices.labels, slices.case_ids]).encode())
    digest.update(np.ascontiguousarray(slices.radiomics).tobytes())
    n = len(slices)
    for row in np.unique(np.linspace(0, n - 1, min(n, _N_HASHED_IMAGES)).astype(int)):
        digest.update(np.ascontiguousarray(slices.images[row]).tobytes())
    return digest.hexdigest()


def fingerprint(about: dict[str, Any]) -> str:
    """SHA-256 of a description, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
