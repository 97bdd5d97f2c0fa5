"""Each kernel against its numpy twin, on read-only input."""

from __future__ import annotations

import numpy as np
import pytest

from ildsdk.lung import kernels, morphology, reference


def _mask(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    mask = rng.random(shape) < share
    mask.flags.writeable = False
    return mask


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("shape", [(40, 31), (17, 64)])
def test_average_on_grid(dtype: type, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.normal(-400, 900, shape).astype(dtype)
    if dtype is np.float32:
        pixels[3, 4] = np.nan
    pixels.flags.writeable = False
    row_cell, column_cell = (np.arange(n) * 9 // n for n in shape)
    grid = np.zeros((9, 9), dtype=np.float32)
    kernels.average_on_grid(
        pixels, row_cell, column_cell, -1024.0, 1500.0, grid, np.zeros((9, 9), dtype=np.int32)
    )
    expected = reference.average_on_grid(pixels, row_cell, column_cell, -1024.0, 1500.0)
    np.testing.assert_allclose(grid, expected, rtol=1e-4, atol=0.01)


@pytest.mark.parametrize("share", [0.0, 0.005, 0.1, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("half_width", [[0], [1, 0], [4, 4, 3, 1], [2, 2, 2, 1, 1, 0, 0]])
def test_dilate_ellipse(share: float, half_width: list[int]) -> None:
    mask = _mask(np.random.default_rng(2), (37, 53), share)
    out = np.empty(mask.shape, dtype=np.bool_)
    widths = np.array(half_width)
    kernels.dilate_ellipse(
        mask, widths, np.empty(mask.shape, np.int16), np.empty(54, np.int32), out
    )
    np.testing.assert_array_equal(out, reference.dilate_ellipse(mask, widths))


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0), (1.0, 3.0), (0.7, 0.7)])
def test_dilation_is_a_disc_in_millimeters(spacing_mm: tuple[float, float]) -> None:
    from scipy.ndimage import distance_transform_edt

    mask = _mask(np.random.default_rng(3), (60, 45), 0.01)
    distance = distance_transform_edt(~mask, sampling=spacing_mm)
    for radius_mm in (1.0, 4.0, 9.3):
        out = morphology.dilate(mask, radius_mm, spacing_mm)
        np.testing.assert_array_equal(out, distance <= radius_mm + 1e-6)


@pytest.mark.parametrize("by_corners", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.45, 0.6, 0.8, 1.0])
def test_label_components(share: float, by_corners: bool) -> None:
    mask = _mask(np.random.default_rng(4), (41, 29), share)
    labels, n_labels = morphology.label(mask, by_corners=by_corners)
    expected, n_expected = reference.label_components(mask, by_corners)
    assert n_labels == n_expected
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_refine_mask(dtype: type) -> None:
    rng = np.random.default_rng(5)
    pixels = rng.normal(-400, 300, (64, 50)).astype(dtype)
    coarse, repaired, barred = (_mask(rng, (20, 17), share) for share in (0.7, 0.4, 0.2))
    row = np.clip((np.arange(64) + 0.5) * (20 / 64) - 0.5, 0, 19)
    column = np.clip((np.arange(50) + 0.5) * (17 / 50) - 0.5, 0, 16)
    top, left = row.astype(np.int64), column.astype(np.int64)
    down, across = (row - top).astype(np.float32), (column - left).astype(np.float32)
    args = (pixels, coarse, repaired, barred, top, down, left, across, -400.0)
    out = np.empty(pixels.shape, dtype=np.bool_)
    kernels.refine_mask(*args, out)
    expected = reference.refine_mask(*args)
    assert np.count_nonzero(out != expected) <= 2  # a share of exactly one half may round
    assert 0 < np.count_nonzero(out) < out.size


def test_sample_rays_and_fill_polar() -> None:
    rng = np.random.default_rng(6)
    grid_hu = rng.normal(size=(30, 40)).astype(np.float32)
    aerated, bone = _mask(rng, (30, 40), 0.5), _mask(rng, (30, 40), 0.1)
    start = np.array([14.21, 19.73])
    angle = np.arange(24) * (2 * np.pi / 24)
    steps = np.stack([np.sin(angle), np.cos(angle)], axis=1) * 1.3
    is_lung, is_bone = np.zeros((24, 20), np.bool_), np.zeros((24, 20), np.bool_)
    sample_hu = np.zeros((24, 20), np.float32)
    kernels.sample_rays(grid_hu, aerated, bone, start, steps, is_lung, is_bone, sample_hu)
    for got, grid in ((is_lung, aerated), (is_bone, bone), (sample_hu, grid_hu)):
        np.testing.assert_array_equal(got, reference.sample_rays(grid, start, steps, 20))
    reach_mm = 8 + 3 * np.sin(3 * angle)
    spacing_mm = np.array([1.0, 1.2])
    out = np.empty((30, 40), np.bool_)
    kernels.fill_polar(start, spacing_mm, reach_mm, out)
    expected = reference.fill_polar(start, spacing_mm, reach_mm, (30, 40))
    np.testing.assert_array_equal(out, expected)


def test_closing_at_the_border_and_holes() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[:, :4] = True
    np.testing.assert_array_equal(morphology.close(mask, 6.0, (1.0, 1.0)), mask)
    ring = np.zeros((20, 20), dtype=np.bool_)
    ring[4:16, 4:16] = True
    ring[8:11, 8:11] = False
    assert morphology.fill_holes(ring, 9)[9, 9]
    assert not morphology.fill_holes(ring, 8)[9, 9]
