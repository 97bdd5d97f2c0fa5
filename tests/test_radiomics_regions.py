"""Odd regions: pyradiomics' value where it has one, a typed reason where not, never silence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ildsdk.errors import ConfigError, SliceUnusableError
from ildsdk.radiomics import FEATURE_NAMES, RadiomicsExtractor, RadiomicsSettings
from tests.radiomics_parity import both, compare
from tests.radiomics_slices import blob, texture

SHAPE = (24, 30)
ENGINES = ["fast", "pyradiomics"]


def points(*places: tuple[int, int]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=bool)
    for row, column in places:
        mask[row, column] = True
    return mask


def box(rows: slice, columns: slice) -> npt.NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[rows, columns] = True
    return mask


MASKS = {
    "row": box(slice(3, 4), slice(2, 20)),
    "column": box(slice(2, 20), slice(5, 6)),
    "diagonal": points(*[(i, i) for i in range(3, 20)]),
    "two neighbors": points((3, 4), (3, 5)),
    "two far apart": points((3, 4), (9, 20)),
    "two touching by a corner": points((3, 4), (4, 5)),
    "a knight's move": points((3, 4), (5, 5)),
    "three": points((3, 4), (4, 5), (9, 20)),
    "four alone": points((0, 0), (0, 2), (2, 0), (2, 2)),
    "whole picture": np.ones(SHAPE, dtype=bool),
    "ring": box(slice(4, 20), slice(4, 20)) & ~box(slice(8, 12), slice(8, 12)),
    "checkerboard": np.indices(SHAPE).sum(axis=0) % 2 == 0,
    "lattice": (np.indices(SHAPE) % 3 == 0).all(axis=0),
    "corner of the picture": box(slice(0, 3), slice(0, 3)),
}
_columns = np.indices(SHAPE)[1]
PICTURES = {
    "texture": texture(5, SHAPE),
    "noise": texture(6, SHAPE, 0.0),
    "flat": np.full(SHAPE, -700.0, dtype=np.float32),
    "not a binary fraction": np.full(SHAPE, 0.1, dtype=np.float32),
    "two halves": np.where(_columns < 15, -700.0, -300.0).astype(np.float32),
    "checks": np.where(np.indices(SHAPE).sum(axis=0) % 2, -700.0, -300.0).astype(np.float32),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("norm", [None, "euclidean"])
def test_same_values_and_same_gaps_as_pyradiomics(
    mask: npt.NDArray[np.bool_], norm: str | None
) -> None:
    chosen = RadiomicsSettings(minimum_roi_dimensions=1, weighting_norm=norm)  # type: ignore[arg-type]
    for pixels in PICTURES.values():
        compare(*both(pixels, mask, (0.7, 0.9), chosen))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (points(), "roi-empty"),
        (points((3, 4)), "roi-too-small"),
        (MASKS["row"], "roi-degenerate"),
        (MASKS["column"], "roi-degenerate"),
        (MASKS["two far apart"], "feature-undefined"),
    ],
)
def test_regions_without_a_full_vector_have_a_reason(
    engine: str, mask: npt.NDArray[np.bool_], reason: str
) -> None:
    extractor = RadiomicsExtractor(engine=engine)  # type: ignore[arg-type]
    with pytest.raises(SliceUnusableError) as caught:
        extractor.extract(PICTURES["texture"], mask, (0.7, 0.7))
    assert caught.value.reason == reason
    result = extractor.extract(PICTURES["texture"], mask, (0.7, 0.7), strict=False)
    assert set(result.reasons.values()) == {reason}
    assert set(result.reasons) == {FEATURE_NAMES[i] for i in np.flatnonzero(~result.is_valid)}
    assert np.isnan(result.values[~result.is_valid]).all()
    assert None in result.to_dict().values()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_no_numbers(engine: str, bad: float) -> None:
    extractor = RadiomicsExtractor(engine=engine)  # type: ignore[arg-type]
    mask = MASKS["ring"]
    outside = PICTURES["texture"].copy()
    outside[0, 0] = bad
    clean = extractor.extract(PICTURES["texture"], mask, (0.7, 0.7))
    assert np.array_equal(extractor.extract(outside, mask, (0.7, 0.7)).values, clean.values)
    inside = PICTURES["texture"].copy()
    inside[5, 5] = bad
    with pytest.raises(SliceUnusableError, match="roi-not-finite: 1 of 240 pixels"):
        extractor.extract(inside, mask, (0.7, 0.7))
    normalizing = RadiomicsExtractor(RadiomicsSettings(normalize=True), engine)  # type: ignore[arg-type]
    with pytest.raises(SliceUnusableError, match="image-not-finite"):
        normalizing.extract(outside, mask, (0.7, 0.7))
    with pytest.raises(SliceUnusableError, match="image-constant"):
        normalizing.extract(PICTURES["flat"], mask, (0.7, 0.7))


def test_int16_extremes_do_not_overflow() -> None:
    rng = np.random.default_rng(7)
    pixels = rng.choice(np.array([-32768, -1, 32767], dtype=np.int16), SHAPE)
    chosen = RadiomicsSettings(bin_width=1000.0)
    compare(*both(pixels, MASKS["ring"], (0.7, 0.9), chosen))
    fast = RadiomicsExtractor(chosen)
    same = fast.extract(pixels.astype(np.float64), MASKS["ring"], (0.7, 0.9))
    assert np.array_equal(fast.extract(pixels, MASKS["ring"], (0.7, 0.9)).values, same.values)


def test_nearly_as_many_gray_levels_as_pixels() -> None:
    pixels = texture(8, (16, 16), 0.0)
    compare(*both(pixels, blob((16, 16)), (0.7, 0.9), RadiomicsSettings(bin_width=1.0)))


def test_more_gray_levels_than_the_engine_takes() -> None:
    pixels = PICTURES["texture"].astype(np.float64)
    pixels[6, 6] = 1e9
    with pytest.raises(SliceUnusableError, match="roi-too-many-levels"):
        RadiomicsExtractor().extract(pixels, MASKS["ring"], (0.7, 0.7))
    with pytest.raises(SliceUnusableError, match="roi-too-many-levels"):
        RadiomicsExtractor(RadiomicsSettings(bin_count=70000)).extract(
            PICTURES["texture"], MASKS["ring"], (0.7, 0.7)
        )


def test_neighbor_distance_larger_than_the_region() -> None:
    result = RadiomicsExtractor(RadiomicsSettings(distances=(9,))).extract(
        PICTURES["texture"], box(slice(2, 6), slice(2, 6)), (0.7, 0.7), strict=False
    )
    assert {name.split("_")[1] for name in result.reasons} == {"glcm"}


def test_array_layouts_do_not_matter() -> None:
    pixels, mask = texture(9), blob()
    extractor = RadiomicsExtractor()
    plain = extractor.extract(pixels, mask, (0.7, 0.9)).values
    wide = np.repeat(pixels, 2, axis=1)[:, ::2]
    assert not wide.flags.c_contiguous
    assert np.array_equal(extractor.extract(wide, mask, (0.7, 0.9)).values, plain)
    column_major = np.asfortranarray(pixels)
    assert np.array_equal(
        extractor.extract(column_major, np.asfortranarray(mask), (0.7, 0.9)).values, plain
    )
    pixels.flags.writeable = False
    mask.flags.writeable = False
    before = pixels.copy(), mask.copy()
    assert np.array_equal(extractor.extract(pixels, mask, (0.7, 0.9)).values, plain)
    assert np.array_equal(pixels, before[0])
    assert np.array_equal(mask, before[1])


def test_arguments_of_the_wrong_kind() -> None:
    extractor = RadiomicsExtractor()
    pixels, mask = PICTURES["texture"], MASKS["ring"]
    with pytest.raises(TypeError, match="lung_mask is uint8, expected a bool array"):
        extractor.extract(pixels, mask.astype(np.uint8), (1.0, 1.0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pixels_hu is complex128"):
        extractor.extract(pixels.astype(complex), mask, (1.0, 1.0))
    with pytest.raises(ValueError, match="expected the same"):
        extractor.extract(pixels[1:], mask, (1.0, 1.0))
    for spacing in ((0.0, 1.0), (1.0, np.nan), (1.0,)):
        with pytest.raises(ValueError, match="pixel_spacing_mm"):
            extractor.extract(pixels, mask, spacing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bin_width", 0.0),
        ("bin_width", float("nan")),
        ("bin_count", 0),
        ("distances", ()),
        ("distances", (1, 1)),
        ("distances", (0,)),
        ("weighting_norm", "chebyshev"),
        ("gldm_alpha", 0.5),
        ("voxel_array_shift", float("inf")),
        ("normalize_scale", 0.0),
        ("remove_outliers", -1.0),
        ("resegment_range", (1.0, 2.0, 3.0)),
        ("resegment_mode", "share"),
        ("minimum_roi_dimensions", 3),
        ("minimum_roi_size", -1),
    ],
)
def test_settings_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is"):
        RadiomicsSettings(**{name: value})


def test_minimum_size_is_refused_at_and_below_the_limit() -> None:
    mask = box(slice(2, 6), slice(2, 6))
    for limit, is_refused in ((15, False), (16, True)):
        extractor = RadiomicsExtractor(RadiomicsSettings(minimum_roi_size=limit))
        result = extractor.extract(PICTURES["texture"], mask, (0.7, 0.7), strict=False)
        assert ("roi-too-small" in result.reasons.values()) is is_refused


def test_unknown_engine() -> None:
    with pytest.raises(ConfigError, match="expected one of fast, pyradiomics"):
        RadiomicsExtractor(engine="quick")  # type: ignore[arg-type]
