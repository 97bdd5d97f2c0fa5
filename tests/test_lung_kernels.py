"""Each kernel against its numpy twin, on read-only input."""

from __future__ import annotations

import numpy as np
import pytest

from ildsdk.lung import kernels, morphology, ray_kernels, reference, repair, thorax
from ildsdk.lung.components import Components, fill_holes
from ildsdk.lung.ray_kernels import Bones, Outline


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
    row_start, column_start = (np.sort(rng.choice(np.arange(1, n), 8, False)) for n in shape)
    row_start, column_start = (
        np.r_[0, start, n] for start, n in zip((row_start, column_start), shape, strict=True)
    )
    grid = np.full((9, 9), np.nan, dtype=np.float32)
    kernels.average_on_grid(
        pixels, row_start, column_start, -1024.0, 1500.0, np.empty(shape[1], np.float32), grid
    )
    expected = reference.average_on_grid(pixels, row_start, column_start, -1024.0, 1500.0)
    np.testing.assert_allclose(grid, expected, rtol=1e-4, atol=0.01)


@pytest.mark.parametrize("name", ["dilate", "erode", "open_", "close"])
@pytest.mark.parametrize("share", [0.0, 0.005, 0.1, 0.5, 0.97, 0.995, 1.0])
def test_morphology(share: float, name: str) -> None:
    """Widths on both sides of a machine word, radii within and beyond the image."""
    rng = np.random.default_rng(2)
    for shape in ((1, 1), (5, 64), (21, 65), (19, 63), (12, 130)):
        mask = _mask(rng, shape, share)
        for spacing_mm in ((1.0, 1.0), (2.0, 1.3), (0.7, 2.0)):
            for radius_mm in (0.0, 1.0, 2.1, 9.0):
                out = getattr(morphology, name)(mask, radius_mm, spacing_mm)
                expected = getattr(reference, name)(mask, radius_mm, spacing_mm)
                np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0), (1.0, 3.0), (0.7, 0.7)])
def test_dilation_is_a_disc_in_millimeters(spacing_mm: tuple[float, float]) -> None:
    from scipy.ndimage import distance_transform_edt

    mask = _mask(np.random.default_rng(3), (60, 45), 0.01)
    distance = distance_transform_edt(~mask, sampling=spacing_mm)
    for radius_mm in (1.0, 4.0, 9.3):
        out = morphology.dilate(mask, radius_mm, spacing_mm)
        np.testing.assert_array_equal(out, distance <= radius_mm + 1e-6)


