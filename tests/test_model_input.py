from __future__ import annotations

import numpy as np
import pytest

from ildsdk.errors import ModelError, SliceUnusableError
from ildsdk.model_input import model_input, reference
from ildsdk.model_input.resampling import Taps, resample
from ildsdk.radiomics.scaler import FeatureScaler
from ildsdk.settings import MethodSettings


def box(shape: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[rows, columns] = True
    return mask


def test_shape_range_and_outside_is_zero() -> None:
    pixels = np.full((128, 128), 40, np.float32)
    mask = box((128, 128), slice(40, 80), slice(20, 100))
    pixels[mask] = -850
    image = model_input(pixels, (0.8, 0.8), mask, MethodSettings(input_size=64))
    assert image.shape == (1, 64, 64)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    inside = (-850 + 1250) / 1500
    assert image[0, 32, 32] == pytest.approx(inside, abs=1e-6)
    assert image[0, 2, 32] == 0  # the box is wider than high: rows above it are empty
    assert image.max() <= inside + 1e-6


def test_same_content_at_other_pixel_size_gives_same_input() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.normal(-700, 60, (60, 60)).astype(np.float32)
    coarse = np.kron(coarse[::4, ::4], np.ones((4, 4), np.float32))
    mask = box((60, 60), slice(8, 52), slice(8, 52))
    fine, fine_mask = (
        np.kron(coarse, np.ones((2, 2), np.float32)),
        np.kron(mask, np.ones((2, 2))) > 0,
    )
    anisotropic, anisotropic_mask = np.repeat(coarse, 2, axis=0), np.repeat(mask, 2, axis=0)
    settings = MethodSettings(input_size=32)
    expected = model_input(coarse, (1.0, 1.0), mask, settings)
    # Piecewise constant content: the triangle filter sees the finer grid a little sharper.
    np.testing.assert_allclose(
        model_input(fine, (0.5, 0.5), fine_mask, settings), expected, atol=0.04
    )
    np.testing.assert_allclose(
        model_input(anisotropic, (0.5, 1.0), anisotropic_mask, settings), expected, atol=0.04
    )


def test_place_in_the_image_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    patch = rng.normal(-800, 50, (50, 70)).astype(np.float32)
    settings = MethodSettings(input_size=48)
    images = []
    for top, left in ((0, 0), (30, 17), (78, 58)):
        pixels = np.full((128, 128), -1000, np.float32)
        mask = box((128, 128), slice(top, top + 50), slice(left, left + 70))
        pixels[top : top + 50, left : left + 70] = patch
        images.append(model_input(pixels, (0.7, 0.7), mask, settings))
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


@pytest.mark.parametrize("step_mm", [0.3, 1.0, 2.7])
def test_resampling_keeps_a_constant_and_a_ramp(step_mm: float) -> None:
    n_out = 40
    weights = reference.resampling_matrix(400, 0.7, 50.0, step_mm, n_out).astype(np.float64)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    ramp = (np.arange(400) + 0.5) * 0.7
    expected = 50 + (np.arange(n_out) + 0.5) * step_mm
    np.testing.assert_allclose(weights @ ramp, expected, atol=0.05 * step_mm)


@pytest.mark.parametrize("n_out", [16, 33, 300])
@pytest.mark.parametrize("spacing_mm", [(0.7, 0.7), (0.5, 1.3)])
@pytest.mark.parametrize(
    ("rows", "columns"), [(slice(0, 60), slice(0, 90)), (slice(17, 48), slice(30, 41))]
)
def test_kernel_does_what_the_reference_says(
    n_out: int, spacing_mm: tuple[float, float], rows: slice, columns: slice
) -> None:
    """Enlarged and reduced, with room around the part and cut by the square."""
    rng = np.random.default_rng(3)
    pixels = rng.normal(-500, 700, (60, 90)).astype(np.float32)
    pixels[20, 31:35] = np.nan, np.inf, -np.inf, 250
    mask = rng.random(pixels.shape) < 0.7
    for array in (pixels, mask):
        array.flags.writeable = False
    for corner_mm, side_mm in (((-12.0, -3.0), 70.0), ((4.0, 6.0), 12.0)):
        step_mm = side_mm / n_out
        found = resample(
            pixels, mask, rows, columns, -500.0, 1500.0,
            *(Taps.between(spacing_mm[k], corner_mm[k], step_mm, n_out) for k in (0, 1)),
        )  # fmt: skip
        expected = reference.resample(
            pixels[rows, columns], mask[rows, columns], (-500.0, 1500.0), spacing_mm, corner_mm,
            step_mm, n_out,
        )  # fmt: skip
        assert found.shape == (1, n_out, n_out)
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=2e-7)
        assert found.max() > 0.1


def test_empty_mask_is_refused() -> None:
    with pytest.raises(SliceUnusableError, match="no-lung"):
        model_input(
            np.zeros((64, 64), np.float32), (1, 1), np.zeros((64, 64), bool), MethodSettings()
        )


def test_scaler_matches_definition_clips_and_survives_json() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(5, 3, (50, 4)) * [1, 1e6, 1e-6, 0]
    scaler = FeatureScaler.fit(values, clip=2.0)
    scaled = scaler.transform(values)
    expected = np.clip(
        (values - values.mean(0)) / np.where(values.std(0) > 0, values.std(0), 1), -2, 2
    )
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    assert np.abs(scaled).max() == 2
    again = FeatureScaler.from_dict(scaler.to_dict())
    np.testing.assert_array_equal(again.transform(values), scaled)


@pytest.mark.parametrize(
    ("mean", "scale"), [([0.0], [0.0]), ([np.nan], [1.0]), ([0.0, 1.0], [1.0])]
)
def test_scaler_refuses(mean: list[float], scale: list[float]) -> None:
    with pytest.raises(ModelError):
        FeatureScaler(np.array(mean), np.array(scale))
