"""Gallery of queries and neighbors with their maps as one PNG, with color bars."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from export.explain.scoring import on_slice
from ildsdk.reports.map_colors import color_table
from ildsdk.reports.map_view import MIN_POSITIVE

_SIDE, _GAP, _BAR, _TEXT = 240, 8, 90, 40
_OUTLINE = (64, 224, 255)  # a color that neither tissue nor the scale has
_INK, _PAPER = (20, 20, 20), (255, 255, 255)

Picture = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GalleryRow:
    """A query slice and a neighbor, as the network sees them.

    Attributes
    ----------
    image, neighbor_image : ndarray
        ``(S, S)`` model inputs in [0, 1].
    lesion_mask : ndarray
        bool ``(n_rows, n_columns)`` of the query's slice.
    box : ildsdk.explain.SliceBox
        Where the query's model input lies on it.
    values, neighbor_values : ndarray
        Signed maps ``(h, w)``.
    caption : sequence of str
        Lines under the row.
    """

    image: npt.NDArray[np.float32]
    lesion_mask: npt.NDArray[np.bool_]
    box: Any
    values: npt.NDArray[np.float32]
    neighbor_image: npt.NDArray[np.float32]
    neighbor_values: npt.NDArray[np.float32]
    caption: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True)
class _WholePicture:
    """The box of a map on its own model input."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0


def draw_gallery(path: Path, rows: Sequence[GalleryRow]) -> None:
    """Write one row of pictures per query: query, its map, neighbor, its map, color bar.

    Both maps of a row share its scale, which ends at the larger maximum. A map whose positive
    values add up to less than ``ildsdk.reports.map_view.MIN_POSITIVE`` is left empty and said to
    be: stretched over the whole scale it would look like a finding.
    """
    width = 4 * (_SIDE + _GAP) + _GAP + _BAR
    height = max(1, len(rows)) * (_SIDE + _TEXT + _GAP) + _GAP + 20
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    titles = ("query, lesion outlined", "its map", "neighbor", "its map")
    for number, title in enumerate(titles):
        draw.text((_GAP + number * (_SIDE + _GAP), 4), f"PHANTOM {title}", fill=_INK)
    for number, row in enumerate(rows):
        top = 20 + number * (_SIDE + _TEXT + _GAP)
        _draw_row(sheet, draw, row, top)
    sheet.save(path, optimize=True)


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: GalleryRow, top: int) -> None:
    maps = (row.values, row.neighbor_values)
    shown = [np.maximum(one, 0).sum() >= MIN_POSITIVE for one in maps]
    largest = max((float(one.max()) for one, is_shown in zip(maps, shown, strict=True) if is_shown),
                  default=0.0)  # fmt: skip
    outline = _outline(row)
    pictures = []
    for image, one, is_shown, lines in (
        (row.image, maps[0], shown[0], outline),
        (row.neighbor_image, maps[1], shown[1], None),
    ):
        grey = _grey(image)
        overlaid = _overlaid(grey, one, largest) if is_shown else grey
        pictures += [_outlined(grey, lines), _outlined(overlaid, lines)]
    for number, picture in enumerate(pictures):
        place = (_GAP + number * (_SIDE + _GAP), top)
        sheet.paste(Image.fromarray(np.rint(255 * picture).astype(np.uint8)), place)
        if number % 2 and not shown[number // 2]:
            draw.text((place[0] + 6, top + 6), "left empty", fill=_PAPER)
    left = _GAP + 4 * (_SIDE + _GAP)
    if largest > 0:
        _draw_bar(sheet, draw, left, top, largest)
    for number, line in enumerate(row.caption):
        draw.text((_GAP, top + _SIDE + 2 + 12 * number), line, fill=_INK)


def _draw_bar(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, largest: float
) -> None:
    """Color bar over mid grey, as the colors are seen over tissue."""
    table = color_table()
    levels = np.linspace(255, 0, _SIDE).round().astype(int)
    alpha = table[levels, 3:] / 255
    colors = alpha * table[levels, :3] + (1 - alpha) * 90
    bar = np.repeat(np.rint(colors).astype(np.uint8)[:, np.newaxis], 16, axis=1)
    sheet.paste(Image.fromarray(bar), (left, top))
    for share in (1.0, 0.5, 0.0):
        y = top + (1 - share) * (_SIDE - 10)
        draw.text((left + 20, y), f"{share * largest:.4f}", fill=_INK)


def _grey(image: npt.NDArray[np.float32]) -> Picture:
    picture = Image.fromarray(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8))
    grey = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)) / 255
    return np.repeat(grey[..., np.newaxis], 3, axis=2)


def _overlaid(grey: Picture, values: npt.NDArray[np.float32], largest: float) -> Picture:
    heat = on_slice(values, _WholePicture(), (_SIDE, _SIDE))
    levels = np.rint(255 * np.clip(heat / largest, 0, 1)).astype(int)
    colors = color_table()[levels] / 255
    return grey * (1 - colors[..., 3:]) + colors[..., :3] * colors[..., 3:]


def _outline(row: GalleryRow) -> npt.NDArray[np.bool_]:
    """Inner edge of the lesion on the picture's grid."""
    n_rows, n_columns = row.lesion_mask.shape
    shares = (np.arange(_SIDE) + 0.5) / _SIDE
    rows = np.floor((row.box.top + shares * row.box.height) * n_rows).astype(int)
    columns = np.floor((row.box.left + shares * row.box.width) * n_columns).astype(int)
    inside = ((rows >= 0) & (rows < n_rows))[:, np.newaxis] & (columns >= 0) & (columns < n_columns)
    lesion = (
        inside
        & row.lesion_mask[
            np.clip(rows, 0, n_rows - 1)[:, np.newaxis], np.clip(columns, 0, n_columns - 1)
        ]
    )
    return lesion & ~ndimage.binary_erosion(lesion)


def _outlined(picture: Picture, outline: npt.NDArray[np.bool_] | None) -> Picture:
    if outline is None:
        return picture
    return np.where(outline[..., np.newaxis], np.array(_OUTLINE) / 255, picture)
