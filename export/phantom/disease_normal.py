"""Normal: healthy lungs with dependent density and, now and then, an unrelated small finding."""

from __future__ import annotations

import numpy as np

from export.phantom.profile import Profile, draw_distractors


def draw_normal(rng: np.random.Generator, difficulty: float) -> Profile:
    """Draw a healthy profile."""
    return Profile(**draw_distractors(rng, difficulty))