@pytest.mark.parametrize("shape", [(41, 29), (1, 40), (30, 1), (12, 64)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.45, 0.6, 0.8, 1.0])
def test_components(share: float, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    mask, region = _mask(rng, shape, share), _mask(rng, shape, 0.4)
    labels, n_labels = reference.label_components(mask)
    pieces = Components.of(mask)
    n_cells = np.bincount(labels[mask], minlength=n_labels + 1)
    np.testing.assert_array_equal(pieces.n_cells, n_cells)
    n_inside = np.bincount(labels[mask & region], minlength=n_labels + 1)
    np.testing.assert_array_equal(pieces.count_in(region.copy()), n_inside)
    is_wanted = rng.random(n_labels + 1) < 0.5
    is_wanted[0] = True  # the background is not to be had
    np.testing.assert_array_equal(pieces.cells_of(is_wanted), is_wanted[labels] & mask)
    ring = np.ones(shape, np.bool_)
    ring[1:-1, 1:-1] = False
    at_border = np.isin(np.arange(n_labels + 1), labels[ring & mask])
    np.testing.assert_array_equal(pieces.touches_border(), at_border)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_refine_mask(dtype: type) -> None:
    rng = np.random.default_rng(5)
    pixels = rng.normal(-400, 300, (64, 50)).astype(dtype)
    coarse, repaired, barred = (_mask(rng, (20, 17), share) for share in (0.7, 0.4, 0.2))
    row = np.clip((np.arange(64) + 0.5) * (20 / 64) - 0.5, 0, 19)
    column = np.clip((np.arange(50) + 0.5) * (17 / 50) - 0.5, 0, 16)
    top, left = row.astype(np.int64), column.astype(np.int64)
    down, across = (row - top).astype(np.float32), (column - left).astype(np.float32)
    row_start, column_start = (
        np.searchsorted(cell, np.arange(n + 1)) for cell, n in ((top, 20), (left, 17))
    )
    cells = (pixels, coarse, repaired, barred, row_start, down, column_start)
    out = np.empty(pixels.shape, dtype=np.bool_)
    scratch = np.empty(17, np.bool_), np.empty(17, np.int64)
    kernels.refine_mask(*cells, left.astype(np.uint32), across, -400.0, *scratch, out)
    expected = reference.refine_mask(*cells, across, -400.0)
    assert np.count_nonzero(out != expected) <= 2  # a share of exactly one half may round
    assert 0 < np.count_nonzero(out) < out.size


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_cast_rays(share: float) -> None:
    rng = np.random.default_rng(6)
    grid_hu = rng.normal(size=(60, 70)).astype(np.float32)
    aerated, bone = _mask(rng, (60, 70), share), _mask(rng, (60, 70), share / 5)
    start = np.array([24.21, 39.73])
    n_rays, n_steps, n_edge, n_ahead, range_mm = 48, 30, 6, 8, (-8.0, 20.0)
    angle = np.arange(n_rays) * (2 * np.pi / n_rays)
    directions = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    radius_mm = np.arange(n_steps) * 2.0
    cosine = directions @ directions[::3].T
    sampled = [
        reference.sample_rays(grid, start, directions * 1.3, n_steps)
        for grid in (aerated, bone, grid_hu)
    ]
    outline = Outline(*(np.empty(n_rays, kind) for kind in ("f8", "f4", "f8", "f8", "f8")))
    bones = Bones(np.empty(n_rays * n_steps, np.int64), np.empty(n_rays * n_steps))
    n_bones = ray_kernels.cast_rays(
        grid_hu, aerated, bone, start, directions * 1.3, radius_mm, cosine, n_edge, range_mm,
        (np.empty(n_steps, np.bool_), np.empty(n_steps, np.bool_), np.empty(n_steps, np.float32)),
        np.empty(cosine.shape[1]), np.empty(n_ahead + 1), outline, bones,
    )  # fmt: skip
    lung_mm, edge_hu, hull_mm = reference.outline(sampled[0], sampled[2], radius_mm, cosine, n_edge)
    np.testing.assert_array_equal(outline.lung_mm, lung_mm)
    np.testing.assert_allclose(outline.edge_hu, edge_hu, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outline.hull_mm, hull_mm)
    found = bones.ray[:n_bones], bones.excess_mm[:n_bones], outline.first_mm, outline.ahead_mm
    expected = reference.bones(sampled[1], radius_mm, hull_mm, range_mm, n_ahead)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (n_bones > 0) == (share > 0)


@pytest.mark.parametrize("n_rays", [24, 240])
def test_fill_polar(n_rays: int) -> None:
    rng = np.random.default_rng(9)
    spacing_mm = np.array([1.0, 1.2])
    out = np.empty((60, 80), np.bool_)
    for roughness in (0.0, 0.3, 3.0):
        start = rng.uniform(10, 50, 2)
        angle = np.arange(n_rays) * (2 * np.pi / n_rays)
        reach_mm = 18 + 7 * np.sin(3 * angle) + roughness * rng.normal(size=n_rays)
        ray_kernels.fill_polar(start, spacing_mm, reach_mm, np.empty((2, n_rays + 1)), out)
        expected = reference.fill_polar(start, spacing_mm, reach_mm, (60, 80))
        np.testing.assert_array_equal(out, expected)
        assert 0 < np.count_nonzero(out) < out.size


def test_quartile_is_that_of_numpy() -> None:
    rng = np.random.default_rng(10)
    for n in (1, 2, 3, 4, 5, 8, 113, 240):
        values = rng.normal(size=n)
        assert thorax._lower_quartile(values) == np.percentile(values, 25)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (7, 1), (9, 12)])
def test_mean_of_nine(shape: tuple[int, int]) -> None:
    hu = np.random.default_rng(11).normal(size=shape).astype(np.float32)
    padded = np.pad(hu, 1, mode="edge")
    nine = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    expected = nine.mean(axis=(2, 3))
    np.testing.assert_allclose(repair._mean_of_nine(hu), expected, rtol=1e-5, atol=1e-6)


def test_closing_at_the_border_and_holes() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[:, :4] = True
    np.testing.assert_array_equal(morphology.close(mask, 6.0, (1.0, 1.0)), mask)
    ring = np.zeros((20, 20), dtype=np.bool_)
    ring[4:16, 4:16] = True
    ring[8:11, 8:11] = False
    assert fill_holes(ring, 9)[9, 9]
    assert not fill_holes(ring, 8)[9, 9]
