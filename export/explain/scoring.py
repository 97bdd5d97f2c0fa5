"""Does a map point at the lesion: scores of one map on one slice, and means over cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of one map, each from 0 to 1.

    Attributes
    ----------
    hit : float
        Is the largest value inside the lesion (pointing game, Zhang et al. 2018, "Top-down neural
        attention by excitation backprop")? Among equal largest values, their share inside.
    near_hit : float
        The same with the lesion widened by a tolerance.
    energy : float
        Share of the map's positive sum that lies inside the lesion (energy-based pointing game,
        Wang et al. 2020, "Score-CAM").
    """

    hit: float
    near_hit: float
    energy: float


SCORE_NAMES = tuple(field.name for field in dataclasses.fields(Scores))


def on_slice(values: npt.NDArray[np.floating[Any]], box: Any, shape: tuple[int, int]) -> Floats:
    """Positive part of a map at every pixel of the slice it belongs to.

    Parameters
    ----------
    values : ndarray
        ``(h, w)``, signed: places of the feature map, of equal size, filling the box.
    box : ildsdk.explain.SliceBox
        Where the model input lies on the slice.
    shape : (int, int)
        Rows and columns of the slice.

    Returns
    -------
    ndarray
        float64 ``shape``: bilinear between the middles of places, constant beyond the outermost
        ones, 0 outside the box.
    """
    positive = np.maximum(values, 0).astype(np.float64)
    starts, lengths = (box.top, box.left), (box.height, box.width)
    weights = []
    for n_pixels, n_places, start, length in zip(shape, values.shape, starts, lengths, strict=True):
        share = ((np.arange(n_pixels) + 0.5) / n_pixels - start) / length  # 0 to 1 in the box
        place = np.clip(share * n_places - 0.5, 0, n_places - 1)
        near = np.maximum(0, 1 - np.abs(place[:, np.newaxis] - np.arange(n_places)))
        weights.append(near * ((share >= 0) & (share < 1))[:, np.newaxis])
    return weights[0] @ positive @ weights[1].T


def widened(lesion: Mask, pixel_spacing_mm: tuple[float, float], by_mm: float) -> Mask:
    """Pixels at most this far from the lesion."""
    distance_mm = ndimage.distance_transform_edt(~lesion, sampling=pixel_spacing_mm)
    return np.asarray(distance_mm <= by_mm)


def score_map(heat: Floats, lung: Mask, lesion: Mask, near: Mask) -> Scores:
    """Scores inside the lung.

    Parameters
    ----------
    heat : ndarray
        Of :func:`on_slice`.
    lung, lesion, near : ndarray
        bool, of the same shape; ``near`` is the lesion widened. Only what lies in the lung
        counts.

    Returns
    -------
    Scores
        All 0 for a map that is nowhere positive in the lung: it points at nothing.
    """
    inside = heat[lung]
    top = inside.max(initial=0.0)
    if not top > 0:
        return Scores(hit=0.0, near_hit=0.0, energy=0.0)
    largest = inside >= top * (1 - 1e-9)
    return Scores(
        hit=float(lesion[lung][largest].mean()),
        near_hit=float(near[lung][largest].mean()),
        energy=float(inside[lesion[lung]].sum() / inside.sum()),
    )


def share_outside(heat: Floats, lung: Mask) -> float:
    """Share of a map's positive sum that lies outside the lung; 0 of a map without any."""
    total = float(heat.sum())
    return float(heat[~lung].sum()) / total if total > 0 else 0.0


def chance(lung: Mask, lesion: Mask, near: Mask) -> Scores:
    """Exact expectation of a place drawn at random in the lung; its energy is a uniform map's."""
    share = float(lesion[lung].mean())
    return Scores(hit=share, near_hit=float(near[lung].mean()), energy=share)


def mean_over_cases(
    values: Sequence[float], cases: Sequence[str], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Mean of case means, with a 95 % bootstrap interval over cases.

    Slices of one patient resemble each other, so cases are drawn, not slices.

    Returns
    -------
    dict
        mean, low, high (None with fewer than two cases), n_cases, n_slices.
    """
    by_case: dict[str, list[float]] = {}
    for value, case in zip(values, cases, strict=True):
        by_case.setdefault(case, []).append(value)
    means = np.array([np.mean(by_case[case]) for case in sorted(by_case)])
    result: dict[str, Any] = {"n_cases": len(means), "n_slices": len(values)}
    if len(means) == 0:
        return {"mean": None, "low": None, "high": None, **result}
    low = high = None
    if len(means) > 1:
        drawn = np.random.default_rng(seed).integers(len(means), size=(n_bootstrap, len(means)))
        low, high = (float(v) for v in np.percentile(means[drawn].mean(axis=1), [2.5, 97.5]))
    return {"mean": float(means.mean()), "low": low, "high": high, **result}


def summarised(
    rows: Sequence[Mapping[str, Any]], systems: Sequence[str], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Means of every system's scores over the rows, and differences of the first to the others.

    Parameters
    ----------
    rows : sequence of mapping
        One per scored slice: ``case_id``, ``scores`` (system to score name to value).
    systems : sequence of str
        The model first, then what it is compared with.
    """
    cases = [row["case_id"] for row in rows]

    def mean(value: Any) -> dict[str, Any]:
        return mean_over_cases([value(row) for row in rows], cases, n_bootstrap, seed)

    first, *others = systems
    return {
        "systems": {
            system: {
                name: mean(lambda row, s=system, n=name: row["scores"][s][n])
                for name in SCORE_NAMES
            }
            for system in systems
        },
        "differences": {
            system: {
                name: mean(
                    lambda row, s=system, n=name: row["scores"][first][n] - row["scores"][s][n]
                )
                for name in SCORE_NAMES
            }
            for system in others
        },
    }
