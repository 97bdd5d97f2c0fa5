"""The exact two-means split of grey values: two-centre K-means without its random start.

In one dimension the optimal two clusters are two intervals, so every split of the
sorted distinct values can be tried at once with prefix sums. The least sum of
squares within the clusters is the greatest sum of squares between them
(Fisher 1958; the same criterion as Otsu 1979).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TwoMeansSplit:
    """The best two-cluster split of a histogram.

    Attributes
    ----------
    threshold : float
        Midpoint of the two centers (method section 1.3); no value of the low
        cluster lies above it, none of the high cluster below it.
    low_center, high_center : float
        Means of the clusters, in the unit of the values.
    """

    threshold: float
    low_center: float
    high_center: float


def two_means_split(
    values: npt.NDArray[Any], counts: npt.NDArray[Any] | None = None
) -> TwoMeansSplit:
    """Split values into two clusters with the least sum of squared deviations.

    Parameters
    ----------
    values : ndarray
        Real ``(n,)``. Without ``counts``: the samples, any order and shape. With
        ``counts``: the histogram's grey values, strictly rising.
    counts : ndarray, optional
        ``(n,)``, how often each value occurs, 0 or more.

    Returns
    -------
    TwoMeansSplit
        Threshold and centers; of equally good splits the lowest.

    Raises
    ------
    ValueError
        Fewer than two distinct values occur, a value is not finite, values do not
        rise, a count is negative, or lengths disagree.

    Notes
    -----
    Equal to the global optimum of ``KMeans(n_clusters=2)``; K-means from a bad start
    may stop at a worse split, this never does.

    References
    ----------
    Chen et al. 2025, section 1.1 (two-centre K-means); Fisher, "On grouping for
    maximum homogeneity", JASA 53 (1958) 789-798.
    """
    grey = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(grey).all():
        raise ValueError("values holds NaN or infinity; the two-means split needs finite values")
    if counts is None:
        grey, tally = np.unique(grey, return_counts=True)
        weight = tally.astype(np.float64)
    else:
        weight = np.asarray(counts, dtype=np.float64).ravel()
        if weight.size != grey.size:
            raise ValueError(f"{grey.size} values but {weight.size} counts; expected as many")
        if grey.size > 1 and not (np.diff(grey) > 0).all():
            raise ValueError("values of a histogram must rise strictly")
        if not (weight >= 0).all():
            raise ValueError("counts must be 0 or more")
        grey, weight = grey[weight > 0], weight[weight > 0]
    if grey.size < 2:
        raise ValueError(f"found {grey.size} distinct value(s); a split needs two or more")

    return split_histogram(grey, weight)


def split_histogram(
    grey: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> TwoMeansSplit:
    """Split a histogram that needs no checks: two or more rising values, all weights above 0.

    See :func:`two_means_split`.
    """
    # Prefix sums of deviations from the mean: differences of huge sums would lose digits.
    total = weight.sum()
    mean = float((grey * weight).sum() / total)
    low_weight = np.cumsum(weight)[:-1]
    low_sum = np.cumsum(weight * (grey - mean))[:-1]
    high_weight = total - low_weight
    between = low_sum**2 * (1.0 / low_weight + 1.0 / high_weight)
    best = int(np.argmax(between))
    low_center = mean + float(low_sum[best] / low_weight[best])
    high_center = mean - float(low_sum[best] / high_weight[best])
    return TwoMeansSplit(
        threshold=(low_center + high_center) / 2, low_center=low_center, high_center=high_center
    )


def two_means_threshold(values: npt.NDArray[Any], counts: npt.NDArray[Any] | None = None) -> float:
    """Threshold of :func:`two_means_split`: the midpoint of the two centers."""
    return two_means_split(values, counts).threshold
