"""ASS-ILD: NSIP/OP look; basal, peripheral and peribronchial ground glass and consolidation."""

from __future__ import annotations

import numpy as np

from export.phantom.profile import Profile, draw_distractors, draw_severity


def draw_ass(rng: np.random.Generator, difficulty: float) -> Profile:
    """Draw an NSIP, an OP or a mixed profile."""
    severity = draw_severity(rng, difficulty)
    organizing = rng.beta(0.8, 0.8)
    return Profile(
        severity=severity,
        reticulation=float(rng.uniform(0.1, 0.5) * (1.2 - organizing)),
        traction=float(rng.uniform(0.0, 0.45) * (1 - organizing)),
        ground_glass=float(rng.uniform(0.55, 0.95)),
        consolidation=float(0.12 + 0.8 * organizing * rng.uniform(0.5, 1.0)),
        perilobular=float(0.25 * organizing * rng.random()),
        septa=float(rng.uniform(0.0, 0.3)),
        basal=float(rng.uniform(0.6, 0.95)),
        peripheral=float(rng.uniform(0.2, 0.55)),
        peribronchial=float(rng.uniform(0.25, 0.7)),
        patchy=float(rng.uniform(0.08, 0.2)),
        dorsal=float(rng.uniform(0.1, 0.35)),
        peripheral_mm=float(rng.uniform(18, 38)),
        patch_mm=float(rng.uniform(30, 55)),
        sparing=float(rng.uniform(0.4, 1.0)) if rng.random() < 0.45 else 0.0,
        asymmetry=float(rng.normal(0, 0.12)),
        volume_loss=float(severity * rng.uniform(0.2, 0.8)),
        **draw_distractors(rng, difficulty),
    )
