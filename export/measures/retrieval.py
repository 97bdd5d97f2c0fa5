"""All measures of one embedding on one split, and the threshold of "no similar case"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export.measures.classification import Floats, classification_measures
from export.measures.distances import mean_distances, separation, silhouette_rousseeuw
from export.measures.ranking import (
    case_top1_labels,
    mean_average_precision,
    precision_at_n,
    rank_rows,
)


def no_match_threshold(best_scores: Floats, percentile: float = 1.0) -> float:
    """Cosine below which an answer is called "no similar case".

    The rule: the given percentile (default the 1st) of the best score of each held-out slice
    against the index. By construction one in a hundred slices of the known kind is told "no
    similar case"; how many foreign slices are caught is another question, which held-out slices of
    the known classes cannot answer.
    """
    return float(np.percentile(best_scores, percentile))


def retrieval_report(
    *,
    query_embeddings: npt.NDArray[np.float32],
    query_labels: Sequence[str],
    query_cases: Sequence[str],
    index_embeddings: npt.NDArray[np.float32],
    index_labels: Sequence[str],
    index_cases: Sequence[str],
    label_names: Sequence[str],
    top_n: int = 10,
    n_distance_slices: int = 400,
    seed: int = 0,
) -> dict[str, Any]:
    """All measures of section 6 for held-out queries against an index, as plain JSON values.

    Raises
    ------
    ValueError
        A case stands among the queries and in the index.
    """
    shared = sorted(set(query_cases) & set(index_cases))
    if shared:
        raise ValueError(
            f"{len(shared)} cases stand among the queries and in the index, for example "
            f"{shared[0]!r}: split by case"
        )
    number = {label: i for i, label in enumerate(label_names)}
    truth = np.array([number[label] for label in query_labels], dtype=np.int64)
    stored = np.array([number[label] for label in index_labels], dtype=np.int64)
    queries = np.asarray(query_embeddings, dtype=np.float64)
    scores = queries @ np.asarray(index_embeddings, dtype=np.float64).T
    order = rank_rows(scores)
    relevant = stored[order] == truth[:, None]
    n_classes = len(label_names)
    by_slice = classification_measures(truth, stored[order[:, 0]], n_classes)

    case_label = dict(zip(query_cases, truth.tolist(), strict=True))
    index_label = dict(zip(index_cases, stored.tolist(), strict=True))
    case_best = case_top1_labels(scores, query_cases, index_cases)
    by_case = classification_measures(
        np.array([case_label[case] for case in case_best], dtype=np.int64),
        np.array([index_label[best] for best in case_best.values()], dtype=np.int64),
        n_classes,
    )

    rng = np.random.default_rng(seed)
    sample = rng.permutation(truth.size)[:n_distance_slices]
    d_intra, d_inter = mean_distances(queries[sample], truth[sample])
    prevalence = np.bincount(stored, minlength=n_classes) / max(1, stored.size)
    query_share = np.bincount(truth, minlength=n_classes) / max(1, truth.size)
    best = scores.max(axis=1)
    return {
        "n_query_slices": int(truth.size),
        "n_query_cases": len(case_best),
        "n_index_slices": int(stored.size),
        "n_index_cases": len(index_label),
        "labels": list(label_names),
        "slice_top1": {
            **by_slice.macro(),
            "precision_by_class": by_slice.precision.tolist(),
            "recall_by_class": by_slice.recall.tolist(),
            "f1_by_class": by_slice.f1.tolist(),
            "confusion_rows_normalized": by_slice.confusion.tolist(),
        },
        "case_top1": {
            **by_case.macro(),
            "confusion_rows_normalized": by_case.confusion.tolist(),
        },
        "top_n": top_n,
        "precision_at_n": precision_at_n(relevant, top_n),
        "mean_average_precision": mean_average_precision(relevant),
        "d_intra": d_intra,
        "d_inter": d_inter,
        "s_eq16": separation(d_intra, d_inter),
        "silhouette_rousseeuw": silhouette_rousseeuw(queries[sample], truth[sample]),
        "baseline_prevalence": {
            # A row drawn at random from the index has the right class this often.
            "accuracy_random_neighbor": float((prevalence * query_share).sum()),
            "accuracy_most_frequent_class": float(query_share[int(prevalence.argmax())]),
            "prevalence_by_class": prevalence.tolist(),
        },
        "best_score_percentiles": {
            str(p): float(np.percentile(best, p)) for p in (1, 5, 25, 50, 75, 95)
        },
        "no_match_threshold": no_match_threshold(best),
    }
