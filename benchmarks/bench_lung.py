"""Speed of the lung mask, one thread: ``pytest benchmarks/bench_lung.py --benchmark-enable``.

On real slices where the shared data lie (``ILDSDK_TEST_DATA``), else on a synthetic one. The peer
is what most projects do: threshold, scipy components, scipy morphology at full resolution.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pytest  # noqa: E402

from benchmarks.contest import Contender, Report, Role, Rounds, interleaved  # noqa: E402
from ildsdk.errors import SliceUnusableError  # noqa: E402
from ildsdk.lung import apply_lung_window, segment_lung, two_means_threshold  # noqa: E402
from tests.lung_phantom import dice, make_slice  # noqa: E402

Slice = tuple[npt.NDArray[np.float32], tuple[float, float]]


def _real_slices() -> list[Slice]:
    home = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ILDSDK_TEST_DATA", home)) / "dicom"
    slices: list[Slice] = []
    for path in sorted(folder.rglob("*.dcm")):
        from pydicom import dcmread

        dataset = dcmread(path)
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        row_mm, column_mm = (float(step) for step in dataset.PixelSpacing)
        if hu.shape == (512, 512):
            slices.append((hu.astype(np.float32), (row_mm, column_mm)))
    return slices


def _scipy_mask(
    pixels_hu: npt.NDArray[np.float32], spacing_mm: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    from scipy import ndimage

    air = pixels_hu < two_means_threshold(pixels_hu.clip(-1250, 250).round())
    labels, n_labels = ndimage.label(air)
    border = np.unique(np.r_[labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    size = np.bincount(labels.ravel(), minlength=n_labels + 1) * spacing_mm[0] * spacing_mm[1]
    size[border] = 0
    lung = (size > 1000)[labels]
    steps = round(5.0 / spacing_mm[0])
    lung = ndimage.binary_closing(lung, iterations=steps)
    filled: npt.NDArray[np.bool_] = ndimage.binary_fill_holes(lung)
    return filled


def _attempt(name: str, slice_: Slice) -> None:
    if name == "ildsdk":
        with contextlib.suppress(SliceUnusableError):
            segment_lung(*slice_)
    else:
        _scipy_mask(*slice_)


@pytest.mark.parametrize("name", ["ildsdk", "scipy-threshold"])
@pytest.mark.benchmark(group="lung mask|real 512x512 slices in turn")
def test_segment_real_slices(benchmark: Any, name: str) -> None:
    slices = _real_slices()
    if not slices:
        pytest.skip("real CT is absent (set ILDSDK_TEST_DATA to its folder)")
    for slice_ in slices:
        _attempt(name, slice_)
    turn = iter(range(10**9))
    benchmark.extra_info["n_slices"] = len(slices)
    benchmark.pedantic(
        lambda: _attempt(name, slices[next(turn) % len(slices)]),
        rounds=5 * len(slices),
        iterations=1,
    )


@pytest.fixture(scope="module")
def contest(
    rounds: Callable[[int], int],
) -> tuple[dict[str, Contender], dict[str, Rounds]]:
    """Both masks in turn; the made-up consolidation tells what each keeps."""
    phantom = make_slice(disease="consolidation")
    given = (phantom.pixels_hu, phantom.spacing_mm)
    sick = phantom.disease
    contenders: dict[str, Contender] = {}
    acts: dict[str, tuple[Callable[[int], npt.NDArray[np.bool_]], Role]] = {
        "ildsdk": (lambda _: segment_lung(*given).lung_mask, "ours"),
        "scipy-threshold": (lambda _: _scipy_mask(*given), "rival"),
    }
    for name, (act, role) in acts.items():
        mask = act(0)
        facts = {
            "dice": round(dice(mask, phantom.lung), 3),
            "disease_kept": round(float((mask & sick).sum() / sick.sum()), 3),
            "threads": 1,
        }
        contenders[name] = Contender(act=act, role=role, facts=facts)
    assert contenders["ildsdk"].facts["dice"] > 0.95
    return contenders, interleaved(contenders, rounds(25))


@pytest.mark.parametrize("name", ["ildsdk", "scipy-threshold"])
def test_segment_synthetic(
    report: Report, contest: tuple[dict[str, Contender], dict[str, Rounds]], name: str
) -> None:
    contenders, found = contest
    report("lung mask|synthetic consolidation 507x507", name, contenders[name], found[name].seconds)


@pytest.mark.benchmark(group="lung window|507x507")
def test_window(benchmark: Any) -> None:
    windowed = benchmark(apply_lung_window, make_slice().pixels_hu)
    assert 0 <= windowed.min() <= windowed.max() <= 1
