"""Geometry of the chest: signed distances of body parts in one slice.

All distances are in mm, negative inside. They are exact enough near a border to
draw it without steps; far from it they only have the right sign.
"""

from __future__ import annotations

import dataclasses
import math

import numba as nb
import numpy as np
import numpy.typing as npt

from export.phantom.noise import fractal_noise
from export.phantom.patient import Patient

Field = npt.NDArray[np.float32]


def smooth_step(low: float, high: float, value: Field | float) -> Field:
    """Cubic step from 0 at ``low`` to 1 at ``high`` (either may be the larger)."""
    ratio = np.clip((np.asarray(value, np.float32) - low) / (high - low), 0, 1)
    return (ratio * ratio * (3 - 2 * ratio)).astype(np.float32)


def smooth_union(first: Field, second: Field, radius_mm: float) -> Field:
    """Union of two distances with a fillet of ``radius_mm``."""
    out = np.empty(first.shape, np.float32)
    _fill_union(first, second, np.float32(radius_mm), out)
    return out


def ellipse(
    x: Field,
    y: Field,
    center_x: float,
    center_y: float,
    radius_x: float,
    radius_y: float,
    angle_rad: float = 0.0,
) -> Field:
    """Signed distance (exact to first order at the border) of a rotated ellipse."""
    out = np.empty(x.shape, np.float32)
    numbers = (center_x, center_y, np.cos(angle_rad), np.sin(angle_rad), 1 / radius_x, 1 / radius_y)
    _fill_ellipse(x, y, *(np.float32(number) for number in numbers), out)
    return out


