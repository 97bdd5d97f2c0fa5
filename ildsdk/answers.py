"""From neighbors to answers: case ranking, class statistics, "no similar case"."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Mapping, Sequence

from ildsdk.records import CaseRank, LabelStatistic, Neighbor


def case_search_depth(top_n: int) -> int:
    """How many neighbors a slice is searched for so that cases, not slices, can be ranked.

    Adjacent slices of one case resemble each other: the ten best neighbors are often
    of one or two cases.
    """
    return max(100, 10 * top_n)


def is_no_similar_case(neighbors: Sequence[Neighbor], threshold: float | None) -> bool:
    """True where nothing is left to compare with or the best score is under the threshold."""
    if not neighbors:
        return True
    return threshold is not None and neighbors[0].score < threshold


def rank_cases(
    neighbors_by_slice: Sequence[Sequence[Neighbor]], top_n: int
) -> tuple[CaseRank, ...]:
    """Rank diagnosed cases for a study.

    A case's score is the mean over the query slices of the best cosine one of its items
    reached. A slice whose neighbor list the case did not reach counts with the lowest
    score of that list, which bounds from above what the case could have reached there.

    Parameters
    ----------
    neighbors_by_slice : sequence of sequence of Neighbor
        Per query slice, best first; search to :func:`case_search_depth`.
    top_n : int
        Cases returned.

    Returns
    -------
    tuple of CaseRank
        By score descending, ties by case id.
    """
    searched = [neighbors for neighbors in neighbors_by_slice if neighbors]
    best_by_case: dict[str, dict[int, Neighbor]] = collections.defaultdict(dict)
    for slice_number, neighbors in enumerate(searched):
        for neighbor in neighbors:
            best_by_case[neighbor.case_id].setdefault(slice_number, neighbor)
    floors = [neighbors[-1].score for neighbors in searched]
    scored = []
    for case_id, best in best_by_case.items():
        scores = [
            best[number].score if number in best else floor for number, floor in enumerate(floors)
        ]
        scored.append((-statistics.fmean(scores), case_id, best))
    scored.sort(key=lambda entry: entry[:2])
    ranks = []
    for rank, (negative_score, case_id, best) in enumerate(scored[:top_n], start=1):
        top = max(best.values(), key=lambda neighbor: neighbor.score)
        ranks.append(
            CaseRank(
                rank=rank,
                case_id=case_id,
                label=top.label,
                score=-negative_score,
                n_slices=len(best),
                best_score=top.score,
                site=top.site,
                verification=top.verification,
            )
        )
    return tuple(ranks)


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
