"""Bootstrap over cases: slices of one patient resemble each other and are drawn together."""

from __future__ import annotations

import numpy as np

from export.measures.classification import Floats, Ints


def draw_cases(class_of_case: Ints, n_draws: int, seed: int) -> Ints:
    """How often each case stands in each bootstrap sample.

    Cases are drawn with replacement within their class, as many as the class has, so that
    each sample keeps the design of the study (so many cases of each class).

    Parameters
    ----------
    class_of_case : ndarray
        int ``(n_cases,)``. The same classes, number and seed give the same draws: that is what
        makes differences between systems paired.

    Returns
    -------
    ndarray
        int64 ``(n_draws, n_cases)``; within each class a row sums to the class's size.
    """
    if n_draws < 1:
        raise ValueError(f"n_draws is {n_draws}, expected at least 1")
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_draws, class_of_case.size), dtype=np.int64)
    draws = np.arange(n_draws)[:, None]
    for number in np.unique(class_of_case):
        members = np.flatnonzero(class_of_case == number)
        picked = members[rng.integers(members.size, size=(n_draws, members.size))]
        np.add.at(counts, (draws, picked), 1)
    return counts


def percentile_interval(values: Floats, level: float) -> tuple[float, float]:
    """Percentile interval: the middle ``level`` (0 to 1) of the bootstrap values ``(n_draws,)``.

    References
    ----------
    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected above 0 and below 1")
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
