"""Paints the body outside the lungs: skin, fat, muscle, bones, mediastinum, abdomen, table."""

from __future__ import annotations

import numba as nb
import numpy as np

from export.phantom.anatomy import Field, Section, capsule, ellipse
from export.phantom.noise import fractal_noise
from export.phantom.patient import Patient


def paint(hu: Field, distance_mm: Field, value: Field | float, edge_mm: float) -> None:
    """Lay ``value`` over ``hu`` where ``distance_mm`` is negative, with a soft edge, in place."""
    _lay(hu, distance_mm, np.broadcast_to(np.asarray(value, np.float32), hu.shape), 1 / edge_mm)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _lay(hu, distance, value, inverse_edge):  # type: ignore[no-untyped-def]
    scale = np.float32(inverse_edge)
    for row in range(hu.shape[0]):
        for column in range(hu.shape[1]):
            share = np.float32(0.5) - np.float32(distance[row, column]) * scale
            if share > 0:
                share = min(share, np.float32(1))
                hu[row, column] += share * (value[row, column] - hu[row, column])


def paint_body(patient: Patient, section: Section, x: Field, y: Field, edge_mm: float) -> Field:
    """HU of everything but the lungs' inside, float32, before blur and noise."""
    p, s = patient, section
    hu = np.full(x.shape, -1000, np.float32)
    seed = p.field_seed
    streaks = fractal_noise(x, y, s.z_mm * 0.5, 11.0, seed + 31, n_octaves=2)
    paint(hu, s.body, 25.0, edge_mm)
    paint(hu, s.body + 2.0, -102 + 6 * streaks, edge_mm)
    if p.breast_mm:
        gland = (np.abs(streaks) < 0.35) & (s.body < -7) & (s.muscle > 6) & (y < s.center_y - 20)
        hu += gland * np.float32(90)
    paint(hu, s.muscle, 52 + 5 * streaks, edge_mm)
    layer = np.abs(fractal_noise(x, y, s.z_mm * 0.3, 34.0, seed + 32, n_octaves=2)) - 0.11
    between = np.maximum(layer * 14, np.maximum(11 - s.cavity, s.muscle + 1.5))
    paint(hu, between, -85.0, edge_mm * 1.5)
    _paint_bones(p, s, x, y, hu, edge_mm)
    paint(hu, s.cavity, -95.0, edge_mm)
    paint(hu, np.maximum(np.abs(s.cavity + 0.2) - 1.0, s.diaphragm), 20.0, edge_mm)
    _paint_abdomen(p, s, x, y, hu, edge_mm, streaks)
    paint(hu, np.maximum(s.mediastinum, s.cavity), -92 + 10 * streaks, edge_mm)
    blood = 42.0 + p.contrast_hu
    for distance, kind in s.organs:
        if kind == "heart":
            paint(hu, distance, 44.0 + 0.7 * p.contrast_hu + 3 * streaks, edge_mm * 1.6)
        elif kind == "blood":
            paint(hu, distance, blood, edge_mm)
            if p.calcification > 0.5:
                rim = np.maximum(np.abs(distance + 0.8) - 0.9, 4 - 6 * streaks)
                paint(hu, rim, 380.0, edge_mm)
        elif kind == "esophagus":
            paint(hu, distance, 38.0, edge_mm)
            if p.stomach_gas > 0.6:
                paint(hu, distance + 4.2, -600.0, edge_mm)
        elif kind == "airway":
            paint(hu, distance - 1.6, 10.0, edge_mm)
            paint(hu, distance, -985.0, edge_mm)
    _paint_spine(p, s, x, y, hu, edge_mm)
    _paint_around(p, s, x, y, hu, edge_mm, streaks)
    return hu


