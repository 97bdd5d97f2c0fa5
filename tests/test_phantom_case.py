"""The phantom generator: same arguments same pixels, plausible lungs, disease where it belongs."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from export.phantom import LABELS, PhantomSettings, case_id_of, generate_case
from export.phantom.diseases import draw_profile

SMALL = PhantomSettings(size=128, n_slices=4)
DISEASES = [label for label in LABELS if label != "Normal"]


def digest_of(job: tuple[str, int]) -> str:
    """Hash of all arrays of a small case."""
    case = generate_case(*job, SMALL)
    parts = (case.pixels_hu, case.position_mm, case.lung_mask, case.lesion_mask)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


@pytest.fixture(scope="module")
def cases():
    """Six small cases of each class."""
    return {label: [generate_case(label, seed, SMALL) for seed in range(6)] for label in LABELS}


def test_same_pixels_in_any_order_thread_and_process() -> None:
    jobs = [("IPF-ILD", 3), ("Normal", 3), ("ASS-ILD", 8)]
    expected = [digest_of(job) for job in jobs]
    assert [digest_of(job) for job in jobs[::-1]][::-1] == expected
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(digest_of, jobs)) == expected
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert list(pool.map(digest_of, jobs[:2])) == expected[:2]


def test_seeds_and_labels_are_different_patients() -> None:
    digests = {digest_of((label, seed)) for label in LABELS for seed in (0, 1)}
    assert len(digests) == 8


def test_record_shapes_and_order(cases) -> None:
    case = cases["ASS-ILD"][0]
    assert case.pixels_hu.shape == case.lung_mask.shape == case.lesion_mask.shape == (4, 128, 128)
    assert case.pixels_hu.dtype == np.int16
    assert case.lung_mask.dtype == case.lesion_mask.dtype == np.bool_
    assert (np.diff(case.position_mm) > 0).all()
    assert not (case.lesion_mask & ~case.lung_mask).any()
    assert case.case_id == "PHANTOM-ASS-0000"


def test_interval_and_field_of_view() -> None:
    case = generate_case("Normal", 4, PhantomSettings(size=64, slice_interval_mm=20.0))
    np.testing.assert_allclose(np.diff(case.position_mm), 20.0)
    assert 8 <= len(case.position_mm) <= 14
    assert 0.6 * 512 <= case.pixel_spacing_mm[0] * 64 <= 0.9 * 512


def test_size_changes_pixels_not_the_patient() -> None:
    coarse = generate_case("IPF-ILD", 5, PhantomSettings(size=96, n_slices=3))
    fine = generate_case("IPF-ILD", 5, PhantomSettings(size=192, n_slices=3))
    np.testing.assert_array_equal(coarse.position_mm, fine.position_mm)
    area = [case.lung_mask.sum((1, 2)) * case.pixel_spacing_mm[0] ** 2 for case in (coarse, fine)]
    np.testing.assert_allclose(area[0], area[1], rtol=0.05)


def test_hu_ranges_and_lung_area(cases) -> None:
    for label in LABELS:
        for case in cases[label]:
            inside_circle = case.pixels_hu[case.pixels_hu >= -1024]
            assert inside_circle.max() <= 3071
            assert case.padding_hu is None or (case.pixels_hu == case.padding_hu).any()
            area_cm2 = case.lung_mask.sum((1, 2)) * case.pixel_spacing_mm[0] ** 2 / 100
            assert area_cm2.min() > 25
            assert 100 < area_cm2.max() < 480
            lungs = case.pixels_hu[case.lung_mask].astype(float)
            assert np.percentile(lungs, 1) > -1024
            if label == "Normal":
                assert -890 < lungs.mean() < -700
            assert lungs.mean() < -300


def test_disease_shows_and_health_does_not(cases) -> None:
    def share(case) -> float:
        return case.lesion_mask.sum() / case.lung_mask.sum()

    for case in cases["Normal"]:
        assert case.severity == 0
        assert not case.lesion_mask.any()
    for label in DISEASES:
        assert np.mean([share(case) for case in cases[label]]) > 0.05
        assert all(0 < case.severity <= 1 for case in cases[label])
        lesion_hu = np.concatenate([c.pixels_hu[c.lesion_mask] for c in cases[label]])
        normal_hu = np.concatenate([c.pixels_hu[c.lung_mask] for c in cases["Normal"]])
        assert np.median(lesion_hu) > np.median(normal_hu) + 100


def test_ipf_grows_towards_the_base(cases) -> None:
    low = high = 0.0
    for case in cases["IPF-ILD"]:
        shares = case.lesion_mask.sum((1, 2)) / np.maximum(case.lung_mask.sum((1, 2)), 1)
        low, high = low + shares[0], high + shares[-1]
    assert low > 2 * high


def test_classes_differ_in_their_patterns() -> None:
    rng = np.random.default_rng(0)
    drawn = {label: [draw_profile(label, rng, 0.5) for _ in range(200)] for label in LABELS}

    def mean(label: str, name: str) -> float:
        return float(np.mean([getattr(profile, name) for profile in drawn[label]]))

    assert mean("IPF-ILD", "honeycomb") > 3 * mean("ASS-ILD", "honeycomb")
    assert mean("ASS-ILD", "ground_glass") > 2 * mean("IPF-ILD", "ground_glass")
    assert mean("DM/RP-ILD", "perilobular") > 2 * mean("ASS-ILD", "perilobular")
    severities = [profile.severity for profile in drawn["IPF-ILD"]]
    assert min(severities) < 0.25
    assert max(severities) > 0.8


def test_difficulty_makes_disease_milder() -> None:
    def mean_severity(difficulty: float) -> float:
        rng = np.random.default_rng(1)
        return float(
            np.mean([draw_profile("ASS-ILD", rng, difficulty).severity for _ in range(300)])
        )

    assert mean_severity(0.0) > mean_severity(0.5) + 0.05 > mean_severity(1.0) + 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 10},
        {"difficulty": 1.5},
        {"slice_interval_mm": float("nan")},
        {"n_slices": 0},
    ],
)
def test_settings_refuse_nonsense(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PhantomSettings(**wrong)


def test_unknown_label_and_negative_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="label"):
        generate_case("COVID", 0, SMALL)
    with pytest.raises(ValueError, match="seed"):
        generate_case("Normal", -1, SMALL)
    assert case_id_of("DM/RP-ILD", 12) == "PHANTOM-DMRP-0012"