def capsule(
    x: Field, y: Field, start: tuple[float, float], end: tuple[float, float], radius: float
) -> Field:
    """Signed distance of a thick line."""
    out = np.empty(x.shape, np.float32)
    numbers = (start[0], start[1], end[0] - start[0], end[1] - start[1], radius)
    _fill_capsule(x, y, *(np.float32(number) for number in numbers), out)
    return out


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _fill_union(first, second, radius, out):  # type: ignore[no-untyped-def]
    half, one = np.float32(0.5), np.float32(1)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            a, b = np.float32(first[row, column]), np.float32(second[row, column])
            blend = min(one, max(np.float32(0), half + half * (b - a) / radius))
            out[row, column] = b + (a - b) * blend - radius * blend * (one - blend)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _fill_ellipse(x, y, cx, cy, cos, sin, inverse_x, inverse_y, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            dx, dy = x[row, column] - cx, y[row, column] - cy
            u = (dx * cos + dy * sin) * inverse_x
            v = (dy * cos - dx * sin) * inverse_y
            level = np.float32(math.sqrt(u * u + v * v))
            u *= inverse_x
            v *= inverse_y
            slope = np.float32(math.sqrt(u * u + v * v)) + np.float32(1e-6)
            # Gradient of the level is (slope / level); their quotient is a distance.
            out[row, column] = (level - np.float32(1)) * (level + np.float32(1e-4)) / slope


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _fill_capsule(x, y, sx, sy, dx, dy, radius, out):  # type: ignore[no-untyped-def]
    squared = dx * dx + dy * dy + np.float32(1e-6)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            px, py = x[row, column] - sx, y[row, column] - sy
            along = min(np.float32(1), max(np.float32(0), (px * dx + py * dy) / squared))
            ex, ey = px - along * dx, py - along * dy
            out[row, column] = np.float32(math.sqrt(ex * ex + ey * ey)) - radius


def _bump(height: float, center: float, half_width: float) -> float:
    """Half-ellipse profile along z: 1 at the center, 0 beyond the half width."""
    ratio = (height - center) / half_width
    return float(np.sqrt(1 - ratio * ratio)) if abs(ratio) < 1 else 0.0


@dataclasses.dataclass(slots=True)
class Section:
    """Distances of one slice; what is not in the slice is absent from ``organs``."""

    height: float
    z_mm: float
    cavity: Field
    body: Field
    muscle: Field
    spine: Field
    mediastinum: Field
    diaphragm: Field
    lung: Field
    y_back: float
    y_front: float
    half_width: float
    half_depth: float
    center_y: float
    organs: list[tuple[Field, str]]


_WIDTH = ([-0.05, 0.0, 0.04, 0.1, 0.25, 0.45, 0.7, 1.0], [0.2, 0.4, 0.52, 0.66, 0.84, 0.95, 1.0, 1])
_DEPTH = ([-0.05, 0.0, 0.1, 0.25, 0.5, 0.8, 1.05], [0.34, 0.42, 0.6, 0.79, 0.96, 1.0, 0.98])


def section_at(patient: Patient, x: Field, y: Field, z_mm: float) -> Section:
    """Distances of all large parts at ``z_mm`` below the apex.

    Parameters
    ----------
    x, y : ndarray
        float32 ``(n_rows, n_columns)``, pixel places in the patient frame, mm.
    """
    p = patient
    t = z_mm / p.lung_height_mm
    half_width = float(np.interp(t, *_WIDTH)) * p.half_width_mm
    half_depth = float(np.interp(t, *_DEPTH)) * p.half_depth_mm
    y_back = p.half_depth_mm * (0.78 + 0.22 * float(smooth_step(0.0, 0.4, t)))
    center_y = y_back - half_depth
    y_front = y_back - 2 * half_depth
    # No body is symmetric or made of ellipses: bend the frame a little.
    bend = np.float32(p.bend_mm)
    x, y = (
        x + bend * fractal_noise(x, y, z_mm * 0.6, 75.0, p.field_seed + 13, n_octaves=2),
        y + bend * fractal_noise(x, y, z_mm * 0.6, 75.0, p.field_seed + 14, n_octaves=2),
    )
    wobble = fractal_noise(x, y, z_mm, 55.0, p.field_seed + 11, n_octaves=2)

    v = (y - np.float32(center_y)) / np.float32(half_depth)
    u = np.abs(x) / (np.float32(half_width) * (1 + np.float32(0.1) * np.clip(v, -1.2, 1.2)))
    # The lungs reach back on both sides of the spine.
    gutter = np.exp(-(((np.abs(x) - 0.42 * half_width) / (0.3 * half_width)) ** 2))
    v = v / (1 + np.float32(0.13) * gutter * (v > 0))
    n = np.float32(p.squareness)
    level = (u**n + np.abs(v) ** n) ** (1 / n) + np.float32(1e-3)
    reach = np.hypot(x, y - np.float32(center_y))
    cavity = (level - 1) * reach / level + np.float32(0.9) * wobble

    upper = float(smooth_step(0.55, 0.1, t))
    side = 1 - np.clip(np.abs(v), 0, 1)
    front = smooth_step(0.1, -0.6, v)
    # The back of the trunk is flatter than the cavity: muscle fills the corners beside the spine.
    rear = y_back + 30.0 + 5 * upper + 0.4 * p.muscle_mm
    face = y_front - 10.0 - 0.25 * p.muscle_mm
    wall = p.muscle_mm + 7.0 + 12 * upper
    trunk_depth = 0.5 * (rear - face)
    trunk_v = (y - np.float32(0.5 * (rear + face))) / np.float32(trunk_depth)
    trunk_u = np.abs(x) / np.float32(half_width + wall)
    trunk_level = (trunk_u**2.4 + np.abs(trunk_v) ** 2.4) ** (1 / 2.4) + np.float32(1e-3)
    trunk_reach = np.hypot(x, y - np.float32(0.5 * (rear + face)))
    groove = 3.5 * np.exp(-((x / 9) ** 2)) * smooth_step(0.5, 0.9, trunk_v)
    muscle = (trunk_level - 1) * trunk_reach / trunk_level + groove - np.float32(0.8) * wobble
    muscle = smooth_union(
        muscle, cavity - 8.0 - 10 * upper * front * smooth_step(5, 40, np.abs(x)), 8
    )
    fat = p.fat_mm * (0.7 + 0.35 * side) + 2.5 - 0.5 * groove
    if p.breast_mm:
        swell = _bump(t, 0.5, 0.3) * p.breast_mm
        fat = fat + swell * np.exp(-(((np.abs(x) - 75) / 38) ** 2)) * front
    body = muscle - fat
    shoulder = float(smooth_step(0.2, -0.02, t))
    if shoulder > 0:
        reach = p.half_width_mm * (0.55 + 0.42 * shoulder)
        wide = capsule(
            x,
            y * np.float32(1.12),
            (-reach, 1.12 * (center_y + 12)),
            (reach, 1.12 * (center_y + 12)),
            0.5 * p.half_depth_mm + 0.7 * p.fat_mm,
        )
        wide = wide + 18 * (1 - shoulder)
        body = smooth_union(body, wide, 24)
        muscle = smooth_union(muscle, wide + p.fat_mm * 0.8 + 3, 20)

    spine_y = y_back - 15.0
    spine = ellipse(x, y, 0, spine_y, 17.5, 14.5)
    spine = smooth_union(spine, ellipse(x, y, 0, y_back + 12, 24, 18), 8)

    organs = _mediastinal_organs(p, x, y, t, y_back, half_depth)

    def at(share: float) -> float:
        """Place along the way from back (0) to front (1)."""
        return y_back - share * 2 * half_depth

    strip_width = p.mediastinal_width * (
        9.0 + 17.0 * float(smooth_step(0.34, 0.12, t)) * (t > -0.1)
    )
    wedge = 13.0 + 18.0 * float(smooth_step(0.4, 0.6, t))
    junction = p.junction_x_mm
    mediastinum = smooth_union(
        capsule(x, y, (2, at(0.2)), (0, at(0.66)), strip_width),
        capsule(x, y, (0, at(0.66)), (junction, at(0.97)), 0.5 + 0.1 * wedge * p.mediastinal_width),
        20,
    )
    mediastinum = smooth_union(
        mediastinum,
        ellipse(x, y, junction, at(1.0), wedge * p.mediastinal_width, 0.6 * wedge),
        14,
    )
    mediastinum = mediastinum + np.float32(1.2) * fractal_noise(
        x, y, z_mm, 22.0, p.field_seed + 12, n_octaves=2
    )
    for distance, kind in organs:
        if kind in ("blood", "heart", "airway", "esophagus"):
            mediastinum = smooth_union(mediastinum, distance - 2.5, 7)
    diaphragm = _diaphragm(p, x, y, z_mm, half_width, half_depth, center_y)
    lung = np.maximum(cavity + 1.2, -smooth_union(mediastinum, spine - 2.0, 6))
    lung = np.maximum(lung, diaphragm)
    # Round the sharp corners that the cuts leave.
    if t < 0.12:
        apex = ellipse(x, y, 0.52 * half_width, center_y + 4, 0.52 * half_width, half_depth)
        apex = np.minimum(
            apex, ellipse(x, y, -0.52 * half_width, center_y + 4, 0.52 * half_width, half_depth)
        )
        lung = np.maximum(lung, apex - 60 * max(t, -0.05) - 1)
        if t < 0:
            lung = lung + 40
    return Section(
        height=t,
        z_mm=z_mm,
        cavity=cavity,
        body=body,
        muscle=muscle,
        spine=spine,
        mediastinum=mediastinum,
        diaphragm=diaphragm,
        lung=lung.astype(np.float32),
        y_back=y_back,
        y_front=y_front,
        half_width=half_width,
        half_depth=half_depth,
        center_y=center_y,
        organs=organs,
    )


def _diaphragm(
    p: Patient, x: Field, y: Field, z_mm: float, half_width: float, half_depth: float, cy: float
) -> Field:
    """Distance of the diaphragm's upper surface, negative above it (towards the lungs)."""
    right = x < 0
    top = np.where(right, p.dome_right, p.dome_left).astype(np.float32) * p.lung_height_mm
    u = (np.abs(x) - 0.45 * half_width) / (0.55 * half_width)
    v = (y - (cy - 0.12 * half_depth)) / half_depth
    radius_squared = u * u + v * v
    depth = p.lung_height_mm * 1.03 - top
    depth = depth * (0.8 + 0.2 * np.clip(v * 1.5, -1, 1))
    ripple = fractal_noise(x, y, 0.0, 38.0, p.field_seed + 21, n_octaves=2)
    surface = top + depth * np.clip(radius_squared, 0, 1.4) ** 0.9 + 3.0 * ripple
    slope = 2 * depth * np.sqrt(radius_squared + 1e-4) / (0.6 * half_width)
    return ((z_mm - surface) / np.sqrt(1 + slope * slope)).astype(np.float32)


def _mediastinal_organs(
    p: Patient, x: Field, y: Field, t: float, y_back: float, half_depth: float
) -> list[tuple[Field, str]]:
    """Organs between the lungs that this height shows, painted in this order."""
    organs: list[tuple[Field, str]] = []

    def at(share: float) -> float:
        return y_back - share * 2 * half_depth

    aorta = p.aorta_radius_mm
    heart = _bump(t, 0.67, 0.215)
    if heart:
        scale = p.heart_scale * p.half_width_mm / 126
        organs.append(
            (
                ellipse(
                    x, y, 22 * scale, at(0.62), 54 * scale * heart, 42 * scale * heart**0.7, 0.55
                ),
                "heart",
            )
        )
        atrium = _bump(t, 0.64, 0.15)
        if atrium:
            organs.append(
                (
                    ellipse(x, y, -22 * scale, at(0.6), 25 * scale * atrium, 33 * scale * atrium),
                    "heart",
                )
            )
    left_atrium = _bump(t, 0.555, 0.09)
    if left_atrium:
        organs.append((ellipse(x, y, 2, at(0.42), 36 * left_atrium, 19 * left_atrium), "heart"))
    arch = _bump(t, 0.25, 0.05)
    if arch:
        organs.append((capsule(x, y, (21, y_back - 38), (-6, at(0.66)), aorta * arch + 1), "blood"))
    if t > 0.25:
        shift = 21 - 14 * float(smooth_step(0.6, 1.0, t))
        organs.append((ellipse(x, y, shift, y_back - 38, aorta, aorta), "blood"))
    if 0.25 < t < 0.6:
        size = aorta * 1.22
        organs.append((ellipse(x, y, -11 + 12 * (t - 0.3), at(0.66), size, size), "blood"))
    if 0.1 < t < 0.56:
        organs.append((ellipse(x, y, -27, at(0.62), 8.5, 9.5), "blood"))
    if t < 0.24:
        spread = 1 + 1.2 * float(smooth_step(0.12, -0.05, t))
        organs.extend(
            [
                (ellipse(x, y, -15 * spread, at(0.62), 7, 7), "blood"),
                (ellipse(x, y, -3, at(0.68), 5.5, 5.5), "blood"),
                (ellipse(x, y, 13 * spread, at(0.52), 5, 5.5), "blood"),
                (ellipse(x, y, 18 * spread, at(0.66), 7, 6), "blood"),
            ]
        )
    trunk = _bump(t, 0.43, 0.1)
    if trunk:
        organs.append((ellipse(x, y, 20, at(0.7), 14 * trunk, 15 * trunk), "blood"))
    left_artery = _bump(t, 0.4, 0.05)
    if left_artery:
        organs.append((capsule(x, y, (20, at(0.66)), (40, at(0.46)), 10 * left_artery), "blood"))
    right_artery = _bump(t, 0.445, 0.045)
    if right_artery:
        organs.append((capsule(x, y, (16, at(0.6)), (-38, at(0.5)), 9.5 * right_artery), "blood"))
    for side, base, height in ((-1, 36, 0.475), (1, 36, 0.47)):
        hilum = _bump(t, height, 0.1)
        if hilum:
            organs.append((ellipse(x, y, side * base, at(0.45), 11 * hilum, 13 * hilum), "blood"))
    if 0.6 < t < 1.1:
        organs.append((ellipse(x, y, -20, at(0.42), 12, 10), "blood"))
    gullet_x = 8 if t < 0.75 else 14
    organs.append((ellipse(x, y, gullet_x, y_back - 42, 8, 5.5), "esophagus"))
    airway_y = at(0.42)
    if t < p.carina:
        radius = p.trachea_radius_mm
        organs.append((ellipse(x, y, -1, airway_y, radius, radius * 0.92), "airway"))
    elif t < p.carina + 0.14:
        below = (t - p.carina) * p.lung_height_mm
        radius = p.trachea_radius_mm * 0.78
        for side, spread in ((-1, 0.75), (1, 1.05)):
            center = side * (6 + spread * below)
            if abs(center) < 44:
                organs.append(
                    (
                        ellipse(x, y, center, airway_y + 0.15 * below, radius * 1.25, radius),
                        "airway",
                    )
                )
    return organs