def _paint_around(
    p: Patient, s: Section, x: Field, y: Field, hu: Field, edge: float, streaks: Field
) -> None:
    """Clothes and, in some, the arms beside the body."""
    if p.clothes_mm:
        folds = np.abs(s.body - p.clothes_mm - 2.5 * streaks) - 0.5
        paint(hu, np.maximum(folds, y - s.center_y), -820.0, edge * 1.5)
    if p.arms_down and s.height > 0.1:
        for side in (-1, 1):
            center = (side * (s.half_width + p.muscle_mm + p.fat_mm + 62), s.center_y + 22)
            arm = np.maximum(ellipse(x, y, *center, 40, 44), 2 - s.body)
            paint(hu, arm, -95.0, edge)
            paint(hu, arm + 9, 50 + 5 * streaks, edge)
            bone = ellipse(x, y, *center, 11, 11)
            paint(hu, bone, 900.0, edge)
            paint(hu, bone + 4.5, 60.0, edge)


def _paint_bones(p: Patient, s: Section, x: Field, y: Field, hu: Field, edge: float) -> None:
    angle = np.arctan2(np.abs(x), (y - s.center_y) * (s.half_width / s.half_depth))
    drop = np.float32(95) * (1 - np.cos(angle)) * 0.5
    phase = np.mod((s.z_mm - drop) / p.rib_pitch_mm + p.rib_offset, 1) - 0.5
    across = (s.cavity - 4.3) / 3.8
    along = phase * p.rib_pitch_mm / 6.2
    rib = (np.hypot(across, along) - 1) * 3.6
    # The rib ends in cartilage before the sternum.
    cartilage = np.maximum(rib, 2.55 - angle) if s.height > 0.12 else rib
    rib = np.maximum(rib, (angle - 2.6) * 30)
    wall = (s.cavity > 0) & (s.cavity < 45) & (s.body < 0)
    marrow = fractal_noise(x, y, s.z_mm, 3.5, p.field_seed + 33, where=wall)
    paint(hu, cartilage, 95.0, edge)
    paint(hu, rib, 780.0, edge)
    paint(hu, rib + 1.5, 230 + 70 * marrow, edge)
    if 0.02 < s.height < 0.72:
        wide = 26.0 if s.height < 0.15 else 17.0
        sternum = ellipse(x, y, 0, s.y_front - 7, wide, 6.0)
        paint(hu, sternum, 520.0, edge)
        paint(hu, sternum + 1.6, 170 + 60 * marrow, edge)
    if s.height < 0.1:
        for side in (-1, 1):
            end = (side * (40 + 520 * (0.1 - s.height)), s.y_front - 2 + 260 * (0.1 - s.height))
            clavicle = capsule(x, y, (side * 27, s.y_front - 3), end, 6.5)
            paint(hu, clavicle, 700.0, edge)
            paint(hu, clavicle + 1.8, 260 + 70 * marrow, edge)
    if s.height < 0.5:
        size = float(np.interp(s.height, [-0.05, 0.1, 0.3, 0.5], [46, 44, 34, 6]))
        for side in (-1, 1):
            place = (side * (s.half_width * 0.86 + 14), s.y_back - 16)
            tilt = side * 0.55
            dx, dy = size * np.cos(tilt), size * np.sin(tilt)
            blade = capsule(
                x,
                y,
                (place[0] + side * dx * 0.6, place[1] - abs(dy) * 1.3),
                (place[0] - side * dx * 0.7, place[1] + abs(dy) * 0.6),
                2.6,
            )
            if s.height < 0.12:
                head = ellipse(x, y, place[0] + side * dx * 0.7, place[1] - abs(dy) * 1.5, 17, 14)
                blade = np.minimum(blade, head)
            blade = np.maximum(blade, 3.5 - (s.cavity - 9.5))
            paint(hu, blade, 650.0, edge)
            paint(hu, blade + 1.7, 270 + 70 * marrow, edge)


