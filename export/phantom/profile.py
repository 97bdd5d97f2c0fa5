"""The record that says how one patient's disease looks; each disease draws its own."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Amounts (0 to about 1) of each pattern, and where in the lungs they lie.

    Attributes
    ----------
    severity : float
        How much of the lungs is involved, 0 to 1.
    reticulation, honeycomb, traction, ground_glass, consolidation, perilobular, septa : float
        Strength of each pattern where the lung is involved.
    basal, peripheral, peribronchial, patchy, dorsal : float
        Weight of each place; ``patchy`` weighs a random field.
    peripheral_mm, patch_mm : float
        Depth of the subpleural zone; size of random patches.
    sparing : float
        0 to 1, spares the outermost millimetres under the pleura.
    asymmetry : float
        -1 (right lung only) to 1 (left lung only).
    volume_loss : float
        0 to 1, shrinks the lungs.
    emphysema, nodule, atelectasis : float
        Distractors.
    """

    severity: float = 0.0
    reticulation: float = 0.0
    honeycomb: float = 0.0
    traction: float = 0.0
    ground_glass: float = 0.0
    consolidation: float = 0.0
    perilobular: float = 0.0
    septa: float = 0.0
    basal: float = 0.3
    peripheral: float = 0.3
    peribronchial: float = 0.0
    patchy: float = 0.3
    dorsal: float = 0.1
    peripheral_mm: float = 20.0
    patch_mm: float = 45.0
    sparing: float = 0.0
    asymmetry: float = 0.0
    volume_loss: float = 0.0
    emphysema: float = 0.0
    nodule: float = 0.0
    atelectasis: float = 0.0


def blend(first: Profile, second: Profile, share: float) -> Profile:
    """The first profile with ``share`` of the second mixed in, each field by itself."""
    return Profile(
        **{
            field.name: (1 - share) * getattr(first, field.name)
            + share * getattr(second, field.name)
            for field in dataclasses.fields(Profile)
        }
    )


def draw_severity(rng: np.random.Generator, difficulty: float) -> float:
    """Severity of a diseased patient: mild ones become common as difficulty rises."""
    return float(0.08 + 0.92 * rng.beta(2.2, 0.8 + 2.0 * difficulty))


def draw_distractors(rng: np.random.Generator, difficulty: float) -> dict[str, float]:
    """Findings that any patient may have besides the disease."""
    return {
        "emphysema": float(rng.uniform(0.2, 0.8)) if rng.random() < 0.12 else 0.0,
        "nodule": float(rng.uniform(2.0, 5.0)) if rng.random() < 0.15 + 0.2 * difficulty else 0.0,
        "atelectasis": float(rng.uniform(0.3, 1)) if rng.random() < 0.1 + 0.25 * difficulty else 0,
    }
