"""The two-means split and the lung window against their definitions and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ildsdk.lung import apply_lung_window, two_means_split, two_means_threshold


def _within(values: np.ndarray, threshold: float) -> float:
    low, high = values[values <= threshold], values[values > threshold]
    return float(((low - low.mean()) ** 2).sum() + ((high - high.mean()) ** 2).sum())


def _samples(name: str) -> np.ndarray:
    rng = np.random.default_rng(11)
    return {
        "two-normals": np.r_[rng.normal(-850, 60, 3000), rng.normal(40, 40, 5000)],
        "unequal": np.r_[rng.normal(-850, 90, 150), rng.normal(40, 30, 6000)],
        "uniform": rng.uniform(-1000, 200, 4000),
        "skewed": -1000 + rng.gamma(2.0, 150.0, 5000),
        "three": np.r_[
            rng.normal(-900, 30, 900), rng.normal(-400, 80, 800), rng.normal(30, 30, 900)
        ],
        "few": np.array([-3.0, -2.0, -2.0, 7.0, 9.0]),
    }[name].round()


@pytest.mark.parametrize("name", ["two-normals", "unequal", "uniform", "skewed", "three", "few"])
def test_split_equals_converged_kmeans(name: str) -> None:
    from sklearn.cluster import KMeans

    values = _samples(name)
    grey, counts = np.unique(values, return_counts=True)
    split = two_means_split(grey, counts)
    centers = np.array([[split.low_center], [split.high_center]])
    # Started at our centers K-means does not move: they are a fixed point ...
    options = {"n_clusters": 2, "tol": 0.0, "max_iter": 1000}
    ours = KMeans(init=centers, n_init=1, **options).fit(values[:, None])
    np.testing.assert_allclose(ours.cluster_centers_, centers, rtol=1e-9, atol=1e-6)
    # ... and from twenty random starts it finds nothing better, at best the same.
    started = KMeans(init="random", n_init=20, random_state=0, **options).fit(values[:, None])
    assert ours.inertia_ <= started.inertia_ * (1 + 1e-9)
    assert ours.inertia_ == pytest.approx(started.inertia_, rel=1e-4)
    assert split.threshold == pytest.approx(centers.mean())
    assert two_means_threshold(values) == pytest.approx(split.threshold, abs=1e-9)


def test_split_equals_kmeans_on_real_slices(shared_data) -> None:  # type: ignore[no-untyped-def]
    from pydicom import dcmread
    from sklearn.cluster import KMeans

    paths = sorted((shared_data / "dicom" / "tcga_luad").glob("*.dcm"))[::4]
    assert paths
    for path in paths:
        dataset = dcmread(path)
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        grey, counts = np.unique(np.clip(hu, -1250, 250).round(), return_counts=True)
        kmeans = KMeans(n_clusters=2, n_init=5, tol=0.0, max_iter=1000, random_state=0)
        kmeans.fit(grey[:, None], sample_weight=counts)
        expected = float(kmeans.cluster_centers_.mean())
        assert two_means_threshold(grey, counts) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1250, 250), min_size=2, max_size=40).filter(lambda v: len(set(v)) > 1))
def test_no_other_split_is_better(values: list[int]) -> None:
    samples = np.array(values, dtype=float)
    best = _within(samples, two_means_threshold(samples))
    for cut in np.unique(samples)[:-1]:
        assert best <= _within(samples, float(cut)) + 1e-6 * (1 + best)


def test_split_refuses_what_has_no_answer() -> None:
    with pytest.raises(ValueError, match="distinct"):
        two_means_threshold(np.full(5, 3.0))
    with pytest.raises(ValueError, match="NaN"):
        two_means_threshold(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="rise"):
        two_means_threshold(np.array([2.0, 1.0]), np.array([1, 1]))
    with pytest.raises(ValueError, match="0 or more"):
        two_means_threshold(np.array([1.0, 2.0]), np.array([1, -1]))
    with pytest.raises(ValueError, match="as many"):
        two_means_threshold(np.array([1.0, 2.0]), np.array([1]))


def test_window_maps_the_methods_range() -> None:
    hu = np.array([[-3024, -1250, -500, 250, 3071]], dtype=np.int16)
    windowed = apply_lung_window(hu)
    assert windowed.dtype == np.float32
    np.testing.assert_allclose(windowed, [[0, 0, 0.5, 1, 1]], atol=1e-6)
    np.testing.assert_array_equal(apply_lung_window(hu.astype(np.float32)), windowed)


def test_window_keeps_its_input_and_refuses_bad_windows() -> None:
    hu = np.array([[np.nan, -500.0]], dtype=np.float32)
    hu.flags.writeable = False
    assert apply_lung_window(hu)[0, 0] == 0
    with pytest.raises(ValueError, match="width_hu"):
        apply_lung_window(hu, width_hu=0)
    with pytest.raises(ValueError, match="center_hu"):
        apply_lung_window(hu, center_hu=float("nan"))
