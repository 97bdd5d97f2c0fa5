"""Searches each fold once and keeps, per query slice and case, what every figure is made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from export.measures import (
    average_precision_by_query,
    case_rankings,
    mean_distances,
    ndcg_by_query,
    precision_by_query,
    rank_rows,
    separation,
    silhouette_rousseeuw,
)
from export.reporting.reading import Experiment
from export.reporting.search_loss import SearchOutcome, assert_exact_search, paper_searches

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
N_CURVE = 50
"""Longest prefix of the precision@k curve."""
N_DISTANCE_SLICES = 400
"""Random test slices whose distances are measured (section 2.4 of the paper)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoldOutcome:
    """One system's answers for the test slices of one fold.

    Attributes
    ----------
    query_rows : ndarray
        int64 ``(q,)`` rows of the slice set.
    predicted : ndarray
        int64 ``(q,)`` class of the top-1 neighbor.
    hits : ndarray
        bool ``(q, n_index)``, is the neighbor at this rank of the query's class.
    top_rows, top_scores : ndarray
        ``(q, top_n)``: rows of the slice set and cosines of the first neighbors.
    average_precision, ndcg : ndarray
        float64 ``(q,)``.
    cases, case_predicted : tuple of str, ndarray
        Test cases and the class of the best-ranked indexed case.
    case_hits : ndarray
        bool ``(n_cases, n_index_cases)``, ranked.
    d_intra, d_inter, s, silhouette : float
        Of up to 400 random test slices; NaN where a class pair is missing.
    """

    fold: int
    query_rows: Ints
    predicted: Ints
    hits: npt.NDArray[np.bool_]
    top_rows: Ints
    top_scores: npt.NDArray[np.float32]
    average_precision: Floats
    ndcg: Floats
    cases: tuple[str, ...]
    case_predicted: Ints
    case_hits: npt.NDArray[np.bool_]
    n_distance_slices: int
    d_intra: float
    d_inter: float
    s: float
    silhouette: float
    index_share: Floats  # of each class among the indexed slices
    index_case_share: Floats
    paper: tuple[SearchOutcome, ...]  # one a hyperplane seed


def fold_outcome(
    experiment: Experiment, system: str, fold: int, *, top_n: int, seed: int, lsh_seeds: range
) -> FoldOutcome:
    """Search the test slices of a fold among the slices of all other cases."""
    vectors = experiment.vectors(system, fold)
    slices = experiment.slices
    classes = slices.class_indices()
    query_rows = slices.rows_of(experiment.folds[fold])
    is_query = np.zeros(len(slices), dtype=np.bool_)
    is_query[query_rows] = True
    index_rows = np.flatnonzero(~is_query)
    queries, stored = vectors[query_rows], vectors[index_rows]
    # float32 of a float64 product, as native_hash scores; equal scores go to the lower row.
    scores = (queries.astype(np.float64) @ stored.astype(np.float64).T).astype(np.float32)
    order = rank_rows(scores)
    assert_exact_search(queries, stored, scores, order, top_n)
    truth = classes[query_rows]
    hits = classes[index_rows][order] == truth[:, None]
    index_cases = [slices.case_ids[row] for row in index_rows]
    ranked_cases = case_rankings(scores, [slices.case_ids[row] for row in query_rows], index_cases)
    class_of = experiment.class_of_case
    ranked_classes = np.array([[class_of[c] for c in names] for names in ranked_cases.values()])
    case_truth = np.array([class_of[case] for case in ranked_cases])
    sample = np.random.default_rng((seed, fold)).permutation(query_rows.size)[:N_DISTANCE_SLICES]
    wide = queries[sample].astype(np.float64)
    d_intra, d_inter = mean_distances(wide, truth[sample])
    n_classes = len(slices.label_names)
    index_case_classes = [class_of[case] for case in sorted(set(index_cases))]
    return FoldOutcome(
        fold=fold,
        query_rows=query_rows,
        predicted=classes[index_rows][order[:, 0]],
        hits=hits,
        top_rows=index_rows[order[:, :top_n]],
        top_scores=np.take_along_axis(scores, order[:, :top_n], axis=1),
        average_precision=average_precision_by_query(hits),
        ndcg=ndcg_by_query(hits, top_n),
        cases=tuple(ranked_cases),
        case_predicted=ranked_classes[:, 0],
        case_hits=ranked_classes == case_truth[:, None],
        n_distance_slices=int(sample.size),
        d_intra=d_intra,
        d_inter=d_inter,
        s=separation(d_intra, d_inter),
        silhouette=silhouette_rousseeuw(wide, truth[sample]),
        index_share=np.bincount(classes[index_rows], minlength=n_classes) / index_rows.size,
        index_case_share=np.bincount(index_case_classes, minlength=n_classes)
        / len(index_case_classes),
        paper=paper_searches(
            queries, stored, scores, order, hits, classes[index_rows], top_n=top_n, seeds=lsh_seeds
        ),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SystemOutcome:
    """A system's answers pooled over its folds; each case is a query once.

    Attributes
    ----------
    truth, predicted : ndarray
        int64 ``(n_queries,)``.
    case_of_query : ndarray
        int64 ``(n_queries,)``, place in ``cases``.
    cases : tuple of str
        Sorted; ``class_of_case``, ``case_predicted`` belong to them.
    precision_curve : ndarray
        float64 ``(n_curve,)``, mean precision@k for k from 1.
    precision_top_n, average_precision, ndcg : ndarray
        float64 ``(n_queries,)``.
    """

    name: str
    folds: tuple[FoldOutcome, ...]
    truth: Ints
    predicted: Ints
    case_of_query: Ints
    cases: tuple[str, ...]
    class_of_case: Ints
    case_predicted: Ints
    precision_curve: Floats
    precision_top_n: Floats
    average_precision: Floats
    ndcg: Floats
    n_classes: int
    top_n: int


def system_outcome(
    experiment: Experiment, system: str, *, top_n: int, seed: int, lsh_seeds: range
) -> SystemOutcome:
    """Search all folds this system has and pool them."""
    folds = tuple(
        fold_outcome(experiment, system, fold, top_n=top_n, seed=seed, lsh_seeds=lsh_seeds)
        for fold in experiment.folds_of(system)
    )
    slices = experiment.slices
    rows = np.concatenate([fold.query_rows for fold in folds])
    predicted_of = {
        case: int(number)
        for fold in folds
        for case, number in zip(fold.cases, fold.case_predicted, strict=True)
    }
    cases = tuple(sorted(predicted_of))
    place = {case: number for number, case in enumerate(cases)}
    n_curve = min(N_CURVE, *(fold.hits.shape[1] for fold in folds))
    prefix = np.concatenate([np.cumsum(fold.hits[:, :n_curve], axis=1) for fold in folds])
    return SystemOutcome(
        name=system,
        folds=folds,
        truth=slices.class_indices()[rows],
        predicted=np.concatenate([fold.predicted for fold in folds]),
        case_of_query=np.array([place[slices.case_ids[row]] for row in rows], dtype=np.int64),
        cases=cases,
        class_of_case=np.array([experiment.class_of_case[c] for c in cases], dtype=np.int64),
        case_predicted=np.array([predicted_of[case] for case in cases], dtype=np.int64),
        precision_curve=(prefix / np.arange(1, n_curve + 1)).mean(axis=0),
        precision_top_n=np.concatenate([precision_by_query(fold.hits, top_n) for fold in folds]),
        average_precision=np.concatenate([fold.average_precision for fold in folds]),
        ndcg=np.concatenate([fold.ndcg for fold in folds]),
        n_classes=len(slices.label_names),
        top_n=top_n,
    )
