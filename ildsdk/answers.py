"""From neighbors to answers: case ranking, class statistics, "no similar case"."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ildsdk.records import LabelStatistic, Neighbor


def is_no_similar_case(neighbors: Sequence[Neighbor], threshold: float | None) -> bool:
    """True where nothing is left to compare with or the best score is under the threshold."""
    if not neighbors:
        return True
    return threshold is not None and neighbors[0].score < threshold


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