def _paint_spine(p: Patient, s: Section, x: Field, y: Field, hu: Field, edge: float) -> None:
    near = (np.abs(x) < 45) & (np.abs(y - s.y_back) < 50)
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if not len(rows):
        return
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    x, y, hu, spine = x[box], y[box], hu[box], s.spine[box]
    marrow = fractal_noise(x, y, s.z_mm, 3.0, p.field_seed + 34, where=np.ones(x.shape, bool))
    pitch = 24.0
    disc = abs((s.z_mm / pitch + p.rib_offset + 0.3) % 1 - 0.5) > 0.42
    top = s.y_back - 15.0
    paint(hu, spine, 48.0, edge * 2)
    body = ellipse(x, y, 0, top, 15.5, 12.5)
    paint(hu, body, 110.0 if disc else 560.0, edge)
    paint(hu, body + 1.6, (95 if disc else 200) + 55 * marrow, edge)
    arch_y = top + 21
    arch = np.abs(ellipse(x, y, 0, arch_y, 11.5, 10.5)) - 2.6
    process = capsule(x, y, (0, arch_y + 11), (0, arch_y + 27), 3.0)
    bones = np.minimum(arch, process)
    for side in (-1, 1):
        wing = capsule(x, y, (side * 11, arch_y + 3), (side * 31, arch_y + 10), 3.8)
        bones = np.minimum(bones, wing)
        if not disc:
            head = capsule(x, y, (side * 17, top + 7), (side * 33, arch_y + 3), 3.6)
            bones = np.minimum(bones, head)
    paint(hu, bones, 640.0, edge)
    paint(hu, bones + 1.7, 260 + 60 * marrow, edge)
    paint(hu, ellipse(x, y, 0, arch_y, 8.5, 7.5), 30.0, edge)


def _paint_abdomen(
    p: Patient, s: Section, x: Field, y: Field, hu: Field, edge: float, streaks: Field
) -> None:
    if s.height < min(p.dome_right, p.dome_left) - 0.05:
        return
    under = np.maximum(-s.diaphragm, s.cavity + 1.5)
    soft = edge * 2.5
    paint(hu, under, 42.0, soft)
    inner = under + 2.5
    right = np.maximum(inner, x - 24)
    left = np.maximum(inner, 18 - x)
    paint(hu, right, 58 + 4 * streaks, soft)
    paint(hu, left, -88 + 8 * streaks, soft)
    spleen = np.maximum(
        left,
        ellipse(
            x,
            y,
            0.66 * s.half_width,
            s.center_y + 0.45 * s.half_depth,
            0.3 * s.half_width,
            0.36 * s.half_depth,
            0.5,
        ),
    )
    paint(hu, spleen, 52.0 + 0.5 * p.contrast_hu, edge)
    stomach = np.maximum(
        left,
        ellipse(
            x,
            y,
            0.44 * s.half_width,
            s.center_y - 0.22 * s.half_depth,
            (0.2 + 0.14 * p.stomach_gas) * s.half_width,
            (0.28 + 0.16 * p.stomach_gas) * s.half_depth,
        ),
    )
    paint(hu, stomach, 35.0, edge)
    paint(hu, stomach + 3.5, 22.0, edge)
    up = -1 if not p.prone else 1
    level = s.center_y + up * (0.22 + 0.3 * (1 - p.stomach_gas)) * s.half_depth
    gas = np.maximum(stomach + 3.5, (y - level) * -up)
    if p.stomach_gas > 0.35:
        paint(hu, gas, -960.0, edge)


def paint_table(p: Patient, x: Field, y: Field, hu: Field, edge: float, bottom_mm: float) -> None:
    """Draw the scanner table under the body, in the image frame, in place.

    ``bottom_mm`` is where the lowest part of the body lies (y of the image frame).
    """
    outside = hu < -900
    sheet = np.full(x.shape, 1e3, np.float32)
    sag = x * x / np.float32(900.0 if p.table_shape == 0 else 1500.0)
    line = y - (bottom_mm + 4 - sag * (0.8 if p.table_shape != 2 else 0.25))
    span = np.abs(x) - 215
    sheet = np.maximum(np.abs(line) - 1.1, span)
    second = np.maximum(np.abs(line - (16 if p.table_shape != 1 else 30)) - 0.9, span)
    layer = np.where(outside, hu, 0).astype(np.float32)
    foam = np.maximum(np.maximum(-line, line - 16), span)
    paint(layer, foam, -955.0, edge)
    paint(layer, sheet, -250.0, edge)
    paint(layer, second, -420.0, edge)
    if p.table_shape == 1:
        paint(layer, np.maximum(np.abs(y - bottom_mm - 48) - 1.5, np.abs(x) - 90), -150.0, edge)
    np.copyto(hu, layer, where=outside)
