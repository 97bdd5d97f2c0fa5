"""Retrieval measures (Chen et al. 2025, section 2.6 and eqs. 11-16), plain numpy.

Scores are cosines, larger is better; ties go to the lower row, as in ``native_hash``. Query
cases must not stand in the index: the caller splits by case.
"""

from __future__ import annotations

from export.measures.bootstrap import draw_cases, percentile_interval
from export.measures.classification import (
    ClassificationMeasures,
    classification_measures,
    confusion_counts,
    macro_f1_of_counts,
    measures_of_counts,
)
from export.measures.distances import mean_distances, separation, silhouette_rousseeuw
from export.measures.ranking import (
    average_precision_by_query,
    case_rankings,
    case_top1_labels,
    mean_average_precision,
    ndcg_by_query,
    precision_at_n,
    precision_by_query,
    rank_rows,
)
from export.measures.retrieval import no_match_threshold, retrieval_report

__all__ = [
    "ClassificationMeasures",
    "average_precision_by_query",
    "case_rankings",
    "case_top1_labels",
    "classification_measures",
    "confusion_counts",
    "draw_cases",
    "macro_f1_of_counts",
    "mean_average_precision",
    "mean_distances",
    "measures_of_counts",
    "ndcg_by_query",
    "no_match_threshold",
    "percentile_interval",
    "precision_at_n",
    "precision_by_query",
    "rank_rows",
    "retrieval_report",
    "separation",
    "silhouette_rousseeuw",
]
