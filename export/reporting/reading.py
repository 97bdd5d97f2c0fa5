"""What an experiment left on disk: slices, folds, and the vectors of each system and fold."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.dataset import SliceSet, load_slice_set
from export.reporting.published import PUBLISHED
from export.splits import RESULT_SCHEMA, read_folds
from ildsdk.errors import ConfigError

_UNIT_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment's folder, checked; vectors are read when they are asked for.

    Attributes
    ----------
    settings : dict
        ``experiment.json`` as it is.
    folds : tuple of tuple of str
        Test cases of each fold.
    results : dict
        ``(system, fold)`` to the content of its ``result.json``, for what is finished.
    class_of_case : dict
        Case id to class index (place in ``slices.label_names``).
    """

    work: Path
    settings: dict[str, Any]
    is_synthetic: bool
    slices: SliceSet
    folds: tuple[tuple[str, ...], ...]
    results: dict[tuple[str, int], dict[str, Any]]
    class_of_case: dict[str, int]

    @property
    def systems(self) -> tuple[str, ...]:
        """Systems with a result on at least one fold, in the order of the tables."""
        return tuple(name for name in PUBLISHED if any(key[0] == name for key in self.results))

    def folds_of(self, system: str) -> tuple[int, ...]:
        """Folds this system has a result on, ascending."""
        return tuple(n for n in range(len(self.folds)) if (system, n) in self.results)

    def missing(self) -> dict[str, list[int]]:
        """Folds each system has no result on; systems that have all are left out."""
        absent = {
            name: [n for n in range(len(self.folds)) if (name, n) not in self.results]
            for name in PUBLISHED
        }
        return {name: folds for name, folds in absent.items() if folds}

    def cases_never_queried(self) -> list[str]:
        """Prepared cases that no fold tests, sorted."""
        tested = {case for fold in self.folds for case in fold}
        return sorted(set(self.slices.case_ids) - tested)

    def vectors(self, system: str, fold: int) -> npt.NDArray[np.float32]:
        """Unit vectors of all slices, float32 ``(n_slices, d)``.

        Raises
        ------
        ConfigError
            The file does not fit the slices or its checksum, or holds no unit vectors.
        """
        where = f"fold-{fold}/{system}/vectors.npy"
        try:
            vectors = np.load(self.work / where, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"{where} cannot be read ({type(error).__name__})") from error
        expected = self.results[system, fold].get("vectors_sha256")
        found = hashlib.sha256(vectors.tobytes()).hexdigest()
        if expected != found:
            raise ConfigError(
                f"{where} has SHA-256 {found}, its result.json says {expected}: run this fold again"
            )
        n = len(self.slices)
        if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[0] != n:
            raise ConfigError(
                f"{where} is {vectors.dtype} {vectors.shape}, expected float32 ({n}, d)"
            )
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        n_bad = int(np.count_nonzero(~(np.abs(norms - 1) <= _UNIT_TOLERANCE)))
        if n_bad:
            raise ConfigError(f"{where}: {n_bad} of {n} rows are not of unit norm")
        return np.ascontiguousarray(vectors)


def read_experiment(work: Path) -> Experiment:
    """Open an experiment's folder.

    Raises
    ------
    ConfigError
        A file is missing or damaged, or the files do not belong together.
    """
    settings = _read_json(work / "experiment.json")
    is_synthetic = settings.get("is_synthetic")
    if not isinstance(is_synthetic, bool):
        raise ConfigError(
            f"experiment.json says is_synthetic is {is_synthetic!r}, expected true or false: a "
            "report must say whether its cases are phantoms"
        )
    slices = load_slice_set(work / "prepared")
    class_of_case = _class_of_case(slices)
    folds = _read_folds(work / "folds.json", class_of_case)
    results: dict[tuple[str, int], dict[str, Any]] = {}
    for system in PUBLISHED:
        for number in range(len(folds)):
            folder = work / f"fold-{number}" / system
            if not (folder / "result.json").is_file() or not (folder / "vectors.npy").is_file():
                continue
            result = _read_json(folder / "result.json")
            said = (result.get("schema"), result.get("system"), result.get("fold"))
            if said != (RESULT_SCHEMA, system, number):
                raise ConfigError(
                    f"fold-{number}/{system}/result.json says {said}, expected "
                    f"{(RESULT_SCHEMA, system, number)}"
                )
            results[system, number] = result
    if not results:
        raise ConfigError(
            f"{work.name!r} has no finished system on any fold: run `python -m export experiment`"
        )
    return Experiment(
        work=work,
        settings=settings,
        is_synthetic=is_synthetic,
        slices=slices,
        folds=folds,
        results=results,
        class_of_case=class_of_case,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path.name} is missing in {path.parent.name!r}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} in {path.parent.name!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name} in {path.parent.name!r} is not a JSON object")
    return content


def _class_of_case(slices: SliceSet) -> dict[str, int]:
    found: dict[str, int] = {}
    for case, number in zip(slices.case_ids, slices.class_indices().tolist(), strict=True):
        if found.setdefault(case, number) != number:
            raise ConfigError(f"case {case!r} has slices of two labels")
    return found


def _read_folds(path: Path, class_of_case: dict[str, int]) -> tuple[tuple[str, ...], ...]:
    folds = tuple(tuple(fold) for fold in read_folds(path))
    tested = [case for fold in folds for case in fold]
    strangers = sorted(set(tested) - set(class_of_case))
    if strangers:
        raise ConfigError(
            f"{path.name} names {len(strangers)} cases that are not prepared, for example "
            f"{strangers[0]!r}"
        )
    return folds
