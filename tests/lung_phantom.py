"""Synthetic axial slices for the lung-mask tests: known lungs, chosen disease."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

FIELD_MM = 380.0


@dataclasses.dataclass(frozen=True)
class PhantomSlice:
    """A slice and the truth about it."""

    pixels_hu: npt.NDArray[np.float32]
    spacing_mm: tuple[float, float]
    lung: npt.NDArray[np.bool_]  # anatomical lung, diseased or not
    disease: npt.NDArray[np.bool_]
    airway: npt.NDArray[np.bool_]

    @property
    def pixel_mm2(self) -> float:
        """Area of a pixel."""
        return self.spacing_mm[0] * self.spacing_mm[1]


def make_slice(
    *,
    disease: str = "none",
    spacing_mm: tuple[float, float] = (0.75, 0.75),
    field_mm: float = FIELD_MM,
    noise_hu: float = 25.0,
    circle: bool = False,
    stomach: bool = False,
    seed: int = 7,
) -> PhantomSlice:
    """Draw body, fat, ribs, spine, heart, lungs with vessels, trachea, table and disease.

    Parameters
    ----------
    disease : str
        "none", "ground-glass" (-450 HU over the back half of both lungs), "consolidation"
        (40 HU with air bronchograms along the back of one lung), "honeycomb" (walls along
        both rims).
    """
    n_rows, n_columns = (round(field_mm / step) for step in spacing_mm)
    y = ((np.arange(n_rows) + 0.5) * spacing_mm[0] - field_mm / 2)[:, None]
    x = ((np.arange(n_columns) + 0.5) * spacing_mm[1] - field_mm / 2)[None, :]

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
        return inside

    hu = np.full((n_rows, n_columns), -1000.0)
    hu[ellipse(0, 0, 160, 110)] = -100  # fat
    hu[ellipse(0, 0, 150, 100)] = 50  # muscle
    cage = ellipse(0, 0, 138, 88)
    ring = ellipse(0, 0, 144, 94) & ~cage
    sector = np.arctan2(y / 94, x / 144)
    hu[ring & (np.cos(9 * sector) > -0.3)] = 500  # ribs, gaps between them
    lung = cage & (ellipse(-78, 4, 54, 78) | ellipse(78, 4, 54, 78))
    lung &= ~ellipse(18, -20, 58, 48)  # heart
    hu[cage & ~lung] = 45
    hu[ellipse(0, 62, 24, 22)] = 400  # spine
    rng = np.random.default_rng(seed)
    hu[lung] = -850
    for _ in range(70):  # vessels
        cx, cy = rng.uniform(-130, 130), rng.uniform(-75, 80)
        radius = rng.uniform(1.0, 2.8)
        hu[ellipse(cx, cy, radius, radius) & lung] = 40
    airway = ellipse(-4, 34, 8, 8)
    hu[ellipse(-4, 34, 10, 10)] = 40
    hu[airway] = -1000
    sick = np.zeros(hu.shape, dtype=np.bool_)
    if disease == "ground-glass":
        sick = lung & (y > 5)
        hu[sick] += 400
    elif disease == "consolidation":
        sick = lung & (x < 0) & (y > 40)
        hu[sick] = 40
        for cx, cy in [
            (-100, 50),
            (-85, 55),
            (-70, 60),
            (-55, 50),
            (-62, 68),
            (-88, 68),
            (-45, 58),
        ]:
            hu[ellipse(cx, cy, 3.2, 3.2) & sick] = -800
    elif disease == "honeycomb":
        inner = ellipse(-78, 4, 42, 64) | ellipse(78, 4, 42, 64)
        sick = lung & ~inner
        wall = (np.mod(x, 8) < 2.2) | (np.mod(y, 8) < 2.2)
        hu[sick & wall] = -50
    if stomach:
        hu[ellipse(70, -30, 30, 20)] = 40
        hu[ellipse(70, -30, 26, 16)] = -1000
        lung &= ~ellipse(70, -30, 30, 20)
    table = (y > 125) & (y < 129) & (np.abs(x) < 170)
    hu[np.broadcast_to(table, hu.shape)] = 100
    hu[np.broadcast_to((y >= 129) & (y < 150) & (np.abs(x) < 170), hu.shape)] = -900  # foam
    hu += rng.normal(0, noise_hu, hu.shape)
    if circle:
        hu[np.broadcast_to(x**2 + y**2 > (field_mm / 2) ** 2, hu.shape)] = -3024
    return PhantomSlice(hu.astype(np.float32), spacing_mm, lung, sick, airway)


def dice(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Overlap of two masks, 1 if equal."""
    return 2.0 * float(np.count_nonzero(first & second)) / float(first.sum() + second.sum())
