"""Proof that training and test share nothing: no case, patient, study or near-duplicate slice.

Cases are what a split deals out, so a leak hides behind case ids: one patient entered
twice, or one picture filed under two patients.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from export.dataset import SliceSet
from export.near_duplicates import DuplicateRule, NearDuplicate, find_near_duplicates
from ildsdk.errors import ConfigError

_SHOWN = 5


class LeakError(ConfigError):
    """Training and test share a case, a patient, a study or a picture.

    Attributes
    ----------
    report : LeakReport
    """

    code = "leak"

    def __init__(self, report: LeakReport) -> None:
        super().__init__(report.accusation())
        self.report = report


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeakReport:
    """What was compared, and what stands on both sides.

    Attributes
    ----------
    n_slices, n_cases : int
        Slices and cases on either side.
    n_pairs : int
        Pairs of slices across sides whose fingerprints were compared, in four orientations each.
    n_candidates : int
        Of these, alike enough by fingerprint to be correlated.
    n_cases_without_patient, n_cases_without_study : int
        Cases of which the prepared set knows no PatientID or no study: there only the
        pictures speak.
    shared_cases : tuple of str
    shared_patients, shared_studies : tuple of (str, str)
        Pairs of case ids on two sides with a patient or study in common.
    near_duplicates : tuple of NearDuplicate
    closest : NearDuplicate or None
        The most alike pair across sides that was correlated, leak or not.
    rule : DuplicateRule
        What counted as a near-duplicate.
    """

    n_slices: int
    n_cases: int
    n_pairs: int
    n_candidates: int
    n_cases_without_patient: int
    n_cases_without_study: int
    shared_cases: tuple[str, ...]
    shared_patients: tuple[tuple[str, str], ...]
    shared_studies: tuple[tuple[str, str], ...]
    near_duplicates: tuple[NearDuplicate, ...]
    closest: NearDuplicate | None
    rule: DuplicateRule

    @property
    def is_clean(self) -> bool:
        """Nothing stands on both sides."""
        return not (
            self.shared_cases or self.shared_patients or self.shared_studies or self.near_duplicates
        )

    def summary(self) -> list[str]:
        """Lines that say what was compared and what came of it."""
        lines = [
            f"compared {self.n_slices} slices of {self.n_cases} cases: {self.n_pairs} pairs across "
            f"sides, {self.n_candidates} alike by fingerprint and correlated",
        ]
        for what, n_unknown in (
            ("patient", self.n_cases_without_patient),
            ("study", self.n_cases_without_study),
        ):
            known = self.n_cases - n_unknown
            lines.append(f"{what} known of {known} of {self.n_cases} cases")
        if self.closest is not None:
            lines.append(f"most alike across sides: {self.closest.text()}")
        lines.append("no leak found" if self.is_clean else self.accusation())
        return lines

    def accusation(self) -> str:
        """What stands on both sides, with counts and examples by case id."""
        found = []
        if self.shared_cases:
            found.append(
                f"{len(self.shared_cases)} cases on both sides ({_listed(self.shared_cases)})"
            )
        for what, pairs in (("patient", self.shared_patients), ("study", self.shared_studies)):
            if pairs:
                shown = _listed(f"{first} / {second}" for first, second in pairs)
                found.append(f"{len(pairs)} pairs of cases share a {what} ({shown})")
        if self.near_duplicates:
            counts = Counter((pair.case_a, pair.case_b) for pair in self.near_duplicates)
            shown = _listed(
                f"{first} / {second}: {count}" for (first, second), count in counts.most_common()
            )
            found.append(
                f"{len(self.near_duplicates)} pairs of near-duplicate slices between "
                f"{len(counts)} pairs of cases ({shown})"
            )
        return (
            f"training and test are not apart: {'; '.join(found)}. Give all slices of a patient "
            "one case id, or take the copies out, and prepare and split again"
        )


def find_leaks(
    slices: SliceSet,
    train_cases: Iterable[str],
    test_cases: Iterable[str],
    rule: DuplicateRule | None = None,
) -> LeakReport:
    """Look for anything that stands both in training and in test.

    Parameters
    ----------
    slices : SliceSet
    train_cases, test_cases : iterable of str
        Cases of each side; others are not looked at.
    rule : DuplicateRule, optional
        What counts as a near-duplicate slice.

    Raises
    ------
    ConfigError
        A case is not in the set.
    """
    train, test = set(train_cases), set(test_cases)
    shared = train & test
    side_of = {case: 0 for case in train - shared} | {case: 1 for case in test - shared}
    return _compare(slices, side_of, tuple(sorted(shared)), rule or DuplicateRule())


def require_no_leak(
    slices: SliceSet,
    train_cases: Iterable[str],
    test_cases: Iterable[str],
    rule: DuplicateRule | None = None,
) -> LeakReport:
    """:func:`find_leaks`, but anything found is an error.

    Raises
    ------
    LeakError
        A case, patient, study or near-duplicate slice stands on both sides.
    """
    report = find_leaks(slices, train_cases, test_cases, rule)
    if not report.is_clean:
        raise LeakError(report)
    return report


def check_folds(
    slices: SliceSet, folds: Sequence[Sequence[str]], rule: DuplicateRule | None = None
) -> LeakReport:
    """Require that no fold shares anything between its training and its test cases.

    Two cases stand on two sides of some fold exactly when they are not tested in the same
    fold, so all folds are checked by comparing each pair of slices once.

    Parameters
    ----------
    folds : sequence of sequence of str
        Test cases of each fold; in each fold all other cases of the set train.

    Raises
    ------
    LeakError
        A patient, study or near-duplicate slice stands on both sides of a fold.
    ConfigError
        A case is tested in two folds or is not in the set.
    """
    side_of = dict.fromkeys(slices.case_ids, len(folds))
    for number, fold in enumerate(folds):
        for case in fold:
            if side_of.get(case, len(folds)) < number:
                raise ConfigError(f"case {case!r} is tested in fold {side_of[case]} and {number}")
            side_of[case] = number
    report = _compare(slices, side_of, (), rule or DuplicateRule())
    if not report.is_clean:
        raise LeakError(report)
    return report


def _compare(
    slices: SliceSet, side_of: Mapping[str, int], shared: tuple[str, ...], rule: DuplicateRule
) -> LeakReport:
    unknown = sorted({*side_of, *shared} - set(slices.case_ids))
    if unknown:
        raise ConfigError(
            f"{len(unknown)} cases are not in the prepared set ({_listed(unknown)}); folds and set "
            "do not belong together"
        )
    sides = np.array([side_of.get(case, -1) for case in slices.case_ids], dtype=np.int64)
    rows = np.flatnonzero(sides >= 0)
    found = find_near_duplicates(slices, rows, sides[rows], rule)
    return LeakReport(
        n_slices=int(rows.size),
        n_cases=len(side_of) + len(shared),
        n_pairs=_n_pairs_across(sides[rows]),
        n_candidates=found.n_candidates,
        n_cases_without_patient=_n_without(slices.patient_keys, side_of),
        n_cases_without_study=_n_without(slices.study_keys, side_of),
        shared_cases=shared,
        shared_patients=_shared(slices.patient_keys, side_of),
        shared_studies=_shared(slices.study_keys, side_of),
        near_duplicates=found.near_duplicates,
        closest=found.closest,
        rule=rule,
    )


def _n_pairs_across(sides: npt.NDArray[np.int64]) -> int:
    counts = np.unique(sides, return_counts=True)[1]
    return int((counts.sum() ** 2 - (counts**2).sum()) // 2)


def _n_without(keys: Mapping[str, tuple[str, ...]] | None, side_of: Mapping[str, int]) -> int:
    return sum(not (keys or {}).get(case) for case in side_of)


def _shared(
    keys: Mapping[str, tuple[str, ...]] | None, side_of: Mapping[str, int]
) -> tuple[tuple[str, str], ...]:
    """Pairs of cases on two sides that have a key in common."""
    holders: dict[str, list[str]] = {}
    for case in sorted(side_of):
        for key in (keys or {}).get(case, ()):
            holders.setdefault(key, []).append(case)
    pairs = {
        (first, second)
        for cases in holders.values()
        for i, first in enumerate(cases)
        for second in cases[i + 1 :]
        if side_of[first] != side_of[second]
    }
    return tuple(sorted(pairs))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
