"""IPF-ILD: basal subpleural reticulation, honeycombing, traction bronchiectasis, volume loss."""

from __future__ import annotations

import numpy as np

from export.phantom.profile import Profile, draw_distractors, draw_severity


def draw_ipf(rng: np.random.Generator, difficulty: float) -> Profile:
    """Draw a UIP-like profile; mild cases have little or no honeycombing."""
    severity = draw_severity(rng, difficulty)
    late = np.clip((severity - 0.25) / 0.5, 0, 1)
    return Profile(
        severity=severity,
        reticulation=float(rng.uniform(0.6, 1.0)),
        honeycomb=float(late * rng.uniform(0.3, 1.0) * (rng.random() > 0.2 * difficulty)),
        traction=float(late * rng.uniform(0.4, 1.0)),
        ground_glass=float(rng.uniform(0.05, 0.3)),
        consolidation=0.0,
        septa=float(rng.uniform(0.2, 0.6)),
        basal=float(rng.uniform(0.5, 0.9)),
        peripheral=float(rng.uniform(0.75, 1.0)),
        patchy=float(rng.uniform(0.1, 0.22)),
        dorsal=float(rng.uniform(0.05, 0.3)),
        peripheral_mm=float(rng.uniform(9, 22)),
        patch_mm=float(rng.uniform(25, 45)),
        asymmetry=float(rng.normal(0, 0.1)),
        volume_loss=float(severity * rng.uniform(0.3, 1.0)),
        **draw_distractors(rng, difficulty),
    )
