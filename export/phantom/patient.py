"""Draws one synthetic patient: body build, organs, pose and table."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Build of one patient; lengths in mm, HU where the name says so.

    The patient frame: x to the patient's left, y to the back, z downwards from the lung apex
    (0) to the lowest recess (``lung_height_mm``).
    """

    sex: str
    half_width_mm: float
    half_depth_mm: float
    lung_height_mm: float
    squareness: float
    fat_mm: float
    muscle_mm: float
    breast_mm: float
    heart_scale: float
    aorta_radius_mm: float
    trachea_radius_mm: float
    carina: float
    dome_right: float
    dome_left: float
    mediastinal_width: float
    junction_x_mm: float
    rib_offset: float
    rib_pitch_mm: float
    vessel_density: float
    contrast_hu: float
    lung_hu: float
    gravity_hu: float
    rotation_rad: float
    center_x_mm: float
    center_y_mm: float
    prone: bool
    arms_down: bool
    table_shape: int
    stomach_gas: float
    calcification: float
    bend_mm: float
    clothes_mm: float
    field_seed: int


def draw_patient(rng: np.random.Generator, *, volume_loss: float) -> Patient:
    """Draw a patient; ``volume_loss`` (0 to 1) shortens the lungs and raises the diaphragm."""
    male = rng.random() < 0.5
    build = rng.normal(1.0, 0.055) * (1.0 if male else 0.93)
    obesity = rng.beta(2.0, 3.0)
    age = rng.uniform(30, 85)
    shrink = 1 - 0.2 * volume_loss
    return Patient(
        sex="M" if male else "F",
        half_width_mm=float(126 * build * rng.normal(1, 0.03)),
        half_depth_mm=float(86 * build * rng.normal(1, 0.06)),
        lung_height_mm=float(np.clip(rng.normal(228, 16), 190, 270) * build * shrink),
        squareness=float(rng.uniform(2.15, 2.7)),
        fat_mm=float(5 + 30 * obesity),
        muscle_mm=float(rng.uniform(9, 16) * (1.0 if male else 0.85)),
        breast_mm=0.0 if male else float(rng.uniform(8, 38)),
        heart_scale=float(rng.normal(1.0, 0.08)),
        aorta_radius_mm=float(10.5 + 4.5 * (age - 30) / 55 + rng.normal(0, 0.7)),
        trachea_radius_mm=float(rng.uniform(7.0, 9.5)),
        carina=float(rng.uniform(0.34, 0.39)),
        dome_right=float(rng.uniform(0.62, 0.72) - 0.04 * volume_loss),
        dome_left=float(rng.uniform(0.66, 0.76) - 0.04 * volume_loss),
        mediastinal_width=float(rng.uniform(0.85, 1.2)),
        junction_x_mm=float(rng.uniform(-5, 9)),
        rib_offset=float(rng.random()),
        rib_pitch_mm=float(rng.uniform(23, 28)),
        vessel_density=float(rng.uniform(0.75, 1.25)),
        contrast_hu=float(rng.uniform(80, 240)) if rng.random() < 0.1 else 0.0,
        lung_hu=float(rng.normal(-862, 18) + 25 * volume_loss),
        gravity_hu=float(rng.uniform(15, 70)),
        rotation_rad=float(np.deg2rad(rng.normal(0, 3.0))),
        center_x_mm=float(rng.normal(0, 8)),
        center_y_mm=float(rng.normal(4, 9)),
        prone=bool(rng.random() < 0.08),
        arms_down=bool(rng.random() < 0.06),
        table_shape=int(rng.integers(0, 3)),
        stomach_gas=float(rng.uniform(0, 1)),
        calcification=float(rng.uniform(0, 1) * (age > 60)),
        bend_mm=float(rng.uniform(1.5, 4.0)),
        clothes_mm=float(rng.uniform(3, 14)) if rng.random() < 0.55 else 0.0,
        field_seed=int(rng.integers(0, 2**31)),
    )
