"""What the definitions promise: invariances, and known values of simple regions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ildsdk.radiomics import (
    FEATURE_NAMES,
    RadiomicsExtractor,
    RadiomicsScratch,
    RadiomicsSettings,
)
from tests.radiomics_slices import blob, texture

SPACING = (0.7, 0.7)
BY_PERCENTILES = ("Median", "InterquartileRange", "RobustMeanAbsoluteDeviation")


def values(
    pixels: npt.NDArray[np.generic],
    mask: npt.NDArray[np.bool_],
    spacing: tuple[float, float] = SPACING,
    **chosen: object,
) -> dict[str, float]:
    result = RadiomicsExtractor(RadiomicsSettings(**chosen)).extract(pixels, mask, spacing)  # type: ignore[arg-type]
    return dict(zip(FEATURE_NAMES, result.values.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_moving_the_region_changes_nothing(seed: int) -> None:
    pixels, mask = texture(seed), blob()
    larger = np.full((200, 210), 300.0, dtype=np.float32)
    moved = np.zeros(larger.shape, dtype=bool)
    larger[61 : 61 + 64, 17 : 17 + 72] = pixels
    moved[61 : 61 + 64, 17 : 17 + 72] = mask
    assert values(larger, moved) == values(pixels, mask)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("turn", ["rot90", "flipud", "fliplr", "transpose"])
def test_quarter_turns_and_mirrors_change_nothing(seed: int, turn: str) -> None:
    pixels, mask = texture(seed), blob()
    turned = [np.ascontiguousarray(getattr(np, turn)(array)) for array in (pixels, mask)]
    assert values(*turned) == pytest.approx(values(pixels, mask), rel=1e-9, abs=1e-12)


def test_a_quarter_turn_swaps_the_spacing() -> None:
    pixels, mask = texture(4), blob()
    turned = np.ascontiguousarray(np.rot90(pixels)), np.ascontiguousarray(np.rot90(mask))
    assert values(*turned, (1.3, 0.6)) == pytest.approx(
        values(pixels, mask, (0.6, 1.3)), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("n_bins", [4, -20])
def test_adding_whole_bins_leaves_texture_alone(n_bins: int) -> None:
    pixels, mask = texture(5), blob()
    before, after = values(pixels, mask), values(pixels + np.float32(25 * n_bins), mask)
    for name in FEATURE_NAMES:
        if "firstorder" not in name:
            assert after[name] == before[name], name
    for name in ("Mean", "Median", "Minimum", "Maximum", "10Percentile", "90Percentile"):
        name = f"original_firstorder_{name}"
        assert after[name] == pytest.approx(before[name] + 25 * n_bins, rel=1e-12)
    for name in ("Variance", "Skewness", "Kurtosis", "Entropy", "Uniformity", "Range"):
        name = f"original_firstorder_{name}"
        assert after[name] == pytest.approx(before[name], rel=1e-9)


def test_a_second_copy_far_away_doubles_what_adds_up() -> None:
    pixels, mask = texture(6), blob()
    gap = np.zeros((64, 3))
    twice = np.hstack([pixels, gap.astype(np.float32), pixels])
    region = np.hstack([mask, gap.astype(bool), mask])
    one, two = values(pixels, mask), values(twice, region)
    for name in FEATURE_NAMES:
        feature_class, feature = name.split("_")[1:]
        if feature_class == "shape2D" or feature_class == "ngtdm":
            continue
        adds_up = feature in ("Energy", "TotalEnergy") or (
            "NonUniformity" in feature and "Normalized" not in feature
        )
        # order statistics of twice as many values lie between the same neighbors
        slack = 2.0 if "Percentile" in feature or feature in BY_PERCENTILES else 1e-9
        expected = (2 if adds_up else 1) * one[name]
        assert two[name] == pytest.approx(expected, rel=1e-9, abs=slack), name
    for feature in ("MeshSurface", "PixelSurface", "Perimeter"):
        name = f"original_shape2D_{feature}"
        assert two[name] == pytest.approx(2 * one[name], rel=1e-12)


def test_millimeters() -> None:
    pixels, mask = texture(7), blob()
    one, two = values(pixels, mask, (0.5, 0.8)), values(pixels, mask, (1.0, 1.6))
    powers = {
        "Elongation": 0,
        "Sphericity": 0,
        "MeshSurface": 2,
        "PixelSurface": 2,
        "PerimeterSurfaceRatio": -1,
    }
    for name in FEATURE_NAMES:
        _, feature_class, feature = name.split("_")
        power = powers.get(feature, 1) if feature_class == "shape2D" else 0
        power = 2 if feature == "TotalEnergy" else power
        assert two[name] == pytest.approx(2.0**power * one[name], rel=1e-12), name


def test_a_rectangle_has_the_shape_of_a_rectangle() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:25, 10:50] = True
    found = values(texture(8, (40, 60)), mask, (0.5, 0.25))
    # outline of half-pixel corners: 20 x 0.5 mm high, 40 x 0.25 mm wide, four tips cut off
    tip = np.hypot(0.25, 0.125)
    assert found["original_shape2D_PixelSurface"] == pytest.approx(100.0)
    assert found["original_shape2D_MeshSurface"] == pytest.approx(100.0 - 4 * 0.5 * 0.25 * 0.125)
    assert found["original_shape2D_Perimeter"] == pytest.approx(2 * 9.5 + 2 * 9.75 + 4 * tip)
    assert found["original_shape2D_MaximumDiameter"] == pytest.approx(
        max(np.hypot(10.0, 9.75), np.hypot(9.5, 10.0))
    )
    assert found["original_shape2D_MajorAxisLength"] == pytest.approx(
        4 * np.sqrt((40**2 - 1) / 12) * 0.25
    )


def test_a_flat_region() -> None:
    found = values(np.full((30, 30), -800.0, dtype=np.float32), blob((30, 30)))
    assert found["original_firstorder_Variance"] == 0.0
    assert found["original_firstorder_Skewness"] == 0.0
    assert found["original_firstorder_Entropy"] == pytest.approx(0.0, abs=1e-12)
    assert found["original_glcm_JointEnergy"] == 1.0
    assert found["original_glcm_Correlation"] == 1.0
    assert found["original_glcm_MCC"] == 1.0
    assert found["original_glcm_Contrast"] == 0.0
    assert found["original_glszm_SizeZoneNonUniformity"] == 1.0
    assert found["original_ngtdm_Coarseness"] == 1e6


def test_maximal_correlation_of_many_levels_by_its_definition() -> None:
    """Lanczos against dense eigenvalues, where pyradiomics would take minutes."""
    from ildsdk.radiomics import maximal_correlation as module
    from ildsdk.radiomics.co_occurrence import CoOccurrence

    rng = np.random.default_rng(9)
    for n_levels, density in ((2, 1.0), (5, 0.8), (60, 0.3), (120, 0.04), (120, 0.01)):
        counts = np.where(
            rng.random((n_levels, n_levels)) < density,
            1.0 + rng.poisson(2, (n_levels, n_levels)),
            0.0,
        )
        counts += np.diag(rng.integers(1, 9, n_levels)) + counts.T
        shares = counts / counts.sum()
        rows, columns = np.nonzero(shares)
        matrices = CoOccurrence(
            starts=np.searchsorted(rows, np.arange(n_levels + 1)).astype(np.int64)[None],
            columns=columns.astype(np.int32)[None],
            shares=shares[rows, columns][None],
            row_sums=shares.sum(axis=1)[None],
            column_sums=shares.sum(axis=0)[None],
        )
        found = module.maximal_correlations(matrices, RadiomicsScratch())
        assert found.tolist() == pytest.approx([module._by_definition(matrices, 0)], rel=1e-7)
