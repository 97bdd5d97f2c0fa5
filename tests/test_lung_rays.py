"""Rays and the outline they make, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from ildsdk.lung import polar_kernels, ray_kernels
from ildsdk.lung.ray_kernels import Bones, Fan, Outline
from ildsdk.lung.reference import rays
from tests.lung_bitmaps import canvas_for, packed, unpacked


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_cast_rays(share: float) -> None:
    rng = np.random.default_rng(6)
    shape = (60, 70)
    canvas = canvas_for(shape, (1.6, 1.5))
    hu = rng.normal(size=shape).astype(np.float32)
    aerated, bone = rng.random(shape) < share, rng.random(shape) < share / 5
    n_rays, n_steps, n_edge, n_ahead, range_mm = 48, 30, 6, 8, (-8.0, 20.0)
    angle = np.arange(n_rays) * (2 * np.pi / n_rays)
    directions = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    radius_mm = np.arange(n_steps) * 2.0
    cosine = directions @ directions[::3].T
    fan = Fan(directions, radius_mm, np.ascontiguousarray(cosine.T), np.empty((1, n_rays)))
    for array in fan:
        array.flags.writeable = False
    outline = Outline(*(np.empty(n_rays, kind) for kind in ("f8", "f4", "f8", "f8", "f8")))
    bones = Bones(np.empty(n_rays * n_steps, np.int64), np.empty(n_rays * n_steps))
    for start in ((24.21, 39.73), (2.3, 66.9)):
        sampled = [
            rays.sample_rays(
                grid, np.array(start), directions * (2.0 / np.array([1.6, 1.5])), n_steps
            )
            for grid in (aerated, bone, hu)
        ]
        n_bones = ray_kernels.cast_rays(
            canvas, hu, packed(aerated, canvas), packed(bone, canvas), start, fan, n_edge, range_mm,
            np.empty(shape, np.uint8), np.empty((2, n_steps), np.int32), np.empty(n_rays),
            np.empty(n_ahead // 4 + 1), outline, bones,
        )  # fmt: skip
        lung_mm, edge_hu, hull_mm = rays.outline(sampled[0], sampled[2], radius_mm, cosine, n_edge)
        np.testing.assert_array_equal(outline.lung_mm, lung_mm)
        np.testing.assert_allclose(outline.edge_hu, edge_hu, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(outline.hull_mm, hull_mm)
        found = bones.ray[:n_bones], bones.excess_mm[:n_bones], outline.first_mm, outline.ahead_mm
        expected = rays.bones(sampled[1], radius_mm, hull_mm, range_mm, n_ahead)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert (np.count_nonzero(sampled[1]) > 0) == (share > 0)


@pytest.mark.parametrize("n_rays", [24, 240])
@pytest.mark.parametrize("shape", [(60, 80), (33, 129), (1, 40), (50, 1)])
def test_fill_polar(shape: tuple[int, int], n_rays: int) -> None:
    rng = np.random.default_rng(9)
    canvas = canvas_for(shape, (1.0, 1.2))
    out = np.empty_like(canvas.inside)
    scratch = np.empty((2, n_rays + 1)), np.empty(shape[1], np.int32), np.empty(shape[1])
    angle = np.arange(n_rays) * (2 * np.pi / n_rays)
    for roughness in (0.0, 0.3, 3.0, 8.0):
        # also from a start on the border or beyond it
        for start in (rng.uniform(10, 50, 2), np.array([0.0, 0.0]), np.array([-3.7, 12.2])):
            reach_mm = np.maximum(
                18 + 7 * np.sin(3 * angle) + roughness * rng.normal(size=n_rays), 0
            )
            polar_kernels.fill_polar(canvas, tuple(start.tolist()), reach_mm, *scratch, out)
            expected = rays.fill_polar(start, np.array([1.0, 1.2]), reach_mm, shape)
            np.testing.assert_array_equal(unpacked(out, canvas), expected)
    assert 0 < np.count_nonzero(expected) < expected.size or min(shape) == 1
