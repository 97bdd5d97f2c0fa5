"""The scanner: kernel, dose noise, streaks and padding."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from export.phantom.anatomy import Field


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """How one series was taken; lengths in mm.

    Attributes
    ----------
    blur_mm, sharpen : float
        Gaussian edge width of the kernel; amount of edge enhancement.
    noise_hu : float
        Standard deviation of the noise in the middle of the body at 512 pixels.
    grain_mm : float
        Correlation length of the noise.
    padding_hu : int or None
        Value outside the reconstruction circle, None for none.
    """

    kernel: str
    blur_mm: float
    sharpen: float
    noise_hu: float
    grain_mm: float
    slice_thickness_mm: float
    field_of_view_mm: float
    padding_hu: int | None
    kvp: int
    tube_current_ma: int


def draw_scan(rng: np.random.Generator, body_width_mm: float) -> Scan:
    """Draw kernel, dose, slice thickness and field of view for a body of this width."""
    sharp = rng.random() < 0.7
    thickness = float(rng.choice([1.0, 1.25, 1.5, 2.0, 5.0], p=[0.38, 0.42, 0.08, 0.09, 0.03]))
    current = int(rng.integers(8, 36) * 10)
    noise = (34.0 if sharp else 14.0) * np.sqrt(160 / current) * np.sqrt(1.25 / thickness)
    field = float(np.clip(body_width_mm * rng.uniform(0.94, 1.15), 0.6 * 512, 0.9 * 512))
    return Scan(
        kernel="PHANTOM-SHARP" if sharp else "PHANTOM-SOFT",
        blur_mm=float(rng.uniform(0.3, 0.45) if sharp else rng.uniform(0.55, 0.85)),
        sharpen=float(rng.uniform(0.2, 0.8)) if sharp else 0.0,
        noise_hu=float(np.clip(noise * rng.uniform(0.8, 1.25), 6, 62)),
        grain_mm=0.32 if sharp else 0.75,
        slice_thickness_mm=thickness,
        field_of_view_mm=field,
        padding_hu=[None, -1024, -2000, -3024][int(rng.choice(4, p=[0.4, 0.3, 0.25, 0.05]))],
        kvp=int(rng.choice([100, 120, 140], p=[0.15, 0.8, 0.05])),
        tube_current_ma=current,
    )


def acquire(
    scan: Scan,
    hu: Field,
    body: npt.NDArray[np.bool_],
    height: float,
    spacing_mm: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Blur, noise, streaks, padding: from the true HU to stored pixels.

    Parameters
    ----------
    hu : ndarray
        float32 ``(n_rows, n_columns)``.
    body : ndarray
        bool, inside the body (there is more noise there than in the air around).
    height : float
        0 apex, 1 base; the shoulders cast streaks.
    """
    size = hu.shape[0]
    image = ndimage.gaussian_filter(hu, scan.blur_mm / spacing_mm, truncate=2.5)
    if scan.sharpen:
        soft = ndimage.gaussian_filter(image, 0.9 / spacing_mm, truncate=2.5)
        image += np.float32(scan.sharpen) * (image - soft)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    grain = max(scan.grain_mm, 0.25 * spacing_mm) / spacing_mm
    noise = ndimage.gaussian_filter(noise, grain, truncate=2.5)
    # A reconstruction filter has no noise at the lowest frequencies.
    noise -= ndimage.gaussian_filter(noise, 3.0 * grain + 0.5, truncate=2.0)
    noise *= np.float32(1 / max(float(noise.std()), 1e-6))
    dim = ndimage.uniform_filter(body.astype(np.float32), max(3, size // 5))
    strength = scan.noise_hu * (0.3 + 0.75 * dim)
    if height < 0.15:
        streaks = rng.standard_normal((size, 1), dtype=np.float32)
        streaks = ndimage.gaussian_filter1d(streaks, 0.8, axis=0)
        wave = ndimage.gaussian_filter(noise, (0.5, size / 24))
        wave *= np.float32(1 / max(float(wave.std()), 1e-6))
        power = (0.15 - height) / 0.15
        image += (0.7 * power * scan.noise_hu) * (0.4 * streaks + wave) * dim
        strength = strength * (1 + 0.5 * power)
    image += strength * noise
    np.clip(image, -1024, 3071, out=image)
    stored = np.rint(image).astype(np.int16)
    if scan.padding_hu is not None:
        grid = np.arange(size, dtype=np.float32) - (size - 1) / 2
        outside = grid[None, :] ** 2 + grid[:, None] ** 2 > (size / 2) ** 2
        stored[outside] = scan.padding_hu
    return stored
