"""How far a median, or a ratio of two medians, would move if the same run were repeated."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

N_RESAMPLES = 2000
CONFIDENCE = 0.99
_N_BLOCKS = 12
# Student's t at 0.995 by degrees of freedom from 1: fewer rounds than blocks tell little of their
# own scatter. Times sqrt(pi / 2), by which a median scatters more than a mean.
_STUDENT_T = (63.66, 9.92, 5.84, 4.60, 4.03, 3.71, 3.50, 3.36, 3.25, 3.17)
_MEDIAN_TO_MEAN = 1.2533


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """A measured level on a logarithmic scale.

    Attributes
    ----------
    log : float
        Natural logarithm of the ratio, or of the seconds.
    noise : float
        Half width of its 99 % interval, same scale; infinite for a single round.
    """

    log: float
    noise: float


def level_of(seconds: tuple[float, ...], rival: tuple[float, ...] | None = None) -> Level:
    """Median of some rounds, or its ratio to the median of the rival's.

    Rounds are drawn again in blocks of neighbors (bootstrap), because a slow minute hits many
    rounds in a row; rounds of ours and of the rival that were taken in turn are drawn together,
    because it hits both. With less than a dozen rounds Student's interval is taken.
    """
    ours = np.log(np.asarray(seconds, dtype=np.float64))
    theirs = np.zeros_like(ours) if rival is None else np.log(np.asarray(rival, np.float64))
    center = float(np.median(ours) - np.median(theirs))
    n = len(ours)
    is_paired, n_least = n == len(theirs), min(n, len(theirs))
    if n_least == 1:
        return Level(center, math.inf)
    if n_least < _N_BLOCKS:
        error = _error_of_mean(ours - theirs) if is_paired else _error_of_mean(ours, theirs)
        return Level(center, _STUDENT_T[n_least - 2] * _MEDIAN_TO_MEAN * error)
    generator = np.random.default_rng(0)
    rows = _drawn_rounds(n, generator)
    rival_rows = rows if is_paired else _drawn_rounds(len(theirs), generator)
    found = np.median(ours[rows], axis=1) - np.median(theirs[rival_rows], axis=1)
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Level(center, float(high - low) / 2)


def _error_of_mean(*samples: npt.NDArray[np.float64]) -> float:
    """Standard error of the mean, or of the difference of two."""
    return math.sqrt(sum(float(np.var(one, ddof=1)) / len(one) for one in samples))


def _drawn_rounds(n: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rounds of each resample, ``(N_RESAMPLES, n)``: whole blocks, cut to n."""
    size = max(1, n // _N_BLOCKS)
    n_blocks = -(-n // size)
    starts = generator.integers(0, n, (N_RESAMPLES, n_blocks))
    rounds = (starts[:, :, np.newaxis] + np.arange(size)) % n
    return rounds.reshape(N_RESAMPLES, -1)[:, :n]
