"""From embeddings to answers: neighbors, case ranking, class statistics, "no similar case"."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ildsdk.index import Index
from ildsdk.records import CaseRank, LabelStatistic, Neighbor
from ildsdk.settings import QuerySettings


def is_no_similar_case(neighbors: Sequence[Neighbor], threshold: float | None) -> bool:
    """True where nothing is left to compare with or the best score is under the threshold."""
    if not neighbors:
        return True
    return threshold is not None and neighbors[0].score < threshold


def find_neighbors(
    index: Index,
    embedding: npt.NDArray[np.float32],
    settings: QuerySettings,
    excluded: npt.NDArray[np.bool_] | None,
) -> tuple[Neighbor, ...]:
    """Most similar items of the index for one embedding, best first.

    Parameters
    ----------
    embedding : ndarray
        float32 ``(d,)``, unit norm.
    excluded : ndarray or None
        bool ``(n_rows,)``, rows to leave out.
    """
    found = index.search(
        embedding, settings.top_n, mode=settings.search_mode, excluded_rows=excluded
    )
    is_filled = found.rows[0] >= 0
    items = index.items(found.rows[0][is_filled])
    return tuple(
        Neighbor(
            rank=rank,
            score=round(float(score), 6),
            item_id=item.item_id,
            case_id=item.case_id,
            label=item.label,
            study_instance_uid=item.study_instance_uid,
            series_instance_uid=item.series_instance_uid,
            sop_instance_uid=item.sop_instance_uid,
            position_mm=item.position_mm,
            site=item.site,
            verification=item.verification,
        )
        for rank, (item, score) in enumerate(
            zip(items, found.scores[0][is_filled], strict=True), start=1
        )
    )


def ranked_cases(
    index: Index,
    embeddings: Sequence[npt.NDArray[np.float32]],
    neighbors_by_slice: Sequence[Sequence[Neighbor]],
    top_n: int,
    excluded: npt.NDArray[np.bool_] | None,
) -> tuple[CaseRank, ...]:
    """Rank the index's cases for a study, see :func:`rank_cases`.

    Parameters
    ----------
    embeddings : sequence of ndarray
        float32 ``(d,)``, one per answered slice.
    neighbors_by_slice : sequence of sequence of Neighbor
        The neighbors shown, to count the slices for which a case stands among them.
    """
    if not embeddings:
        return ()
    found = index.case_scores(np.stack(embeddings), excluded)
    shown = [{neighbor.case_id for neighbor in neighbors} for neighbors in neighbors_by_slice]
    ranks = []
    for rank, (column, score) in enumerate(
        rank_cases(found.scores, found.case_ids, top_n), start=1
    ):
        (item,) = index.items([int(found.first_rows[column])])
        ranks.append(
            CaseRank(
                rank=rank,
                case_id=item.case_id,
                label=item.label,
                score=round(score, 6),
                n_slices=sum(item.case_id in cases for cases in shown),
                best_score=round(float(found.scores[:, column].max()), 6),
                site=item.site,
                verification=item.verification,
            )
        )
    return tuple(ranks)


def rank_cases(
    scores: npt.NDArray[np.float32], case_ids: Sequence[str], top_n: int
) -> list[tuple[int, float]]:
    """Rank diagnosed cases for a study by the mean over its slices of their best cosine.

    Parameters
    ----------
    scores : ndarray
        float32 ``(n_slices, n_cases)``: best cosine of any item of a case to a query slice,
        over all items, not only over the neighbors shown (adjacent slices resemble each other: the
        best neighbors of a slice are often all of one case).
    case_ids : sequence of str
        Names of the columns.
    top_n : int
        Cases returned.

    Returns
    -------
    list of (int, float)
        Column and mean, by mean descending, ties by case id.
    """
    means = scores.mean(axis=0, dtype=np.float64)
    order = sorted(range(len(case_ids)), key=lambda column: (-means[column], case_ids[column]))
    return [(column, float(means[column])) for column in order[:top_n]]


def label_statistics(
    neighbors_by_slice: Sequence[Sequence[Neighbor]], prevalence: Mapping[str, float]
) -> tuple[LabelStatistic, ...]:
    """Count diagnoses among the neighbors shown, beside what chance gives.

    Parameters
    ----------
    neighbors_by_slice : sequence of sequence of Neighbor
        Per query slice, the neighbors that are shown.
    prevalence : mapping of str to float
        Share of each label among the searched items.

    Returns
    -------
    tuple of LabelStatistic
        Every label of the index, by number of neighbors descending, ties by label.
    """
    counts = collections.Counter(
        neighbor.label for neighbors in neighbors_by_slice for neighbor in neighbors
    )
    tops = collections.Counter(neighbors[0].label for neighbors in neighbors_by_slice if neighbors)
    total = counts.total()
    return tuple(
        LabelStatistic(
            label=label,
            n_neighbors=counts[label],
            share=counts[label] / total if total else 0.0,
            n_top1_slices=tops[label],
            prevalence=prevalence.get(label, 0.0),
        )
        for label in sorted(
            set(prevalence) | set(counts), key=lambda label: (-counts[label], label)
        )
    )
