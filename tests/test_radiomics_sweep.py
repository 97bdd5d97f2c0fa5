"""The walk that counts all neighbors at once against the kernels that go level by level."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ildsdk.radiomics import RadiomicsExtractor, RadiomicsSettings, fast
from tests.radiomics_slices import blob, texture

SPACING = (0.7, 0.9)


def values(pixels: npt.NDArray[np.generic], mask: npt.NDArray[np.bool_], **chosen: object) -> list:
    settings = RadiomicsSettings(**chosen)  # type: ignore[arg-type]
    found = RadiomicsExtractor(settings).extract(pixels, mask, SPACING, strict=False).values
    assert np.isfinite(found).all()
    return found.tolist()


def stripes() -> npt.NDArray[np.float32]:
    """Runs of all lengths from 1 to 24, along rows, columns and diagonals."""
    rows, columns = np.indices((64, 72))
    widths = np.repeat(np.arange(1, 25) % 5, np.arange(1, 25))
    along = [widths[k % widths.size] for k in (rows, columns, rows + columns, columns - rows)]
    quarter = 2 * (rows >= 32) + (columns >= 36)
    return (np.choose(quarter, along) * 25.0 - 900.0).astype(np.float32)


@pytest.mark.parametrize("symmetrical", [True, False])
@pytest.mark.parametrize("picture", [texture(1), texture(2, smoothing=6.0), stripes()])
def test_one_walk_gives_what_the_levels_give(
    picture: npt.NDArray[np.float32], symmetrical: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = values(picture, blob(), symmetrical_glcm=symmetrical)
    calls = []
    monkeypatch.setattr(fast, "sweep", lambda *_: calls.append(1))
    assert values(picture, blob(), symmetrical_glcm=symmetrical) == pytest.approx(
        walked, rel=1e-12, abs=1e-14
    )
    assert calls


@pytest.mark.parametrize("bin_width", [25.0, 2.0])  # fewer than 256 levels, and more
def test_whole_numbers_give_what_fractions_give(bin_width: float) -> None:
    """A millionth of a HU takes the way of any numbers, and moves no value further."""
    pixels = texture(3).astype(np.float64)
    pixels[~blob()] = 0.0
    whole = values(pixels, blob(), bin_width=bin_width)
    shifted = pixels.copy()
    shifted[32, 20] += 1e-6
    assert values(shifted, blob(), bin_width=bin_width) == pytest.approx(whole, rel=1e-6)
    assert values(pixels.astype(np.int16), blob(), bin_width=bin_width) == whole
    shifted[~blob()] = 0.5  # outside the mask nothing matters
    shifted[32, 20] = pixels[32, 20]
    assert values(shifted, blob(), bin_width=bin_width) == whole


def test_percentiles_of_any_numbers_are_numpys() -> None:
    rng = np.random.default_rng(5)
    for n_columns in (40, 41):
        pixels = np.exp(rng.normal(0.0, 1.0, (20, n_columns)))
        pixels[3, 4] = 3000.0  # one outlier: nearly all in a few bins
        found = RadiomicsExtractor().extract(pixels, np.ones(pixels.shape, bool), SPACING).to_dict()
        for name, share in (("10Percentile", 10), ("Median", 50), ("90Percentile", 90)):
            assert found[f"original_firstorder_{name}"] == pytest.approx(
                np.percentile(pixels, share), rel=1e-14
            )
