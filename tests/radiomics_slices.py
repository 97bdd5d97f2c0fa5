"""Real and made-up slices for the radiomics tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ildsdk.errors import SliceUnusableError
from ildsdk.lung import segment_lung

Slice = tuple[str, npt.NDArray[np.float32], npt.NDArray[np.bool_], tuple[float, float]]


def texture(
    seed: int, shape: tuple[int, int] = (64, 72), smoothing: float = 1.5
) -> npt.NDArray[np.float32]:
    """Smooth random HU around -750, whole numbers."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), smoothing)
    return np.round(field / field.std() * 120.0 - 750.0).astype(np.float32)


def blob(shape: tuple[int, int] = (64, 72), share: float = 0.4) -> npt.NDArray[np.bool_]:
    """Ellipse with two holes."""
    rows, columns = np.indices(shape)
    y = (rows - shape[0] / 2) / (shape[0] * share)
    x = (columns - shape[1] / 2) / (shape[1] * share)
    hole = (np.hypot(y - 0.3, x) < 0.15) | (np.hypot(y + 0.2, x + 0.4) < 0.1)
    return (y * y + x * x < 1.0) & ~hole


def phantom_lungs(n_cases: int, n_slices: int, size: int = 512) -> Iterator[Slice]:
    """Lung slices of phantoms of all four classes, with the lung mask the product takes."""
    from export.phantom import LABELS, PhantomSettings, generate_case

    chosen = PhantomSettings(size=size, n_slices=n_slices)
    for label in LABELS:
        for seed in range(n_cases):
            case = generate_case(label, 700 + seed, chosen)
            for number, pixels in enumerate(case.pixels_hu):
                pixels_hu = np.maximum(pixels, -1024).astype(np.float32)
                try:
                    mask = segment_lung(pixels_hu, case.pixel_spacing_mm).lung_mask
                except SliceUnusableError:
                    continue
                yield f"{label}-{seed}-{number}", pixels_hu, mask, case.pixel_spacing_mm


def real_pictures(
    shared_data: Path,
) -> Iterator[tuple[str, npt.NDArray[np.float32], tuple[float, float]]]:
    """Name, HU and spacing of every readable axial picture of the data folder."""
    import pydicom
    from PIL import Image

    for path in sorted((shared_data / "dicom").rglob("*.dcm")):
        header = pydicom.dcmread(path)
        pixels = header.pixel_array.astype(np.float32)
        pixels = pixels * np.float32(header.RescaleSlope) + np.float32(header.RescaleIntercept)
        spacing = tuple(float(mm) for mm in header.PixelSpacing)
        yield path.stem, np.maximum(pixels, np.float32(-1024)), (spacing[0], spacing[1])
    for path in sorted((shared_data / "png").rglob("*.png")):
        gray = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
        yield (
            path.stem,
            gray / np.float32(255.0) * np.float32(1500.0) - np.float32(1250.0),
            (0.7, 0.7),
        )


def real_lungs(shared_data: Path) -> Iterator[Slice]:
    """Every picture the lung mask accepts, with its mask."""
    for name, pixels, spacing in real_pictures(shared_data):
        try:
            yield name, pixels, segment_lung(pixels, spacing).lung_mask, spacing
        except SliceUnusableError:
            continue


def real_regions(shared_data: Path) -> Iterator[Slice]:
    """Of each accepted picture: both lungs, the left and the right half of the mask."""
    for name, pixels, mask, spacing in real_lungs(shared_data):
        columns = np.flatnonzero(mask.any(axis=0))
        middle = int((columns[0] + columns[-1]) // 2)
        left, right = mask.copy(), mask.copy()
        left[:, middle:] = False
        right[:, :middle] = False
        for part, region in (("both", mask), ("left", left), ("right", right)):
            if np.count_nonzero(region) > 1:
                yield f"{name}-{part}", pixels, region, spacing
