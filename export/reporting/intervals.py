"""Bootstrap intervals over cases of a system's figures and of differences between systems."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from export.measures import draw_cases, macro_f1_of_counts, percentile_interval
from export.reporting.outcomes import SystemOutcome

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
LEVEL = 0.95


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaseSums:
    """What a case adds to each main figure; a sample of cases is a weighted sum of these.

    Attributes
    ----------
    cases : tuple of str
        Sorted.
    class_of_case : ndarray
        int64 ``(n_cases,)``.
    predicted : ndarray
        float64 ``(n_cases, n_classes + 1)``: slices of the case by top-1 class, last: no answer.
    precision_top_n, average_precision : ndarray
        float64 ``(n_cases,)``, sums over the slices of the case.
    is_case_hit : ndarray
        float64 ``(n_cases,)``, 1 where the best-ranked case has the right class.
    """

    cases: tuple[str, ...]
    class_of_case: Ints
    predicted: Floats
    precision_top_n: Floats
    average_precision: Floats
    is_case_hit: Floats
    top_n: int

    def of_cases(self, cases: tuple[str, ...]) -> CaseSums:
        """These cases only, in this order."""
        place = {case: number for number, case in enumerate(self.cases)}
        rows = np.array([place[case] for case in cases], dtype=np.int64)
        return CaseSums(
            cases=cases,
            class_of_case=self.class_of_case[rows],
            predicted=self.predicted[rows],
            precision_top_n=self.precision_top_n[rows],
            average_precision=self.average_precision[rows],
            is_case_hit=self.is_case_hit[rows],
            top_n=self.top_n,
        )


def case_sums(outcome: SystemOutcome) -> CaseSums:
    """Sum a system's per-slice answers by case."""
    n_cases = len(outcome.cases)
    predicted = np.zeros((n_cases, outcome.n_classes + 1))
    column = np.where(outcome.predicted < 0, outcome.n_classes, outcome.predicted)
    np.add.at(predicted, (outcome.case_of_query, column), 1)

    def summed(values: Floats) -> Floats:
        return np.bincount(outcome.case_of_query, weights=values, minlength=n_cases)

    return CaseSums(
        cases=outcome.cases,
        class_of_case=outcome.class_of_case,
        predicted=predicted,
        precision_top_n=summed(outcome.precision_top_n),
        average_precision=summed(outcome.average_precision),
        is_case_hit=(outcome.case_predicted == outcome.class_of_case).astype(np.float64),
        top_n=outcome.top_n,
    )


def main_figures(sums: CaseSums, weights: npt.NDArray[np.integer]) -> dict[str, Floats]:
    """The main figures when each case counts ``weights`` times, ``(b, n_cases) -> (b,)`` each."""
    w = weights.astype(np.float64)
    n_classes = sums.predicted.shape[1] - 1
    counts = np.zeros((w.shape[0], n_classes, n_classes + 1))
    for number in range(n_classes):
        of_class = sums.class_of_case == number
        counts[:, number] = w[:, of_class] @ sums.predicted[of_class]
    n_slices = w @ sums.predicted.sum(axis=1)
    return {
        "macro_f1": macro_f1_of_counts(counts),
        "accuracy": np.trace(counts, axis1=1, axis2=2) / n_slices,
        f"precision_at_{sums.top_n}": w @ sums.precision_top_n / n_slices,
        "mean_average_precision": w @ sums.average_precision / n_slices,
        "case_accuracy": w @ sums.is_case_hit / w.sum(axis=1),
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with its percentile interval at 95 %."""

    value: float
    low: float
    high: float


def intervals(sums: CaseSums, n_draws: int, seed: int) -> dict[str, Interval]:
    """Main figures of one system with their intervals."""
    values = main_figures(sums, np.ones((1, len(sums.cases)), dtype=np.int64))
    drawn = main_figures(sums, draw_cases(sums.class_of_case, n_draws, seed))
    return {
        name: Interval(value=float(values[name][0]), low=low, high=high)
        for name, (low, high) in (
            (name, percentile_interval(column, LEVEL)) for name, column in drawn.items()
        )
    }


Verdict = Literal["higher", "lower", "not supported"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Main system minus another one, on the cases both were asked.

    Attributes
    ----------
    low, high : float
        Paired percentile interval at 95 %.
    adjusted_low, adjusted_high : float
        The same at ``adjusted_level``, 1 - 0.05 / number of comparisons (Bonferroni).
    """

    value: float
    low: float
    high: float
    adjusted_level: float
    adjusted_low: float
    adjusted_high: float

    @property
    def verdict(self) -> Verdict:
        """Does the 95 % interval exclude 0, and on which side."""
        return _verdict(self.low, self.high)

    @property
    def adjusted_verdict(self) -> Verdict:
        """The same for the adjusted interval."""
        return _verdict(self.adjusted_low, self.adjusted_high)


def _verdict(low: float, high: float) -> Verdict:
    if low > 0:
        return "higher"
    return "lower" if high < 0 else "not supported"


def differences(
    main: CaseSums, other: CaseSums, n_draws: int, seed: int, n_comparisons: int
) -> tuple[dict[str, Difference], tuple[str, ...]]:
    """Paired differences of the main figures, and the cases they rest on.

    Both systems are measured on the same drawn cases, so what makes a sample of cases hard
    for both cancels.
    """
    shared = tuple(case for case in main.cases if case in set(other.cases))
    if not shared:
        return {}, ()
    ours, theirs = main.of_cases(shared), other.of_cases(shared)
    whole = np.ones((1, len(shared)), dtype=np.int64)
    weights = draw_cases(ours.class_of_case, n_draws, seed)
    values, values_other = main_figures(ours, whole), main_figures(theirs, whole)
    drawn, drawn_other = main_figures(ours, weights), main_figures(theirs, weights)
    level = 1 - (1 - LEVEL) / n_comparisons
    found = {}
    for name, column in drawn.items():
        low, high = percentile_interval(column - drawn_other[name], LEVEL)
        adjusted_low, adjusted_high = percentile_interval(column - drawn_other[name], level)
        found[name] = Difference(
            value=float(values[name][0] - values_other[name][0]),
            low=low,
            high=high,
            adjusted_level=level,
            adjusted_low=adjusted_low,
            adjusted_high=adjusted_high,
        )
    return found, shared
