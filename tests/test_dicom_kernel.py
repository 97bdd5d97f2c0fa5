"""The kernel of a plain slice beside the steps that it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from ildsdk.dicom import pixels
from ildsdk.dicom.pixels import to_hounsfield
from ildsdk.dicom.study import PixelLayout
from ildsdk.errors import SliceUnusableError
from tests import dicom_factory as factory


def layout_of(stored: np.ndarray, **facts) -> PixelLayout:
    plain = {
        "n_rows": stored.shape[0], "n_columns": stored.shape[1], "value_offset": 0,
        "value_length": 0, "n_frames": 1, "frame_index": 0, "bits_allocated": 16,
        "bits_stored": 16, "high_bit": 15, "is_signed": True, "is_little_endian": True,
        "photometric_interpretation": "MONOCHROME2", "slope": 1.0, "intercept": 0.0,
        "padding": None, "extended_offsets": None,
    }  # fmt: skip
    return PixelLayout(**(plain | facts))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    "facts",
    [
        {}, {"slope": 0.31, "intercept": -12.7}, {"padding": (-2000, -2000)},
        {"padding": (-2000, -900)}, {"padding": (0, 0)}, {"padding": (30, 45)},
        {"slope": -1.0}, {"slope": 16.0}, {"slope": 0.001}, {"intercept": 15_000.0},
        {"bits_stored": 12, "high_bit": 11, "is_signed": False, "padding": (63536, 63536)},
        {"bits_allocated": 32, "bits_stored": 32, "high_bit": 31},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["chest", "circle", "framed", "constant", "noise", "thin"])
def test_the_kernel_gives_what_the_steps_give(
    monkeypatch: pytest.MonkeyPatch, dtype: type, facts: dict, kind: str
) -> None:
    chest = factory.chest_hu().astype(dtype)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    outside = -2000 if kind == "circle" else -1500
    stored = {
        "chest": chest,
        "circle": np.where(x**2 + y**2 > 1, outside, chest),
        "framed": np.pad(chest, 40, constant_values=-1500),
        "constant": np.full((64, 70), -200, dtype),
        "noise": np.random.default_rng(0).integers(-2000, 2000, (67, 129)).astype(dtype),
        "thin": np.where(x**2 + y**2 > 0.9, outside, chest)[::2],  # not contiguous
    }[kind].astype(dtype)
    layout = layout_of(stored, **facts)
    results = []
    for is_plain in (True, False):
        if not is_plain:
            monkeypatch.setattr(pixels, "_plain", lambda stored, layout: None)
        try:
            results.append(to_hounsfield(stored.copy(), layout, "x"))
        except SliceUnusableError as error:
            results.append(np.frombuffer(str(error).encode(), np.uint8))
    ours, steps = results
    assert (ours.dtype, ours.shape) == (steps.dtype, steps.shape)
    assert ours.tobytes() == steps.tobytes()
    assert ours.flags.c_contiguous
