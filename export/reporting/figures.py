"""Every figure of the report as plain JSON values, from the outcomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export.measures import (
    ClassificationMeasures,
    average_precision_by_query,
    classification_measures,
    confusion_counts,
    macro_f1_of_counts,
    measures_of_counts,
    ndcg_by_query,
    precision_at_n,
)
from export.reporting.intervals import CaseSums, case_sums, differences, intervals
from export.reporting.outcomes import FoldOutcome, SystemOutcome
from export.reporting.published import MAIN_SYSTEM, PUBLISHED

Ints = npt.NDArray[np.int64]


def system_figures(
    outcome: SystemOutcome, sums: CaseSums, *, n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Figures of one system, pooled over its folds."""
    n_classes, top_n = outcome.n_classes, outcome.top_n
    by_slice = classification_measures(outcome.truth, outcome.predicted, n_classes)
    by_case = classification_measures(outcome.class_of_case, outcome.case_predicted, n_classes)
    ks = [k for k in sorted({1, 5, top_n}) if k <= outcome.precision_curve.size]
    return {
        "title": PUBLISHED[outcome.name].title,
        "folds": [fold.fold for fold in outcome.folds],
        "n_query_slices": int(outcome.truth.size),
        "n_query_cases": len(outcome.cases),
        "slice": {
            **_classes(by_slice),
            "precision_at_k": {str(k): float(outcome.precision_curve[k - 1]) for k in ks},
            "precision_curve": outcome.precision_curve.tolist(),
            "mean_average_precision": float(outcome.average_precision.mean()),
            f"ndcg_at_{top_n}": float(outcome.ndcg.mean()),
            "macro_f1_by_fold": {
                str(fold.fold): macro_f1
                for fold, macro_f1 in zip(outcome.folds, _macro_f1_by_fold(outcome), strict=True)
            },
        },
        "case": {**_classes(by_case), **_case_ranking(outcome.folds, top_n)},
        "distances": _distances(outcome.folds),
        "intervals_95": {
            name: dataclasses.asdict(interval)
            for name, interval in intervals(sums, n_bootstrap, seed).items()
        },
        "search": _search(outcome, by_slice),
    }


def _classes(measures: ClassificationMeasures) -> dict[str, Any]:
    return {
        "macro": measures.macro(),
        "precision_by_class": measures.precision.tolist(),
        "recall_by_class": measures.recall.tolist(),
        "f1_by_class": measures.f1.tolist(),
        "confusion_rows_normalized": measures.confusion.tolist(),
    }


def _parts(outcome: SystemOutcome) -> list[slice]:
    """Where each fold's queries stand among the pooled ones."""
    ends = np.cumsum([fold.query_rows.size for fold in outcome.folds]).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _macro_f1_by_fold(outcome: SystemOutcome) -> list[float]:
    return [
        float(
            macro_f1_of_counts(
                confusion_counts(outcome.truth[part], outcome.predicted[part], outcome.n_classes)
            )
        )
        for part in _parts(outcome)
    ]


def _case_ranking(folds: Sequence[FoldOutcome], top_n: int) -> dict[str, Any]:
    """Measures of the ranking of indexed cases, mean over the query cases."""
    n_cases = sum(len(fold.cases) for fold in folds)
    # A fold's ranking may be shorter than another's, so the means are taken fold by fold.
    shares = [len(fold.cases) / n_cases for fold in folds]

    def mean(values: Sequence[float]) -> float:
        return float(np.dot(shares, values))

    return {
        "precision_at_k": {
            str(k): mean([precision_at_n(fold.case_hits, k) for fold in folds])
            for k in sorted({1, 5, top_n})
        },
        "mean_average_precision": mean(
            [float(average_precision_by_query(fold.case_hits).mean()) for fold in folds]
        ),
        f"ndcg_at_{top_n}": mean(
            [float(ndcg_by_query(fold.case_hits, top_n).mean()) for fold in folds]
        ),
    }


def _distances(folds: Sequence[FoldOutcome]) -> dict[str, Any]:
    return {
        "n_slices_by_fold": [fold.n_distance_slices for fold in folds],
        "d_intra": float(np.mean([fold.d_intra for fold in folds])),
        "d_inter": float(np.mean([fold.d_inter for fold in folds])),
        "s_eq16": float(np.mean([fold.s for fold in folds])),
        "silhouette_rousseeuw": float(np.mean([fold.silhouette for fold in folds])),
    }


