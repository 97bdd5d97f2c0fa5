"""The fast engine against pyradiomics, feature by feature (tolerances: radiomics_parity)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ildsdk.radiomics import FEATURE_NAMES, RadiomicsExtractor, RadiomicsSettings
from ildsdk.radiomics.names import FEATURES_BY_CLASS
from tests.radiomics_parity import both, compare
from tests.radiomics_slices import Slice, blob, phantom_lungs, real_lungs, real_regions, texture

featureextractor = pytest.importorskip("radiomics.featureextractor")


def test_names_are_those_of_pyradiomics_in_its_order() -> None:
    from radiomics import getFeatureClasses

    for feature_class, names in FEATURES_BY_CLASS.items():
        theirs = getFeatureClasses()[feature_class].getFeatureNames()
        assert names == tuple(name for name, is_deprecated in theirs.items() if not is_deprecated)
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 102


SETTINGS: list[dict[str, Any]] = [
    {},
    {"bin_width": 10.0},
    {"bin_width": 3.3},
    {"bin_count": 16},
    {"bin_count": 33},
    {"distances": (1, 2)},
    {"distances": (2,)},
    {"distances": (3, 1)},
    {"symmetrical_glcm": False},
    {"weighting_norm": "manhattan"},
    {"weighting_norm": "euclidean"},
    {"weighting_norm": "infinity"},
    {"weighting_norm": "no_weighting"},
    {"weighting_norm": "euclidean", "symmetrical_glcm": False, "distances": (1, 2)},
    {"gldm_alpha": 1},
    {"gldm_alpha": 2, "distances": (1, 3)},
    {"voxel_array_shift": 2000.0},
    {"normalize": True, "bin_width": 0.2},
    {"normalize": True, "normalize_scale": 100.0, "remove_outliers": 2.0},
    {"resegment_range": (-800.0, -650.0)},
    {"resegment_range": (-700.0,)},
    {"resegment_range": (-2.0, 2.0), "resegment_mode": "sigma"},
    {"resegment_range": (0.7, 1.6), "resegment_mode": "relative"},
    {"resegment_range": (-800.0, -650.0), "resegment_shape": True},
]


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("chosen", SETTINGS, ids=str)
def test_settings_grid(chosen: dict[str, Any], dtype: type) -> None:
    pixels = (texture(1) + np.float32(0.3)).astype(dtype)
    compare(*both(pixels, blob(), (0.6, 0.8), RadiomicsSettings(**chosen)))


@pytest.mark.parametrize("smoothing", [0.0, 0.7, 4.0])
@pytest.mark.parametrize("spacing", [(0.7, 0.7), (0.3, 2.5)])
def test_textures_and_spacings(smoothing: float, spacing: tuple[float, float]) -> None:
    pixels = texture(2, (128, 140), smoothing)
    compare(*both(pixels, blob((128, 140)), spacing))


def test_two_dimensional_reference_equals_force2d() -> None:
    """The reference engine's 2D image is what pyradiomics users do with one 3D slice."""
    import SimpleITK

    extractor = featureextractor.RadiomicsFeatureExtractor(
        force2D=True, binWidth=25, additionalInfo=False
    )
    extractor.disableAllFeatures()
    for feature_class in FEATURES_BY_CLASS:
        extractor.enableFeatureClassByName(feature_class)
    image = SimpleITK.GetImageFromArray(texture(3)[None])
    mask = SimpleITK.GetImageFromArray(blob()[None].astype(np.uint8))
    for item in (image, mask):
        item.SetSpacing((0.8, 0.6, 1.0))
    found = extractor.execute(image, mask)
    reference = RadiomicsExtractor(engine="pyradiomics").extract(texture(3), blob(), (0.6, 0.8))
    assert [float(found[name]) for name in FEATURE_NAMES] == pytest.approx(
        reference.values.tolist(), rel=1e-12
    )


@st.composite
def regions(draw: st.DrawFn) -> tuple[Any, ...]:
    """Small pictures and masks of all sorts, with settings."""
    n_rows = draw(st.integers(2, 12))
    n_columns = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["flat", "two", "few", "many", "real"]))
    if kind == "real":
        pixels = rng.normal(-600.0, 150.0, (n_rows, n_columns))
    else:
        n_levels = {"flat": 1, "two": 2, "few": 6, "many": 60}[kind]
        pixels = rng.integers(0, n_levels, (n_rows, n_columns)) * 25.0 - 1000.0
    pixels = pixels.astype(draw(st.sampled_from([np.float32, np.float64, np.int16])))
    mask = rng.random((n_rows, n_columns)) < draw(st.sampled_from([0.2, 0.5, 0.9, 1.0]))
    chosen = RadiomicsSettings(
        minimum_roi_dimensions=draw(st.sampled_from([1, 2])),
        weighting_norm=draw(st.sampled_from([None, None, "euclidean", "no_weighting", "infinity"])),
        symmetrical_glcm=draw(st.booleans()),
        gldm_alpha=draw(st.integers(0, 2)),
    )
    return pixels, mask, (draw(st.floats(0.3, 1.5)), draw(st.floats(0.3, 1.5))), chosen


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(regions())
def test_random_regions(case: tuple[Any, ...]) -> None:
    compare(*both(*case))


def test_a_few_real_lungs(shared_data: Path) -> None:
    n_slices = 0
    for _, pixels, mask, spacing in islice(real_lungs(shared_data), 0, None, 16):
        compare(*both(pixels, mask, spacing))
        n_slices += 1
    assert n_slices >= 3


def test_a_phantom_of_each_class() -> None:
    labels = set()
    for name, pixels, mask, spacing in phantom_lungs(n_cases=1, n_slices=2, size=256):
        compare(*both(pixels, mask, spacing))
        labels.add(name.split("-")[0])
    assert labels == {"ASS", "IPF", "DM/RP", "Normal"}


def report(slices: Iterable[Slice], what: str) -> int:
    """Compare the engines on all of them, print the worst of each class; their number."""
    worst: dict[str, float] = {}
    n_slices = 0
    for _, pixels, mask, spacing in slices:
        for name, found in compare(*both(pixels, mask, spacing)).items():
            worst[name] = max(worst.get(name, 0.0), found)
        n_slices += 1
    shown = ", ".join(f"{name} {found:.1e}" for name, found in worst.items())
    print(f"\n{n_slices} {what}; largest relative difference by class: {shown}")
    assert max(worst.values()) < 1e-9
    return n_slices


@pytest.mark.slow
def test_all_real_regions(shared_data: Path) -> None:
    assert report(real_regions(shared_data), "regions of real slices") >= 200


@pytest.mark.slow
def test_phantoms_of_all_classes() -> None:
    assert report(phantom_lungs(n_cases=2, n_slices=6), "phantom slices") >= 40


@pytest.mark.slow
def test_a_thousand_gray_levels() -> None:
    """As many as pyradiomics can be asked for: its MCC is cubic in gray levels."""
    order = np.random.default_rng(4).permutation(32 * 32)
    pixels = (order.reshape(32, 32) - 1000.0).astype(np.float32)
    chosen = RadiomicsSettings(bin_width=1.0)
    found = compare(*both(pixels, np.ones((32, 32), dtype=bool), (0.7, 0.7), chosen))
    print(f"\n1024 gray levels; largest relative difference by class: {found}")
