"""Leaks between training and test: each planted kind is found, honest sets pass."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import fft, ndimage

pytest.importorskip("tqdm", reason="the training side needs tqdm")
pytest.importorskip("torch", reason="the training side needs torch")

from export import near_duplicates
from export.cli import main
from export.dataset import SliceSet
from export.leaks import LeakError, check_folds, find_leaks, require_no_leak
from export.near_duplicates import DuplicateRule, find_near_duplicates
from export.perceptual_hash import hash_reduced, perceptual_hashes, reduce_images
from export.phantom import PhantomSettings, generate_case
from export.prepare import CaseSource, SourceSlice, prepare
from export.splits import write_folds
from ildsdk.errors import ConfigError
from ildsdk.model_input import model_input
from ildsdk.settings import MethodSettings

METHOD = MethodSettings(input_size=96)
SETTINGS = PhantomSettings(size=160, n_slices=4)
SPACING = (2.2, 2.2)


def pictures(pixels_hu: np.ndarray, lung_masks: np.ndarray) -> np.ndarray:
    """Model inputs float16 ``(n, 1, 96, 96)`` of phantom slices, by their true masks."""
    return np.stack(
        [
            model_input(hu.astype(np.float32), SPACING, mask, METHOD)
            for hu, mask in zip(pixels_hu, lung_masks, strict=True)
        ]
    ).astype(np.float16)


@pytest.fixture(scope="module")
def phantoms() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """HU and lung masks of three cases of two classes."""
    cases = [generate_case(label, seed, SETTINGS) for label in ("IPF-ILD", "Normal") for seed in
             range(3)]  # fmt: skip
    return {case.case_id: (case.pixels_hu, case.lung_mask) for case in cases}


def slice_set(parts: dict[str, np.ndarray], **fields) -> SliceSet:
    """Set of the pictures of each case; the label is the word in the case id."""
    case_ids = tuple(case for case, images in parts.items() for _ in images)
    return SliceSet(
        images=np.concatenate(list(parts.values())),
        radiomics=np.zeros((len(case_ids), 2)),
        labels=tuple(case.split("-")[1] for case in case_ids),
        case_ids=case_ids,
        position_mm=(None,) * len(case_ids),
        method=METHOD,
        **fields,
    )


@pytest.fixture(scope="module")
def honest(phantoms) -> SliceSet:
    return slice_set({case: pictures(*arrays) for case, arrays in phantoms.items()})


TRAIN = ("PHANTOM-IPF-0000", "PHANTOM-IPF-0001", "PHANTOM-NORMAL-0000", "PHANTOM-NORMAL-0001")
TEST = ("PHANTOM-IPF-0002", "PHANTOM-NORMAL-0002")
FOLDS = [[f"PHANTOM-{word}-{number:04d}" for word in ("IPF", "NORMAL")] for number in range(3)]


def planted(honest: SliceSet, copies: np.ndarray, case_id: str = "PHANTOM-IPF-0099") -> SliceSet:
    """The honest set and a case more, made of the given pictures."""
    rows = {case: honest.images[honest.rows_of([case])] for case in (*TRAIN, *TEST)}
    return slice_set({**rows, case_id: copies})


def test_honest_set_passes_and_says_what_was_compared(honest) -> None:
    report = require_no_leak(honest, TRAIN, TEST)
    assert report.is_clean
    assert (report.n_slices, report.n_cases, report.n_pairs) == (24, 6, 16 * 8)
    assert report.n_cases_without_patient == report.n_cases_without_study == 6
    assert report.summary()[-1] == "no leak found"
    folds = check_folds(honest, FOLDS)
    assert (folds.n_slices, folds.n_pairs) == (24, 3 * 8 * 8)


def test_case_on_both_sides(honest) -> None:
    with pytest.raises(LeakError, match=r"1 cases on both sides \(PHANTOM-IPF-0000\)") as caught:
        require_no_leak(honest, TRAIN, (*TEST, "PHANTOM-IPF-0000"))
    assert (caught.value.code, caught.value.exit_code) == ("leak", 2)
    assert caught.value.report.near_duplicates == ()  # its slices are not counted once more


@pytest.mark.parametrize("what", ["patient", "study"])
def test_patient_or_study_under_two_case_ids(honest, what) -> None:
    keys = {case: (f"secret-{case}",) for case in (*TRAIN, *TEST)}
    both = {**keys, "PHANTOM-IPF-0002": ("secret-x", "secret-PHANTOM-NORMAL-0001")}
    field = f"{what}_keys"
    clean = find_leaks(dataclasses.replace(honest, **{field: keys}), TRAIN, TEST)
    assert clean.is_clean
    assert getattr(clean, f"n_cases_without_{what}") == 0
    with pytest.raises(
        LeakError, match=rf"1 pairs of cases share a {what} \(PHANTOM-IPF-0002 / PHANTOM-NORMAL-0"
    ) as caught:
        check_folds(dataclasses.replace(honest, **{field: both}), FOLDS)
    assert "secret" not in str(caught.value)
    # On one side they may share what they like.
    together = [["PHANTOM-IPF-0002", "PHANTOM-NORMAL-0001"], FOLDS[0]]
    assert check_folds(dataclasses.replace(honest, **{field: both}), together).is_clean


def noisy(hu: np.ndarray) -> np.ndarray:
    return hu + np.random.default_rng(1).normal(0, 15, hu.shape)


def other_kernel(hu: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(hu.astype(np.float32), (0, 0.7, 0.7))


def fewer_grey_values(hu: np.ndarray) -> np.ndarray:
    return np.round(hu / 16) * 16


@pytest.mark.parametrize("change", [noisy, other_kernel, fewer_grey_values])
def test_changed_copy_of_a_case_is_found(honest, phantoms, change) -> None:
    hu, masks = phantoms["PHANTOM-NORMAL-0002"]
    copied = planted(honest, pictures(change(hu), masks))
    with pytest.raises(LeakError, match="PHANTOM-IPF-0099: 4") as caught:
        check_folds(copied, FOLDS)  # the copy is tested in no fold: it always trains
    pairs = {(p.row_a % 4, p.row_b % 4) for p in caught.value.report.near_duplicates}
    assert pairs == {(i, i) for i in range(4)}


def test_one_shifted_or_turned_slice_is_found(honest) -> None:
    images = honest.images[honest.rows_of(["PHANTOM-NORMAL-0002"])]
    # Half a pixel of 96 is about two pixels of a 512 x 512 slice.
    shifted = (images[1:2] + np.roll(images[1:2], 1, axis=3)) / 2
    for changed, orientation in (
        (shifted, "as they are"),
        (images[1:2, :, :, ::-1], "mirrored left to right"),
        (images[1:2, :, ::-1, ::-1], "turned half round"),
    ):
        report = find_leaks(planted(honest, changed), (*TRAIN, "PHANTOM-IPF-0099"), TEST)
        assert [p.orientation for p in report.near_duplicates] == [orientation]
        assert {report.near_duplicates[0].case_a, report.near_duplicates[0].case_b} == {
            "PHANTOM-NORMAL-0002",
            "PHANTOM-IPF-0099",
        }
        assert report.closest == report.near_duplicates[0]


def test_near_duplicates_on_one_side_do_not_count(honest) -> None:
    images = honest.images[honest.rows_of(["PHANTOM-NORMAL-0002"])]
    assert find_leaks(planted(honest, images), TRAIN, (*TEST, "PHANTOM-IPF-0099")).is_clean
    # The same picture twice in one case, as adjacent slices nearly are.
    rows = {case: honest.images[honest.rows_of([case])] for case in (*TRAIN, *TEST)}
    rows["PHANTOM-NORMAL-0002"] = np.concatenate([images, images])
    assert check_folds(slice_set(rows), FOLDS).is_clean


def test_unknown_and_doubled_cases_are_refused(honest) -> None:
    with pytest.raises(ConfigError, match=r"1 cases are not in the prepared set \(other\)"):
        check_folds(honest, [*FOLDS, ["other"]])
    with pytest.raises(ConfigError, match="tested in fold 0 and 2"):
        check_folds(honest, [FOLDS[0], FOLDS[1], FOLDS[0]])
    with pytest.raises(ConfigError, match="min_correlation"):
        DuplicateRule(min_correlation=1.5)


# ---------------------------------------------------------------- against plain code


def test_fingerprint_is_the_cosine_transform_by_definition(honest) -> None:
    images = honest.images.astype(np.float64)
    for image, fingerprint in zip(images, perceptual_hashes(honest.images), strict=True):
        small = image[0].reshape(48, 2, 48, 2).mean(axis=(1, 3)).astype(np.float16)
        values = fft.dctn(small.astype(np.float64), type=2)[1:9, 1:9].ravel()
        bits = "".join("1" if value > np.median(values) else "0" for value in values)
        assert int(fingerprint) == int(bits, 2)


def test_reduction_keeps_the_mean_at_any_size() -> None:
    images = np.random.default_rng(0).random((300, 1, 45, 45))
    reduced = reduce_images(images)
    np.testing.assert_allclose(
        reduced.astype(np.float64).mean(axis=(1, 2)), images.mean(axis=(1, 2, 3)), atol=5e-4
    )
    np.testing.assert_array_equal(hash_reduced(reduced), perceptual_hashes(images))


def plain_pairs(slices: SliceSet, sides: np.ndarray, rule: DuplicateRule) -> set:
    """All near-duplicates as they are, by double loop."""
    small = reduce_images(slices.images).astype(np.float64)
    hashes = [int(h) for h in perceptual_hashes(slices.images)]
    found = set()
    for a in range(len(slices)):
        for b in range(a + 1, len(slices)):
            inside = (small[a] > 0.02) & (small[b] > 0.02)
            if (
                sides[a] != sides[b]
                and bin(hashes[a] ^ hashes[b]).count("1") <= rule.max_bits
                and np.corrcoef(small[a].ravel(), small[b].ravel())[0, 1] >= rule.min_overall
                and plain_detail(small[a], small[b], inside) >= rule.min_correlation
            ):
                found.add((a, b))
    return found


def plain_detail(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> float:
    """Cosine of what is left of two pictures without their Gaussian surroundings."""
    rows, columns = np.nonzero(inside)
    squared = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    weights = np.exp(-squared / (2 * 4.5**2))
    weights /= weights.sum(axis=1, keepdims=True)
    u, v = (picture[inside] - weights @ picture[inside] for picture in (first, second))
    return float(u @ v / np.sqrt((u @ u) * (v @ v)))


@pytest.mark.parametrize("pairs_at_once", [1, 100, 1 << 20])
def test_search_equals_a_double_loop(honest, monkeypatch, pairs_at_once) -> None:
    monkeypatch.setattr(near_duplicates, "_PAIRS_AT_ONCE", pairs_at_once)
    sides = np.array([{"0": 0, "1": 1, "2": 0}[case[-1]] for case in honest.case_ids])
    # Loose, so that different patients pass each of the conditions now and then.
    rule = DuplicateRule(max_bits=24, min_overall=0.5, min_correlation=0.1)
    expected = plain_pairs(honest, sides, rule)
    assert 3 < len(expected) < 60
    found = find_near_duplicates(honest, np.arange(len(honest)), sides, rule)
    upright = [p for p in found.near_duplicates if p.orientation == "as they are"]
    assert {(p.row_a, p.row_b) for p in upright} == expected
    assert len(upright) == len(expected)
    everything = find_near_duplicates(
        honest, np.arange(len(honest)), sides, dataclasses.replace(rule, min_correlation=0.0)
    )
    assert everything.closest == max(everything.near_duplicates, key=lambda p: p.correlation)


def test_stored_fingerprints_are_used(honest) -> None:
    images = honest.images[honest.rows_of(["PHANTOM-NORMAL-0002"])]
    copied = planted(honest, images)
    far_apart = np.where(np.arange(len(copied)) < 24, 0, 0xFFFFFFFFFFFFFFFF).astype(np.uint64)
    blinded = dataclasses.replace(copied, perceptual_hashes=far_apart)
    assert not find_leaks(copied, (*TRAIN, "PHANTOM-IPF-0099"), TEST).is_clean
    assert find_leaks(blinded, (*TRAIN, "PHANTOM-IPF-0099"), TEST).is_clean


# ---------------------------------------------------------------- command line


def read_phantom(label: str, seed: int, patient: str, noise_hu: float):
    case = generate_case(label, seed, SETTINGS)
    rng = np.random.default_rng(0)
    for hu, position in zip(case.pixels_hu, case.position_mm, strict=True):
        yield SourceSlice(
            pixels_hu=np.maximum(hu + rng.normal(0, noise_hu, hu.shape), -1024).astype(np.float32),
            pixel_spacing_mm=case.pixel_spacing_mm,
            position_mm=position,
            patient=patient,
        )


class Reader:
    """A picklable source of a phantom."""

    def __init__(self, *arguments) -> None:
        self.arguments = arguments

    def __call__(self):
        return read_phantom(*self.arguments)


@pytest.mark.parametrize(
    ("patient", "seed", "accusation"),
    [
        ("P-2", 5, "no leak found"),
        ("P-1", 5, "share a patient (a / b)"),
        ("P-2", 1, "near-duplicate slices between 1 pairs of cases (a / b"),
    ],
)
def test_command_fails_on_a_planted_leak(tmp_path, patient, seed, accusation) -> None:
    sources = [
        CaseSource(case_id="a", label="X", read=Reader("Normal", 1, "P-1", 0.0)),
        CaseSource(case_id="b", label="X", read=Reader("Normal", seed, patient, 15.0)),
    ]
    prepared = tmp_path / "prepared"
    prepare(sources, prepared, METHOD, n_processes=1, show_progress=False)
    write_folds(tmp_path / "folds.json", [["a"], ["b"]])
    arguments = ["check-leaks", str(prepared), str(tmp_path / "folds.json")]
    done = CliRunner().invoke(main, arguments)
    assert accusation in done.output
    assert done.exit_code == (0 if accusation == "no leak found" else 2)
    assert "P-1" not in done.output
    if accusation == "no leak found":
        assert "compared 8 slices of 2 cases: 16 pairs across sides" in done.output
        assert "patient known of 2 of 2 cases" in done.output