def _search(outcome: SystemOutcome, exact: ClassificationMeasures) -> dict[str, Any]:
    """The exact index and the paper's preset on the same vectors."""
    by_seed: dict[str, list[float]] = {}
    n_seeds = len(outcome.folds[0].paper)
    for number in range(n_seeds):
        answers = [fold.paper[number] for fold in outcome.folds]
        predicted = np.concatenate([answer.predicted for answer in answers])
        found = classification_measures(outcome.truth, predicted, outcome.n_classes).macro()
        values = {
            "macro_f1": found["f1"],
            "accuracy": found["accuracy"],
            f"precision_at_{outcome.top_n}": _mean([answer.precision for answer in answers]),
            f"recall_at_{outcome.top_n}": _mean([answer.recall for answer in answers]),
            "share_without_answer": float((predicted < 0).mean()),
            "selectivity": _mean([answer.selectivity for answer in answers]),
        }
        for name, value in values.items():
            by_seed.setdefault(name, []).append(value)
    return {
        "exact": {
            "macro_f1": float(exact.f1.mean()),
            "accuracy": exact.accuracy,
            f"precision_at_{outcome.top_n}": float(outcome.precision_top_n.mean()),
            # Not set: assert_exact_search raised if the certified search found anything else.
            f"recall_at_{outcome.top_n}": 1.0,
            "share_without_answer": 0.0,
            "selectivity": 1.0,
        },
        "paper_preset": {
            "n_hyperplane_seeds": n_seeds,
            "mean": {name: float(np.mean(values)) for name, values in by_seed.items()},
            "lowest": {name: float(np.min(values)) for name, values in by_seed.items()},
            "highest": {name: float(np.max(values)) for name, values in by_seed.items()},
        },
    }


def _mean(parts: Sequence[npt.NDArray[np.float64]]) -> float:
    return float(np.concatenate(parts).mean())


def comparison_figures(
    sums: Mapping[str, CaseSums], *, n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Differences of the main system to each other one; empty where it has no result."""
    others = [name for name in sums if name != MAIN_SYSTEM]
    if MAIN_SYSTEM not in sums or not others:
        return {}
    found: dict[str, Any] = {}
    for name in others:
        by_figure, cases = differences(
            sums[MAIN_SYSTEM], sums[name], n_bootstrap, seed, n_comparisons=len(others)
        )
        found[name] = {
            "n_cases": len(cases),
            "figures": {
                figure: {
                    **dataclasses.asdict(difference),
                    "verdict": difference.verdict,
                    "adjusted_verdict": difference.adjusted_verdict,
                }
                for figure, difference in by_figure.items()
            },
        }
    return {"main": MAIN_SYSTEM, "n_comparisons": len(others), "against": found}


def baseline_figures(outcome: SystemOutcome) -> dict[str, Any]:
    """What answering without looking gives, from each fold's own index.

    "Random neighbor": expected counts when each query gets a row drawn from its index. "Most
    frequent": every query gets the index's most frequent class.
    """
    random_counts = np.zeros((outcome.n_classes, outcome.n_classes + 1))
    frequent_counts = np.zeros_like(random_counts)
    random_cases = 0.0
    for fold, part in zip(outcome.folds, _parts(outcome), strict=True):
        of_class = np.bincount(outcome.truth[part], minlength=outcome.n_classes)
        random_counts[:, :-1] += of_class[:, None] * fold.index_share
        frequent_counts[:, int(fold.index_share.argmax())] += of_class
        place = {case: number for number, case in enumerate(outcome.cases)}
        case_classes = outcome.class_of_case[[place[case] for case in fold.cases]]
        random_cases += float(fold.index_case_share[case_classes].sum())
    return {
        "measured_on_folds": [fold.fold for fold in outcome.folds],
        "random_neighbor": {
            **measures_of_counts(random_counts).macro(),
            "case_accuracy": random_cases / len(outcome.cases),
        },
        "most_frequent_class": measures_of_counts(frequent_counts).macro(),
        "query_slices_by_class": np.bincount(outcome.truth, minlength=outcome.n_classes).tolist(),
    }


def all_sums(outcomes: Mapping[str, SystemOutcome]) -> dict[str, CaseSums]:
    """Case sums by system."""
    return {name: case_sums(outcome) for name, outcome in outcomes.items()}
