"""Activation maps as colors: one scale from transparent and dark to bright.

Lightness rises evenly with the value (in OKLab, Ottosson 2020), so that the order of values is seen
also in grey, on paper, and with any color vision; the hue turns from violet over red to yellow,
which no tissue in a grey picture has.
"""

from __future__ import annotations

import functools
import io

import numpy as np
import numpy.typing as npt

from ildsdk.reports.images import image_data_uri

N_LEVELS = 256
OVERLAY_SIDE = 64
"""Pixels of a drawn map along each side; the browser enlarges it."""
_LIGHTNESS = (0.25, 0.96)
_CHROMA = (0.13, 0.17, 0.11)  # at the ends and in the middle, as much as sRGB has
_HUE_DEGREES = (295.0, 465.0)  # violet, red at 385, yellow at 465 - 360
_FULL_FROM = 0.45  # share of the scale from which on a color is as opaque as it gets
_OPACITY = 0.8  # tissue stays visible under the strongest place


@functools.cache
def color_table() -> npt.NDArray[np.uint8]:
    """RGBA of each level of the scale, uint8 ``(256, 4)``; level 0 is transparent."""
    share = np.linspace(0, 1, N_LEVELS)
    lightness = np.interp(share, (0, 1), _LIGHTNESS)
    chroma = np.interp(share, (0, 0.5, 1), _CHROMA)
    hue = np.radians(np.interp(share, (0, 1), _HUE_DEGREES))
    rgb = _srgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
    alpha = _OPACITY * np.minimum(1, share / _FULL_FROM)
    table = np.rint(255 * np.column_stack([rgb, alpha])).astype(np.uint8)
    table.setflags(write=False)
    return table


def css_stops(n_stops: int = 9) -> tuple[tuple[float, str, float], ...]:
    """Place (0 to 1), color and opacity of some levels, for the gradient of a color bar."""
    table = color_table()
    levels = np.linspace(0, N_LEVELS - 1, n_stops).round().astype(int)
    return tuple(
        (
            round(float(level) / (N_LEVELS - 1), 4),
            "#{:02x}{:02x}{:02x}".format(*table[level, :3]),
            round(float(table[level, 3]) / 255, 3),
        )
        for level in levels
    )


def overlay_data_uri(values: npt.NDArray[np.float32], top: float) -> str:
    """PNG data URI of the positive part of a map.

    Parameters
    ----------
    values : ndarray
        float32 ``(h, w)``, signed; interpolated between the middles of places, constant beyond
        those at the edge.
    top : float
        Value of the scale's last color, above 0.
    """
    from PIL import Image

    table = color_table()
    fine = _interpolated(np.maximum(values, 0), OVERLAY_SIDE)
    levels = np.rint(np.clip(fine / top, 0, 1) * (N_LEVELS - 1)).astype(np.uint8)
    picture = Image.fromarray(levels, mode="P")
    picture.putpalette(table[:, :3].tobytes())
    stream = io.BytesIO()
    picture.save(stream, format="PNG", transparency=table[:, 3].tobytes(), optimize=True)
    return image_data_uri(stream.getvalue()) or ""


def _interpolated(values: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float64]:
    """Bilinear interpolation of ``(h, w)`` to ``(side, side)`` over the same square."""
    by_row, by_column = (_weights(n, side) for n in values.shape)
    fine: npt.NDArray[np.float64] = by_row @ values.astype(np.float64) @ by_column.T
    return fine


def _weights(n: int, side: int) -> npt.NDArray[np.float64]:
    places = np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, n - 1)
    weights: npt.NDArray[np.float64] = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(n)))
    return weights


def _srgb(
    lightness: npt.NDArray[np.float64], a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """SRGB ``(n, 3)`` in [0, 1] of OKLab colors; what sRGB has not is cut off."""
    cone = np.array([[0.3963377774, 0.2158037573], [-0.1055613458, -0.0638541728],
                     [-0.0894841775, -1.2914855480]])  # fmt: skip
    lms = (lightness[:, np.newaxis] + np.column_stack([a, b]) @ cone.T) ** 3
    to_linear = np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                          [-1.2684380046, 2.6097574011, -0.3413193965],
                          [-0.0041960863, -0.7034186147, 1.7076147010]])  # fmt: skip
    linear = np.clip(lms @ to_linear.T, 0, 1)
    encoded: npt.NDArray[np.float64] = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return encoded
