"""Measures of a ranking: precision@n, average precision, nDCG, and the ranking of cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from export.measures.classification import Floats, Ints, ratio
from ildsdk.answers import rank_cases

Bools = npt.NDArray[np.bool_]


def rank_rows(scores: npt.NDArray[np.floating]) -> Ints:
    """Index rows by descending score, ties by ascending row: ``(q, n) -> (q, n)``."""
    return np.argsort(-scores, axis=1, kind="stable").astype(np.int64)


def precision_by_query(is_relevant: Bools, n: int) -> Floats:
    """Share of relevant rows among the first n, ``(q, n_rows) -> (q,)``.

    ``is_relevant`` is in ranked order. Always divided by n: a place without an answer is a
    wrong one.
    """
    return is_relevant[:, :n].sum(axis=1) / n


def precision_at_n(is_relevant: Bools, n: int) -> float:
    """Mean of :func:`precision_by_query`."""
    return float(precision_by_query(is_relevant, n).mean())


def average_precision_by_query(is_relevant: Bools) -> Floats:
    """Average precision over the whole ranking, ``(q, n_rows) -> (q,)``.

    Mean, over the relevant rows, of the precision at their rank; a query without any relevant row
    counts 0.
    """
    hits = is_relevant.astype(np.float64)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return ratio((precision * hits).sum(axis=1), hits.sum(axis=1))


def mean_average_precision(is_relevant: Bools) -> float:
    """Mean of :func:`average_precision_by_query`."""
    return float(average_precision_by_query(is_relevant).mean())


def ndcg_by_query(is_relevant: Bools, n: int) -> Floats:
    """Normalised discounted cumulative gain of the first n, gains 0 or 1, ``(q, n_rows) -> (q,)``.

    ``sum over ranks i <= n of rel_i / log2(i + 1)``, divided by the same sum of the best
    ranking possible with the relevant rows there are; 0 where there are none.

    References
    ----------
    Jarvelin and Kekalainen 2002, "Cumulated gain-based evaluation of IR techniques".
    """
    shown = is_relevant[:, :n]
    discounts = 1 / np.log2(np.arange(2, shown.shape[1] + 2))
    n_relevant = np.minimum(is_relevant.sum(axis=1), shown.shape[1])
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[n_relevant]
    return ratio(shown @ discounts, ideal)


def case_rankings(
    scores: npt.NDArray[np.floating], query_cases: Sequence[str], index_cases: Sequence[str]
) -> dict[str, list[str]]:
    """Rank the indexed cases for each query case, by the rule of ``ildsdk.answers.rank_cases``.

    Parameters
    ----------
    scores : ndarray
        ``(n_query_slices, n_index_slices)`` cosines.

    Returns
    -------
    dict
        Query case id (in sorted order) to all indexed case ids, best first.
    """
    query_array = np.asarray(query_cases)
    names, numbers = np.unique(np.asarray(index_cases), return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(names.size))
    by_case = np.maximum.reduceat(np.asarray(scores)[:, order], starts, axis=1)
    columns = [str(name) for name in names]
    return {
        str(case): [
            columns[column]
            for column, _ in rank_cases(by_case[query_array == case], columns, names.size)
        ]
        for case in np.unique(query_array)
    }


def case_top1_labels(
    scores: npt.NDArray[np.floating], query_cases: Sequence[str], index_cases: Sequence[str]
) -> dict[str, str]:
    """Query case id to the id of its best-ranked indexed case; see :func:`case_rankings`."""
    ranked = case_rankings(scores, query_cases, index_cases)
    return {case: names[0] for case, names in ranked.items()}
