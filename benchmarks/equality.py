"""Do both sides answer alike? Checked in the run that is timed, and part of its results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.ours import Ours
from benchmarks.reference_stack import ReferenceStack
from benchmarks.slices import BenchSlice

LEAST_COSINE = 0.999
LARGEST_FEATURE_DIFFERENCE = 1e-5
# Scores nearer to each other than this may change places: the two networks sum in another order,
# and 8 bits round (docs/int8.md).
SCORE_TOLERANCE = {"fp32": 1e-4, "int8": 1e-3}

Float32 = npt.NDArray[np.float32]


def compare_answers(
    ours: Ours, stack: ReferenceStack, slices: Sequence[BenchSlice]
) -> dict[str, float]:
    """Figures of agreement on some slices; what is out of tolerance fails.

    With our mask handed to the reference stack everything has to agree. With its own mask the
    overlap of the neighbors is a figure and no condition: another mask is another picture.

    Raises
    ------
    AssertionError
        A feature, an embedding or a neighbor differs by more than its tolerance.
    """
    differences, cosines, own_cosines = [], [], []
    tolerance = SCORE_TOLERANCE[ours.precision]
    n_other = n_other_far = n_common = n_common_own = n_same_label = 0
    for one in slices:
        encoded, _ = ours.staged(one.pixels_hu, one.pixel_spacing_mm)
        given = stack.query(one.pixels_hu, one.pixel_spacing_mm, mask=one.lung_mask)
        own = stack.query(one.pixels_hu, one.pixel_spacing_mm)
        differences.append(relative_difference(encoded.features, given.features))
        cosines.append(float(encoded.embedding @ given.embedding))
        own_cosines.append(float(encoded.embedding @ own.embedding))
        rows = ours.retriever.index.search(encoded.embedding, len(given.rows)).rows[0]
        others = set(rows.tolist()) ^ set(given.rows.tolist())
        n_other += len(others) // 2
        n_other_far += n_beyond(others, given.embedding, given.scores, tolerance, ours)
        n_common += len(set(rows.tolist()) & set(given.rows.tolist()))
        n_common_own += len(set(rows.tolist()) & set(own.rows.tolist()))
        n_same_label += _label(ours, rows[0]) == _label(ours, own.rows[0])
    assert max(differences) <= LARGEST_FEATURE_DIFFERENCE, differences
    assert min(cosines) >= LEAST_COSINE, cosines
    assert n_other_far == 0, f"{n_other_far} neighbors differ by more than {tolerance}"
    n_asked = 10 * len(slices)
    return {
        "n_slices": len(slices),
        "mask_dice_min": min(one.dice for one in slices),
        "feature_difference_max": max(differences),
        "cosine_min": min(cosines),
        "top10_overlap": n_common / n_asked,
        "neighbors_that_differ": n_other,
        "neighbors_that_differ_beyond_near_ties": n_other_far,
        "own_mask_cosine_min": min(own_cosines),
        "own_mask_top10_overlap": n_common_own / n_asked,
        "own_mask_same_label": n_same_label / len(slices),
    }


def _label(ours: Ours, row: int) -> str:
    return ours.retriever.index.items([int(row)])[0].label


def relative_difference(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> float:
    """Largest relative difference of features; both must lack the same ones."""
    assert (np.isnan(ours) == np.isnan(theirs)).all(), "features are missing on one side only"
    size = np.maximum(np.abs(theirs), 1e-6)
    return float(np.nanmax(np.abs(ours - theirs) / size))


def n_beyond(
    rows: set[int], embedding: Float32, scores: Float32, tolerance: float, ours: Ours
) -> int:
    """How many of the rows are no near ties of the tenth neighbor."""
    if not rows:
        return 0
    vectors = ours.retriever.index.embeddings()
    distances = [abs(float(vectors[row] @ embedding) - float(scores[-1])) for row in rows]
    return sum(distance > tolerance for distance in distances)
