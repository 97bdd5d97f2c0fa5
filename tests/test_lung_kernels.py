"""Each kernel against its numpy twin."""

from __future__ import annotations

import numpy as np
import pytest

from ildsdk.lung import (
    air_kernels,
    bitmap_kernels,
    cage_kernels,
    component_kernels,
    kernels,
    morphology_kernels,
    repair_kernels,
    rib_kernels,
)
from ildsdk.lung.component_kernels import Runs
from ildsdk.lung.reference import grid as grid_twin
from ildsdk.lung.reference import morphology, repair, thorax
from ildsdk.lung.reference.components import Components, fill_holes
from ildsdk.lung.threshold import split_histogram
from tests.lung_bitmaps import canvas_for, packed, unpacked

WIDTHS = (1, 31, 63, 64, 65, 130, 192)


def _mask(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    return rng.random(shape) < share


def _runs(shape: tuple[int, int]) -> tuple[Runs, np.ndarray, np.ndarray]:
    """Room for components, counts and flags."""
    most = shape[0] * ((shape[1] + 1) // 2)
    bounds, row_start, labels, n_cells, counts = (
        np.full(size, -7, np.int32)
        for size in (2 * most + 1, shape[0] + 1, most, most + 1, most + 1)
    )
    return Runs(bounds, row_start, labels, n_cells), counts, np.ones(most + 1, np.bool_)


def test_places_in_a_word() -> None:
    for place in range(64):
        word = np.uint64(1) << np.uint64(place)
        above = ~np.uint64(0) << np.uint64(place)
        for given, lowest, highest in ((word, place, place), (above, place, 63)):
            assert bitmap_kernels.lowest_place(given) == lowest
            assert bitmap_kernels.highest_place(given) == highest
        assert bitmap_kernels.count_ones(above) == 64 - place


@pytest.mark.parametrize("n_columns", WIDTHS)
def test_bitmaps(n_columns: int) -> None:
    rng = np.random.default_rng(1)
    shape = (9, n_columns)
    canvas = canvas_for(shape)
    hu = rng.integers(-3, 4, shape).astype(np.float32)
    words = np.full_like(canvas.inside, 77)
    for or_equal, expected in ((False, hu < 1), (True, hu <= 1)):
        bitmap_kernels.pack_below(canvas, hu, 1.0, or_equal, words)
        np.testing.assert_array_equal(unpacked(words, canvas), expected)
    for share in (0.02, 0.5):
        mask = _mask(rng, shape, share)
        mask[4, n_columns // 2] = True
        words = packed(mask, canvas)
        assert bitmap_kernels.count_cells(words) == mask.sum()
        rows, columns = np.nonzero(mask)
        box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert bitmap_kernels.bounding_box(canvas, words) == box
        for top, left in ((0, 0), (2, n_columns // 3), (8, n_columns - 1)):
            part = canvas_for((9 - top, n_columns - left))
            cropped = np.empty_like(part.inside)
            bitmap_kernels.crop_bitmap(canvas, words, part, top, left, cropped)
            np.testing.assert_array_equal(unpacked(cropped, part), mask[top:, left:])


@pytest.mark.parametrize("name", ["dilate", "erode", "open_", "close"])
@pytest.mark.parametrize("share", [0.0, 0.005, 0.1, 0.5, 0.97, 0.995, 1.0])
def test_morphology(share: float, name: str) -> None:
    """Widths on both sides of a machine word, radii within and beyond the image, tight gaps."""
    rng = np.random.default_rng(2)
    for shape in ((1, 1), (1, 70), (30, 1), (5, 64), (21, 65), (19, 63), (12, 130)):
        mask = _mask(rng, shape, share)
        for spacing_mm in ((1.0, 1.0), (2.0, 1.3), (0.7, 2.0)):
            for radius_mm in (0.0, 1.0, 2.1, 9.0):
                canvas = canvas_for(shape, spacing_mm, radius_mm)
                out = np.empty_like(canvas.inside)
                getattr(morphology_kernels, name)(canvas, packed(mask, canvas), radius_mm, out)
                expected = getattr(morphology, name)(mask, radius_mm, spacing_mm)
                np.testing.assert_array_equal(unpacked(out, canvas), expected)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0), (1.0, 3.0), (0.7, 0.7)])
def test_dilation_is_a_disc_in_millimeters(spacing_mm: tuple[float, float]) -> None:
    from scipy.ndimage import distance_transform_edt

    mask = _mask(np.random.default_rng(3), (60, 45), 0.01)
    distance = distance_transform_edt(~mask, sampling=spacing_mm)
    canvas = canvas_for(mask.shape, spacing_mm)
    for radius_mm in (1.0, 4.0, 9.3):
        words = packed(mask, canvas)
        morphology_kernels.dilate(canvas, words, radius_mm, words)  # in place
        np.testing.assert_array_equal(unpacked(words, canvas), distance <= radius_mm + 1e-6)


@pytest.mark.parametrize("shape", [(41, 29), (1, 40), (30, 1), (12, 64), (7, 130)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.45, 0.6, 0.8, 1.0])
def test_components(share: float, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    mask, region = _mask(rng, shape, share), _mask(rng, shape, 0.4)
    canvas = canvas_for(shape)
    runs, counts, flags = _runs(shape)
    pieces = Components.of(mask)
    n = component_kernels.find_components(canvas, packed(mask, canvas), runs)
    np.testing.assert_array_equal(runs.n_cells[: n + 1], pieces.n_cells)
    component_kernels.count_in(canvas, runs, n, packed(region, canvas), counts)
    np.testing.assert_array_equal(counts[: n + 1], pieces.count_in(region))
    is_wanted = rng.random(n + 1) < 0.5
    is_wanted[0] = True  # the background is not to be had
    out = np.empty_like(canvas.inside)
    component_kernels.cells_of(canvas, runs, is_wanted, out)
    np.testing.assert_array_equal(unpacked(out, canvas), pieces.cells_of(is_wanted))
    component_kernels.touch_border(canvas, runs, n, flags)
    np.testing.assert_array_equal(flags[: n + 1], pieces.touches_border())


@pytest.mark.parametrize("n_pixels", [64, 100, 128, 129, 191, 192, 250, 300, 511])
def test_average_on_grid(n_pixels: int) -> None:
    """Cells of one to eight pixels, all of a size and mixed: to the last bit."""
    rng = np.random.default_rng(1)
    shape = (30, n_pixels)
    pixels = rng.normal(-400, 900, shape).astype(np.float32)
    pixels[3, 4], pixels[5, 6], pixels[5, 7] = np.nan, np.inf, -np.inf
    starts = [
        grid_twin._axis(n, step_mm)[1]
        for n, step_mm in zip(shape, (0.7, 128 / n_pixels), strict=True)
    ]
    grid = np.full((starts[0].size - 1, starts[1].size - 1), np.nan, dtype=np.float32)
    scratch = np.empty(starts[1].size, np.int64), np.empty(n_pixels + 1, np.float32)
    pixels.flags.writeable = False
    kernels.average_on_grid(pixels, *scratch, grid)
    np.testing.assert_array_equal(grid, grid_twin.average_on_grid(pixels, *starts))


@pytest.mark.parametrize("shape", [(64, 50), (1, 90), (60, 1), (70, 190)])
@pytest.mark.parametrize("cells", [1.0, 0.5, 0.37, 0.25])
def test_refine_mask(shape: tuple[int, int], cells: float) -> None:
    """Also with cells of whole pixels, where shares of one half are common: to the last bit."""
    rng = np.random.default_rng(5)
    pixels = rng.normal(-400, 300, shape).astype(np.float32)
    pixels.flags.writeable = False
    whole = tuple(max(1, round(n * cells)) for n in shape)
    offset = tuple(n // 4 for n in whole)
    canvas = canvas_for(tuple(n - n // 3 - first for n, first in zip(whole, offset, strict=True)))
    held = canvas.n_rows, canvas.n_columns
    for share in (0.0, 0.1, 0.7, 1.0):
        masks = [_mask(rng, held, one) for one in (share, 0.4, 0.2)]
        (top, down), (left, across) = (
            grid_twin.cell_before((np.arange(n) + 0.5) * (m / n) - 0.5 - first, size)
            for n, m, first, size in zip(shape, whole, offset, held, strict=True)
        )
        row_start = np.searchsorted(top, np.arange(held[0] + 1))
        column_start = np.searchsorted(left, np.arange(held[1] + 1))
        expected = grid_twin.refine_mask(
            pixels, *masks, row_start, down, column_start, across, -400.0
        )
        scratch = [np.empty_like(one) for one in (row_start, down, column_start, across)]
        out = np.ones(shape, np.bool_)
        n_inside = kernels.refine_mask(
            pixels, canvas, *(packed(mask, canvas) for mask in masks), whole, offset, -400.0,
            *scratch, out,
        )  # fmt: skip
        np.testing.assert_array_equal(out, expected)
        assert n_inside == expected.sum()


@pytest.mark.parametrize("n_columns", [1, 64, 100])
def test_split_is_that_of_the_histogram(n_columns: int) -> None:
    rng = np.random.default_rng(8)
    shape = (40, n_columns)
    canvas = canvas_for(shape)
    scratch = np.empty(air_kernels.N_GRAYS, np.int64), np.empty((2, air_kernels.N_GRAYS))
    for center_hu, spread_hu in ((-800, 100), (-300, 900), (30, 3)):
        hu = np.where(rng.random(shape) < 0.4, rng.normal(center_hu, spread_hu, shape), 40.3)
        hu = hu.clip(-1024, 1500).astype(np.float32)
        region = _mask(rng, shape, 0.7)
        found = air_kernels.split_in_two(canvas, hu, packed(region, canvas), *scratch)
        gray, counts = np.unique(np.rint(hu[region].clip(-1250, 250)), return_counts=True)
        expected = split_histogram(gray.astype(float), counts.astype(float))
        assert found == (True, expected.threshold)
    hu[:] = -1000.4
    assert not air_kernels.split_in_two(canvas, hu, packed(region, canvas), *scratch)[0]


def test_quartile_is_that_of_numpy() -> None:
    rng = np.random.default_rng(10)
    for n in (1, 2, 3, 4, 5, 8, 113, 240):
        for values in (rng.normal(size=n), rng.integers(0, 3, n).astype(float)):
            assert rib_kernels.lower_quartile(values) == np.percentile(values, 25)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (7, 1), (9, 12), (20, 64), (20, 130)])
def test_what_neighbors_tell(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(11)
    canvas = canvas_for(shape)
    sums = np.empty((2, shape[1] + 2), np.float32)
    out = [np.empty_like(canvas.inside) for _ in range(3)]
    for spread_hu in (10, 60, 150):
        hu = rng.normal(-140, spread_hu, shape).astype(np.float32)
        repair_kernels.weigh_neighbors(canvas, hu, sums, *out)
        mean = repair.mean_of_nine(hu)
        variance = repair.mean_of_nine(hu * hu) - mean * mean
        expected = (
            (mean < -200) & (hu < -180),
            (mean > -150) & (mean < -35) & (variance < 2500),
            (hu < -180) | (mean < -160),
        )
        for words, mask in zip(out, expected, strict=True):
            np.testing.assert_array_equal(unpacked(words, canvas), mask)


def test_long_axis() -> None:
    rng = np.random.default_rng(12)
    shape, spacing_mm = (50, 90), (1.9, 2.2)
    canvas = canvas_for(shape, spacing_mm)
    runs, _, _ = _runs(shape)
    i, j = np.indices(shape)
    for slope in (0.0, 0.3, -0.8):
        mask = (abs(i - 25 - slope * (j - 45)) < 9) & (rng.random(shape) < 0.9)
        n = component_kernels.find_components(canvas, packed(mask, canvas), runs)
        is_wanted = rng.random(n + 1) < 0.7
        is_wanted[1] = True
        found = cage_kernels.long_axis(canvas, runs, is_wanted)
        wanted = Components.of(mask).cells_of(is_wanted)
        grid = grid_twin.WorkingGrid(np.zeros(shape), spacing_mm, np.zeros(1), np.zeros(1))
        center, axis = thorax._long_axis(grid, wanted)
        np.testing.assert_allclose(found, [*center, *axis], rtol=1e-9, atol=1e-9)


def test_closing_at_the_border_and_holes() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[:, :4] = True
    canvas = canvas_for(mask.shape, (1.0, 1.0), 6.0)
    out = np.empty_like(canvas.inside)
    morphology_kernels.close(canvas, packed(mask, canvas), 6.0, out)
    np.testing.assert_array_equal(unpacked(out, canvas), mask)
    ring = np.zeros((20, 20), dtype=np.bool_)
    ring[4:16, 4:16] = True
    ring[8:11, 8:11] = False
    assert fill_holes(ring, 9)[9, 9]
    assert not fill_holes(ring, 8)[9, 9]
