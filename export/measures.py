"""Retrieval measures (Chen et al. 2025, section 2.6 and eqs. 11-16), plain numpy.

Scores are cosines, larger is better; ties go to the lower row, as in ``native_hash``. Query
cases must not stand in the index: the caller splits by case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.answers import rank_cases

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationMeasures:
    """One-against-the-rest measures of a predicted class (eqs. 11-13).

    Attributes
    ----------
    precision, recall, f1 : ndarray
        float64 ``(n_classes,)``, 0 where the denominator is 0; the paper's figure is their mean.
    confusion : ndarray
        float64 ``(n_classes, n_classes)``, row: true class, column: predicted; each row sums to
        1 (or 0 where the class has no query).
    """

    precision: Floats
    recall: Floats
    f1: Floats
    confusion: Floats
    accuracy: float

    def macro(self) -> dict[str, float]:
        """Unweighted means over the classes."""
        return {
            "precision": float(self.precision.mean()),
            "recall": float(self.recall.mean()),
            "f1": float(self.f1.mean()),
            "accuracy": self.accuracy,
        }


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(
        numerator,
        denominator,
        out=np.zeros_like(numerator, dtype=np.float64),
        where=denominator > 0,
    )


def classification_measures(truth: Ints, predicted: Ints, n_classes: int) -> ClassificationMeasures:
    """Measures of predicted against true class indices, each int ``(n,)``."""
    counts = np.zeros((n_classes, n_classes), dtype=np.float64)
    np.add.at(counts, (truth, predicted), 1)
    hits = np.diag(counts).copy()
    precision = _ratio(hits, counts.sum(axis=0))
    recall = _ratio(hits, counts.sum(axis=1))
    return ClassificationMeasures(
        precision=precision,
        recall=recall,
        f1=_ratio(2 * precision * recall, precision + recall),
        confusion=_ratio(counts, counts.sum(axis=1, keepdims=True) * np.ones_like(counts)),
        accuracy=float(hits.sum() / max(1, truth.size)),
    )


def rank_rows(scores: Floats) -> Ints:
    """Index rows by descending score, ties by ascending row: ``(q, n) -> (q, n)``."""
    return np.argsort(-scores, axis=1, kind="stable").astype(np.int64)


def precision_at_n(is_relevant: npt.NDArray[np.bool_], n: int) -> float:
    """Mean share of relevant rows among the first n; ``is_relevant`` is ranked ``(q, n_rows)``."""
    return float(is_relevant[:, :n].mean())


def mean_average_precision(is_relevant: npt.NDArray[np.bool_]) -> float:
    """Mean over the queries of average precision over the whole ranking.

    A query without any relevant row counts 0.
    """
    hits = is_relevant.astype(np.float64)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    n_relevant = hits.sum(axis=1)
    return float(_ratio((precision * hits).sum(axis=1), n_relevant).mean())


def case_top1_labels(
    scores: Floats, query_cases: Sequence[str], index_cases: Sequence[str]
) -> dict[str, str]:
    """Best-ranked indexed case of each query case, by the rule of ``ildsdk.answers.rank_cases``.

    Parameters
    ----------
    scores : ndarray
        ``(n_query_slices, n_index_slices)`` cosines.

    Returns
    -------
    dict
        Query case id to the id of its best-ranked indexed case.
    """
    query_array = np.asarray(query_cases)
    names, numbers = np.unique(np.asarray(index_cases), return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(names.size))
    by_case = np.maximum.reduceat(np.asarray(scores)[:, order], starts, axis=1)
    best = {}
    for case in np.unique(query_array):
        ((column, _),) = rank_cases(by_case[query_array == case], [str(n) for n in names], 1)
        best[str(case)] = str(names[column])
    return best


def mean_distances(embeddings: Floats, class_indices: Ints) -> tuple[float, float]:
    """D_intra and D_inter: mean Euclidean distance of same- and different-class pairs.

    Eqs. 14-15, over all unordered pairs of distinct rows; NaN where there is no such pair.
    """
    squares = np.square(embeddings).sum(axis=1)
    squared = squares[:, None] + squares[None, :] - 2 * embeddings @ embeddings.T
    distance = np.sqrt(np.maximum(squared, 0))
    rows, columns = np.triu_indices(embeddings.shape[0], k=1)
    same = class_indices[rows] == class_indices[columns]
    values = distance[rows, columns]
    intra = float(values[same].mean()) if same.any() else float("nan")
    inter = float(values[~same].mean()) if (~same).any() else float("nan")
    return intra, inter


def separation(d_intra: float, d_inter: float) -> float:
    """``s = (D_inter - D_intra) / max(D_inter, D_intra)`` (eq. 16).

    The paper calls s "silhouette"; it is not Rousseeuw's, see :func:`silhouette_rousseeuw`.
    """
    largest = max(d_inter, d_intra)
    return (d_inter - d_intra) / largest if largest > 0 else 0.0


def silhouette_rousseeuw(embeddings: Floats, class_indices: Ints) -> float:
    """Mean silhouette width with Euclidean distance.

    Per row: a = mean distance to its own class without itself, b = least mean distance to another
    class, ``(b - a) / max(a, b)``; 0 for a class of one row.

    References
    ----------
    Rousseeuw 1987, "Silhouettes: a graphical aid to the interpretation and validation of cluster
    analysis".
    """
    classes, members = np.unique(class_indices, return_inverse=True)
    squares = np.square(embeddings).sum(axis=1)
    squared = squares[:, None] + squares[None, :] - 2 * embeddings @ embeddings.T
    np.fill_diagonal(squared, 0)
    distance = np.sqrt(np.maximum(squared, 0))
    membership = np.eye(classes.size)[members]  # (n, n_classes)
    sizes = membership.sum(axis=0)
    sums = distance @ membership  # (n, n_classes)
    rows = np.arange(members.size)
    own_size = sizes[members]
    a = sums[rows, members] / np.maximum(own_size - 1, 1)
    others = sums / sizes
    others[rows, members] = np.inf
    b = others.min(axis=1)
    width = np.where(own_size > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-300), 0.0)
    return float(width.mean())


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
