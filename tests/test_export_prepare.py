"""Preparation of a training set: same numbers as inference, resumable, skips reported."""

from __future__ import annotations

import csv
from functools import partial

import numpy as np
import pytest

pytest.importorskip("tqdm", reason="the training side needs tqdm")
pytest.importorskip("torch", reason="the training side needs torch")

from export import prepare as prepare_module
from export.prepare import CaseSource, SourceSkip, SourceSlice, prepare
from ildsdk.errors import ConfigError, InputError
from ildsdk.lung import segment_lung
from ildsdk.model_input import model_input
from ildsdk.radiomics import RadiomicsExtractor
from ildsdk.settings import MethodSettings

METHOD = MethodSettings(input_size=64)
SPACING = (1.4, 1.4)


def chest(seed: int) -> np.ndarray:
    """A body with two lungs, float32 HU ``(256, 256)``."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:256, :256]
    pixels = np.full((256, 256), -1000.0)
    pixels[((rows - 128) / 80) ** 2 + ((columns - 128) / 110) ** 2 < 1] = 40
    for center in (80, 176):
        pixels[((rows - 128) / 58) ** 2 + ((columns - center) / 36) ** 2 < 1] = -850
    return (pixels + rng.normal(0, 25, pixels.shape)).astype(np.float32)


def read_case(seed: int, with_bad: bool = True):
    for i in range(2):
        yield SourceSlice(pixels_hu=chest(seed + i), pixel_spacing_mm=SPACING, position_mm=10.0 * i)
    if with_bad:
        yield SourceSkip(name="IM4", reason="localizer", detail="ImageType LOCALIZER")
        yield SourceSlice(
            pixels_hu=np.full((256, 256), 40, np.float32),
            pixel_spacing_mm=SPACING,
            position_mm=None,
        )


def read_nothing():
    return iter(())


def fail():
    raise AssertionError("read again")


def sources() -> list[CaseSource]:
    return [
        CaseSource(case_id=case_id, label=label, read=partial(read_case, seed))
        for case_id, label, seed in (("b/2", "Y", 20), ("a 1", "X", 10))
    ]


def test_prepared_slices_are_what_inference_computes(tmp_path) -> None:
    slices = prepare(sources(), tmp_path, METHOD, n_processes=1, show_progress=False)
    assert slices.case_ids == ("a 1", "a 1", "b/2", "b/2")
    assert slices.labels == ("X", "X", "Y", "Y")
    assert slices.position_mm == (0.0, 10.0, 0.0, 10.0)
    pixels = chest(11)
    lung = segment_lung(pixels, SPACING, min_area_mm2=METHOD.min_lung_area_mm2)
    expected = model_input(pixels, SPACING, lung.lung_mask, METHOD)
    np.testing.assert_allclose(slices.images[1], expected, atol=6e-4)  # float16 on disk
    features = RadiomicsExtractor(engine="fast").extract(pixels, lung.lung_mask, SPACING).values
    np.testing.assert_array_equal(slices.radiomics[1], features)
    with (tmp_path / "skipped.csv").open() as stream:
        skipped = list(csv.DictReader(stream))
    assert [(row["case_id"], row["name"]) for row in skipped[:2]] == [
        ("a 1", "IM4"),
        ("a 1", "slice 4"),
    ]
    assert skipped[0]["reason"] == "localizer"
    assert "lung" in skipped[1]["reason"]


def test_two_processes_give_the_same_set(tmp_path) -> None:
    first = prepare(sources(), tmp_path / "1", METHOD, n_processes=1, show_progress=False)
    second = prepare(sources(), tmp_path / "2", METHOD, n_processes=2, show_progress=False)
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.radiomics, second.radiomics)


def test_a_killed_run_goes_on_with_the_cases_left(tmp_path) -> None:
    whole = sources()
    broken = [whole[0], CaseSource(case_id="a 1", label="X", read=fail)]
    with pytest.raises(AssertionError, match="read again"):
        prepare(broken, tmp_path, METHOD, n_processes=1, show_progress=False)
    # Now the finished case must not be read again.
    resumed = [CaseSource(case_id="b/2", label="Y", read=fail), whole[1]]
    assert len(prepare(resumed, tmp_path, METHOD, n_processes=1, show_progress=False)) == 4


def test_refusals(tmp_path) -> None:
    with pytest.raises(ConfigError, match="twice"):
        prepare([sources()[0]] * 2, tmp_path, METHOD, n_processes=1, show_progress=False)
    empty = [CaseSource(case_id="e", label="X", read=read_nothing)]
    with pytest.raises(InputError, match="usable slice"):
        prepare(empty, tmp_path / "empty", METHOD, n_processes=1, show_progress=False)
    with pytest.raises(ConfigError, match="was begun with"):
        prepare(
            empty, tmp_path / "empty", MethodSettings(input_size=96), n_processes=1,
            show_progress=False,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="run `python -m export prepare`"):
        prepare_module.load_slice_set(tmp_path / "empty")
