"""From a label to the profile of one patient, mixed patterns included."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from export.phantom.disease_ass import draw_ass
from export.phantom.disease_dmrp import draw_dmrp
from export.phantom.disease_ipf import draw_ipf
from export.phantom.disease_normal import draw_normal
from export.phantom.profile import Profile, blend

DRAW: dict[str, Callable[[np.random.Generator, float], Profile]] = {
    "ASS-ILD": draw_ass,
    "IPF-ILD": draw_ipf,
    "DM/RP-ILD": draw_dmrp,
    "Normal": draw_normal,
}


def draw_profile(label: str, rng: np.random.Generator, difficulty: float) -> Profile:
    """Profile of one patient of a class.

    Some diseased patients borrow from another disease; the more so, the higher
    ``difficulty`` is. The severity stays that of their own.
    """
    own = DRAW[label](rng, difficulty)
    if label == "Normal":
        return own
    others = [name for name in DRAW if name not in (label, "Normal")]
    other = DRAW[others[int(rng.integers(0, 2))]](rng, difficulty)
    share = float(rng.uniform(0.1, 0.5)) if rng.random() < 0.05 + 0.5 * difficulty else 0.0
    mixed = blend(own, other, share)
    return dataclasses.replace(
        mixed,
        severity=own.severity,
        emphysema=own.emphysema,
        nodule=own.nodule,
        atelectasis=own.atelectasis,
    )
