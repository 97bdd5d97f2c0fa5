"""DM/RP-ILD: patchy, fast ground glass and consolidation, lower or random zones, perilobular."""

from __future__ import annotations

import numpy as np

from export.phantom.profile import Profile, draw_distractors, draw_severity


def draw_dmrp(rng: np.random.Generator, difficulty: float) -> Profile:
    """Draw a lower-zone, a random-zone or a diffuse (alveolar damage) profile."""
    severity = draw_severity(rng, difficulty)
    lower_zone = rng.random() < 0.45
    diffuse = severity > 0.5 and rng.random() < 0.4
    return Profile(
        severity=min(1.0, severity * (1.2 if diffuse else 1.0)),
        reticulation=float(rng.uniform(0.0, 0.2)),
        traction=float(rng.uniform(0.0, 0.25) * diffuse),
        ground_glass=float(rng.uniform(0.5, 1.0)),
        consolidation=float(rng.uniform(0.15, 0.75)),
        perilobular=float(rng.uniform(0.3, 1.0)),
        septa=float(rng.uniform(0.2, 0.7)),
        basal=float(rng.uniform(0.35, 0.7) if lower_zone else rng.uniform(-0.15, 0.25)),
        peripheral=float(rng.uniform(0.3, 0.7) if lower_zone else rng.uniform(0.1, 0.4)),
        peribronchial=float(rng.uniform(0.0, 0.25)),
        patchy=float(rng.uniform(0.3, 0.5)),
        dorsal=float(rng.uniform(-0.05, 0.2)),
        peripheral_mm=float(rng.uniform(14, 34)),
        patch_mm=float(rng.uniform(28, 75)),
        sparing=0.0,
        asymmetry=float(rng.normal(0, 0.25)),
        volume_loss=float(0.3 * severity * rng.random()),
        **draw_distractors(rng, difficulty),
    )
