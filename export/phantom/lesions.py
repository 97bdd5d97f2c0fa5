"""Draws disease into the lungs of one slice: where it lies, and what it looks like there."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from export.phantom.anatomy import Field, smooth_step
from export.phantom.noise import cell_noise, fractal_noise
from export.phantom.profile import Profile


@dataclasses.dataclass(slots=True)
class LungPlace:
    """Where each pixel of the lungs lies; all float32 ``(n_rows, n_columns)`` unless said.

    Attributes
    ----------
    pleura_mm : ndarray
        Distance to the pleura (in space, so the dome counts too).
    outer_mm : ndarray
        Distance to the chest wall or the diaphragm, the mediastinum left out.
    bronchus_mm : ndarray
        Distance to the nearest larger bronchus.
    dorsal : ndarray
        -1 at the front wall, 1 at the back wall.
    height : float
        0 at the apex, 1 at the lowest recess.
    inside : ndarray
        bool, lung.
    """

    x: Field
    y: Field
    z_mm: float
    pleura_mm: Field
    outer_mm: Field
    bronchus_mm: Field
    dorsal: Field
    height: float
    inside: npt.NDArray[np.bool_]
    seed: int


def involvement(profile: Profile, place: LungPlace) -> Field:
    """How strongly disease has taken each pixel, 0 to 1."""
    p = profile
    if p.severity <= 0:
        return np.zeros(place.x.shape, np.float32)
    patches = fractal_noise(
        place.x, place.y, place.z_mm, p.patch_mm, place.seed + 101, n_octaves=3, where=place.inside
    )
    rim = 0.8 * np.exp(-((place.outer_mm / p.peripheral_mm) ** 1.5))
    rim += 0.2 * np.exp(-((place.pleura_mm / p.peripheral_mm) ** 1.5))
    near_bronchus = np.exp(-((place.bronchus_mm / 13.0) ** 2))
    score = (
        p.basal * 1.25 * (place.height - 0.52)
        + p.peripheral * rim
        + p.peribronchial * near_bronchus
        + p.patchy * patches
        + p.dorsal * place.dorsal
        + 0.35 * p.asymmetry * np.sign(place.x)
    )
    threshold = 0.95 - 1.0 * p.severity
    weight = smooth_step(threshold, threshold + 0.4, score)
    if p.sparing:
        weight = weight * (1 - p.sparing * smooth_step(9.0, 4.0, place.outer_mm))
    return (weight * place.inside).astype(np.float32)


def draw_lesions(
    profile: Profile, place: LungPlace, hu: Field, line_mm: float
) -> tuple[Field, npt.NDArray[np.bool_]]:
    """Change the lung's HU by disease.

    Parameters
    ----------
    hu : ndarray
        HU of the parenchyma before vessels; not changed.
    line_mm : float
        Least half width of a line that the pixels can show.

    Returns
    -------
    hu : ndarray
        float32, with disease.
    lesion_mask : ndarray
        bool, where disease changed the lung by a visible amount.
    """
    p = profile
    weight = involvement(p, place)
    active = weight > 0.02
    if not active.any():
        return hu.copy(), np.zeros(hu.shape, bool)
    out = hu.copy()
    bend = fractal_noise(place.x, place.y, place.z_mm, 9.0, place.seed + 102, where=active)
    turn = fractal_noise(place.x, place.y, place.z_mm, 9.0, place.seed + 103, where=active)
    wx = (place.x + np.float32(1.3) * bend).astype(np.float32)
    wy = (place.y + np.float32(1.3) * turn).astype(np.float32)
    mottle = fractal_noise(
        place.x, place.y, place.z_mm, 7.0, place.seed + 104, n_octaves=3, where=active
    )

    if p.ground_glass > 0.02:
        share = weight * p.ground_glass * np.clip(0.75 + 0.22 * mottle, 0.1, 1.15)
        out += share * (np.float32(-470) - out)
    if p.septa > 0.02:
        _, wall = cell_noise(wx, wy, place.z_mm, 15.0, place.seed + 105, where=active)
        _line(out, wall, 0.5, line_mm, smooth_step(0.15, 0.7, weight) * p.septa, -230)
    if p.reticulation > 0.02:
        _, wall = cell_noise(wx, wy, place.z_mm, 7.0, place.seed + 106, where=active)
        strength = smooth_step(0.05, 0.6, weight) * p.reticulation
        out += strength * np.float32(0.22) * (np.float32(-420) - out)
        _line(out, wall, 0.6, line_mm, strength * np.clip(0.8 + 0.3 * bend, 0, 1), -110)
    if p.perilobular > 0.02:
        _, wall = cell_noise(
            (wx + 2 * bend).astype(np.float32),
            (wy + 2 * turn).astype(np.float32),
            place.z_mm,
            19.0,
            place.seed + 107,
            where=active,
        )
        strength = p.perilobular * smooth_step(0.1, 0.7, weight)
        strength = strength * np.clip(0.55 + 0.45 * mottle, 0, 1)
        _line(out, wall, 1.3, 1.0, strength, -180)
    if p.consolidation > 0.02:
        clump = fractal_noise(
            place.x, place.y, place.z_mm, 22.0, place.seed + 108, n_octaves=3, where=active
        )
        level = weight * (0.55 + 0.65 * p.consolidation) + 0.16 * clump
        share = smooth_step(0.92, 1.12, level + 0.18 * (p.consolidation - 0.5))
        out += share * (np.float32(15) + 12 * mottle - out)
    if p.honeycomb > 0.05:
        _honeycomb(p, place, wx, wy, weight, out)
    changed = (np.abs(out - hu) > 70) & place.inside
    return out, changed & active


def _line(
    out: Field, wall: Field, half_width: float, soft: float, strength: Field, value: float
) -> None:
    share = strength * np.clip(0.5 + (np.float32(half_width) - wall) / np.float32(soft), 0, 1)
    out += share * np.maximum(np.float32(value) - out, 0)


def _honeycomb(
    p: Profile, place: LungPlace, wx: Field, wy: Field, weight: Field, out: Field
) -> None:
    """Stacked cysts of 3 to 10 mm with shared walls, under the pleura, in place."""
    clusters = fractal_noise(
        place.x, place.y, place.z_mm, 26.0, place.seed + 109, n_octaves=2, where=weight > 0.3
    )
    depth = 4.0 + 22.0 * p.honeycomb * np.clip(place.height, 0, 1)
    core = weight + 0.22 * clusters + 0.35 * (p.honeycomb - 0.5) - place.outer_mm / (2.2 * depth)
    core = core + 0.9 * (place.height - 0.72) + 0.12 * place.dorsal
    share = smooth_step(0.42, 0.52, core) * (weight > 0.3)
    where = share > 0.02
    if not where.any():
        return
    nearest, wall = cell_noise(wx, wy, place.z_mm, 6.8, place.seed + 110, where=where)
    # Round off the polygons: a cyst ends where its center is far or a neighbor is near.
    inner = np.minimum(wall - np.float32(0.65), np.float32(4.1) + 0.4 * clusters - nearest)
    lumen = np.clip(0.5 + inner / np.float32(0.7), 0, 1)
    cysts = np.float32(-140) + lumen * np.float32(-800)
    out += share * (cysts - out)


def draw_distractors(profile: Profile, place: LungPlace, hu: Field) -> None:
    """Emphysema holes, one small nodule, a band of atelectasis, in place."""
    p = profile
    rng = np.random.Generator(np.random.Philox(key=[place.seed, 77]))
    spots = rng.uniform(-1, 1, 8)
    if p.emphysema:
        nearest, _ = cell_noise(
            place.x, place.y, place.z_mm, 11.0, place.seed + 121, where=place.inside
        )
        field = fractal_noise(
            place.x, place.y, place.z_mm, 40.0, place.seed + 122, where=place.inside
        )
        upper = float(smooth_step(0.75, 0.15, place.height))
        share = smooth_step(4.5, 2.5, nearest) * smooth_step(
            0.9, 1.6, field + 1.6 * upper * p.emphysema
        )
        share = share * place.inside
        hu += share * (np.float32(-970) - hu)
    if p.nodule:
        level = 0.5 + 0.3 * spots[0]
        side = 1.0 if spots[1] > 0 else -1.0
        squared = (
            (place.x - side * (70 + 22 * spots[2])) ** 2
            + (place.y - 10 - 30 * spots[3]) ** 2
            + ((place.height - level) * 225) ** 2
        )
        share = np.clip(0.5 + (p.nodule - np.sqrt(squared)) / 0.8, 0, 1) * place.inside
        hu += share * (np.float32(20) - hu)
    if p.atelectasis and abs(place.height - 0.75 - 0.1 * spots[4]) < 0.035:
        line = place.y - 35 * spots[5] - 0.35 * spots[6] * place.x + 20 * (place.height - 0.75)
        band = np.abs(line) - 1.4
        one_side = (place.x > 0) == (spots[7] > 0)
        near = place.pleura_mm < 32
        share = np.clip(0.5 - band / 1.2, 0, 1) * one_side * near * place.inside * p.atelectasis
        hu += share.astype(np.float32) * (np.float32(-150) - hu)
