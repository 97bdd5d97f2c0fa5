"""The whole mask against the rules in plain numpy: the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from ildsdk.errors import SliceUnusableError
from ildsdk.lung import segment_lung
from ildsdk.lung.reference.segment import segment_lung as by_the_rules
from ildsdk.records import LungMask
from tests.lung_phantom import make_slice


def _outcome(segment, pixels_hu: np.ndarray, spacing_mm: tuple[float, float]):  # type: ignore[no-untyped-def]
    try:
        return segment(pixels_hu, spacing_mm)
    except SliceUnusableError as refusal:
        return refusal.reason


def _same(pixels_hu: np.ndarray, spacing_mm: tuple[float, float]) -> LungMask | str:
    expected = _outcome(by_the_rules, pixels_hu, spacing_mm)
    found = _outcome(lambda *given: segment_lung(*given, min_area_mm2=1e-9), pixels_hu, spacing_mm)
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected
        return expected
    np.testing.assert_array_equal(found.lung_mask, expected.lung_mask)
    assert found.threshold_hu == expected.threshold_hu
    assert found.area_mm2 == expected.area_mm2
    return expected


def _resampled(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Nearest pixels."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(int)
        for new, old in zip(shape, pixels.shape, strict=True)
    )
    return pixels[np.ix_(rows, columns)]


@pytest.mark.parametrize(
    "shape",
    [(512, 512), (888, 1100), (400, 512), (768, 768), (511, 509), (257, 130), (64, 64), (65, 193)],
)
def test_sizes(shape: tuple[int, int]) -> None:
    phantom = make_slice(disease="consolidation")
    spacing_mm = tuple(
        step * old / new
        for step, old, new in zip(phantom.spacing_mm, phantom.pixels_hu.shape, shape, strict=True)
    )
    assert isinstance(_same(_resampled(phantom.pixels_hu, shape), spacing_mm), LungMask)


@pytest.mark.parametrize(
    "options",
    [
        {"disease": "honeycomb", "circle": True},
        {"disease": "ground-glass", "noise_hu": 60.0, "field_mm": 500.0},
        {"stomach": True, "spacing_mm": (0.6, 1.1)},
        {"field_mm": 250.0, "spacing_mm": (1.0, 1.0)},
        {"field_mm": 210.0},
        {"disease": "consolidation", "spacing_mm": (4.0, 0.5)},
    ],
)
def test_kinds_of_slices(options: dict) -> None:
    phantom = make_slice(**options)
    assert isinstance(_same(phantom.pixels_hu, phantom.spacing_mm), LungMask)
    turned = np.ascontiguousarray(np.rot90(phantom.pixels_hu))
    assert isinstance(_same(turned, phantom.spacing_mm[::-1]), LungMask)


def test_a_slice_that_is_its_own_mirror_image() -> None:
    """Where half-way values abound."""
    phantom = make_slice(disease="consolidation", spacing_mm=(1.0, 1.0))
    half = phantom.pixels_hu[:, : phantom.pixels_hu.shape[1] // 2]
    pixels = np.ascontiguousarray(np.concatenate([half, half[:, ::-1]], axis=1))
    assert isinstance(_same(pixels, phantom.spacing_mm), LungMask)


@pytest.mark.parametrize("seed", range(12))
def test_pictures_of_no_chest(seed: int) -> None:
    """Blobs of any size on grids of any shape, single rows and columns among them."""
    rng = np.random.default_rng(seed)
    shape = [(1, 700), (650, 1), (2, 63)][seed] if seed < 3 else tuple(rng.integers(8, 150, 2))
    grain = int(rng.integers(2, 12))
    coarse = rng.normal(-400, 500, [n // grain + 1 for n in shape])
    pixels = np.kron(coarse, np.ones((grain, grain)))[: shape[0], : shape[1]]
    pixels = (pixels + rng.normal(0, 20, shape)).astype(np.float32)
    pixels[rng.random(shape) < 0.01] = np.nan
    for spacing_mm in ((0.1, 5.0), (3.0, 3.0), (40.0, 2.0), (20.0, 50.0), (2.0, 0.02)):
        _same(pixels, spacing_mm)


def test_real_slices(shared_data) -> None:  # type: ignore[no-untyped-def]
    from pydicom import dcmread

    paths = sorted((shared_data / "dicom").rglob("*.dcm"))[::14]
    assert paths
    for path in paths:
        dataset = dcmread(path)
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        _same(hu.astype(np.float32), tuple(float(step) for step in dataset.PixelSpacing))
