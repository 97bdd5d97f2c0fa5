"""Small pictures: geometry, fidelity, determinism, what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ildsdk.reports.thumbnail import encode_thumbnail, inner_border, render_slice_pictures
from tests.result_factory import draw_chest


def decode(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture.convert("L"))


def windowed_chest(size: int = 512) -> np.ndarray:
    return draw_chest(3, size=size).windowed.astype(np.float32) / 255


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((512, 512), (0.7, 0.7), (160, 160)),
        ((400, 512), (0.7, 0.7), (125, 160)),
        ((256, 512), (1.4, 0.7), (160, 160)),
        ((64, 32), (1.0, 1.0), (160, 80)),
    ],
)
def test_thumbnail_has_square_pixels_and_the_right_size(shape, spacing, expected):
    assert decode(encode_thumbnail(np.zeros(shape, np.float32), spacing)).shape == expected


def test_thumbnail_is_faithful_small_and_deterministic():
    windowed = windowed_chest()
    encoded = encode_thumbnail(windowed, (0.7, 0.7))
    assert encoded == encode_thumbnail(windowed.copy(), (0.7, 0.7))
    assert encoded.startswith(b"RIFF")
    assert len(encoded) < 12_000
    means = windowed[:512, :512].reshape(32, 16, 32, 16).mean(axis=(1, 3)) * 255
    found = decode(encoded).astype(float).reshape(32, 5, 32, 5).mean(axis=(1, 3))
    assert np.abs(found - means).mean() < 3


def test_thumbnail_takes_read_only_and_strided_input():
    windowed = windowed_chest()
    windowed.flags.writeable = False
    assert encode_thumbnail(windowed[::2, ::2], (1.4, 1.4))


@pytest.mark.parametrize(
    ("values", "spacing", "size"),
    [
        (np.zeros((4, 4, 4), np.float32), (1.0, 1.0), 160),
        (np.zeros((0, 4), np.float32), (1.0, 1.0), 160),
        (np.full((4, 4), np.nan, np.float32), (1.0, 1.0), 160),
        (np.zeros((4, 4), np.float32), (0.0, 1.0), 160),
        (np.zeros((4, 4), np.float32), (float("nan"), 1.0), 160),
        (np.zeros((4, 4), np.float32), (1.0, 1.0), 8),
        (np.zeros((4, 4), np.float32), (1.0, 1.0), 5000),
    ],
)
def test_thumbnail_refuses_nonsense(values, spacing, size):
    with pytest.raises(ValueError, match="expected"):
        encode_thumbnail(values, spacing, size)


def test_slice_pictures_show_window_and_outline_on_one_grid():
    pixels_hu = np.full((512, 400), -2000, np.float32)
    lung_mask = np.zeros((512, 400), bool)
    lung_mask[100:300, 100:200] = True
    pixels_hu[lung_mask] = -500
    pixels_hu[350:450, :] = 1000
    pictures = render_slice_pictures(pixels_hu, lung_mask, (0.8, 0.8), -500, 1500)
    assert pictures.windowed.shape == pictures.outline.shape == (320, 250)
    assert pictures.windowed.dtype == np.uint8
    assert pictures.outline.dtype == bool
    scale = 320 / 512
    assert pictures.windowed[round(200 * scale), round(150 * scale)] in (127, 128)
    assert pictures.windowed[round(400 * scale), 10] == 255
    assert pictures.windowed[5, 5] == 0
    rows, columns = np.nonzero(pictures.outline)
    assert np.abs([rows.min() - 100 * scale, rows.max() + 1 - 300 * scale]).max() <= 1
    assert np.abs([columns.min() - 100 * scale, columns.max() + 1 - 200 * scale]).max() <= 1
    assert not pictures.outline[round(200 * scale), round(150 * scale)]


def test_slice_pictures_refuse_a_mask_of_another_shape():
    with pytest.raises(ValueError, match="expected one shape"):
        render_slice_pictures(
            np.zeros((8, 8), np.float32), np.zeros((8, 9), bool), (1, 1), -500, 1500
        )


def test_inner_border_is_the_mask_less_its_erosion():
    ndimage = pytest.importorskip("scipy.ndimage")
    inside = np.random.default_rng(0).random((40, 30)) < 0.8
    expected = inside & ~ndimage.binary_erosion(inside)
    assert np.array_equal(inner_border(inside), expected)
