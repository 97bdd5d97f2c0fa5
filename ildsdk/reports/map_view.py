"""What the page shows of activation maps: pairs of pictures on one scale, or why there is none."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping

import numpy as np

from ildsdk.explain import MissingMap, SliceBox, SliceMap
from ildsdk.records import Neighbor, SliceAnswer
from ildsdk.reports.map_colors import overlay_data_uri

MIN_POSITIVE = 0.01
"""A map whose positive values add up to less (of a cosine) is left empty: stretched over the whole
scale it would look like a finding."""
SIDE = 160
"""Pictures of a pair lie in a square of this many units."""

MISSING_TEXTS: Mapping[MissingMap, str] = {
    "no-maps-in-index": "The index keeps no maps, so only the query's are shown: build the index "
    "with a bundle that has maps (ildsdk index build --maps).",
    "other-explain-graph": "The index's maps were made with another explain.onnx than that of this "
    "bundle and do not compare, so only the query's are shown: build the index anew.",
    "not-kept": "the index keeps none of this slice",
    "damaged": "it is damaged in the index (ildsdk index verify)",
}
OF_THE_INDEX: tuple[MissingMap, ...] = ("no-maps-in-index", "other-explain-graph")
"""Reasons that hold for every neighbor, and are said once."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OverlayView:
    """A map as it lies over its picture.

    Attributes
    ----------
    overlay : str or None
        Data URI; None where the map is left empty.
    x, y, width, height : float
        In the units of :data:`SIDE`.
    together, apart : float
        Sums of its positive and of its negative values.
    strongest : str
        Where its largest value is, in words.
    n_rows, n_columns : int
    """

    overlay: str | None
    x: float
    y: float
    width: float
    height: float
    together: float
    apart: float
    strongest: str
    n_rows: int
    n_columns: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PairView:
    """A query slice and one neighbor, each with its map.

    Attributes
    ----------
    top : float or None
        Value of the last color, the same for both; None where both maps are empty.
    missing : str or None
        Why the neighbor has no map, as a key of :data:`MISSING_TEXTS`.
    """

    neighbor: Neighbor
    query_map: OverlayView
    neighbor_map: OverlayView | None
    top: float | None
    missing: MissingMap | None

    @property
    def missing_text(self) -> str | None:
        """The reason to say beside this pair; None where there is none, or it is said once."""
        if self.missing is None or self.missing in OF_THE_INDEX:
            return None
        return MISSING_TEXTS[self.missing]


def pair_views(
    answer: SliceAnswer, picture_size: tuple[int, int] | None, sizes: Mapping[str, tuple[int, int]]
) -> tuple[PairView, ...]:
    """What to show of a slice's maps.

    Maps of a slice that nothing in the index resembles are left empty: there is no similarity to
    explain.

    Parameters
    ----------
    picture_size : (int, int) or None
        Width and height of the query's picture.
    sizes : mapping
        Width and height of the neighbors' pictures by item id; square where they are not known.
    """
    by_rank = {neighbor.rank: neighbor for neighbor in answer.neighbors}
    views = []
    for pair in answer.maps:
        neighbor = by_rank[pair.rank]
        shown = [one for one in (pair.query, pair.neighbor) if one is not None and _is_shown(one)]
        top = max((float(one.values.max()) for one in shown), default=None)
        if answer.no_similar_case:
            top = None
        views.append(
            PairView(
                neighbor=neighbor,
                query_map=_overlay_view(pair.query, top, picture_size),
                neighbor_map=None
                if pair.neighbor is None
                else _overlay_view(pair.neighbor, top, sizes.get(neighbor.item_id)),
                top=top,
                missing=pair.missing,
            )
        )
    return tuple(views)


def encoded_size(encoded: bytes) -> tuple[int, int] | None:
    """Width and height of an encoded picture; None where it cannot be told."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            return picture.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _is_shown(one: SliceMap) -> bool:
    return float(np.maximum(one.values, 0).sum()) >= MIN_POSITIVE


def _overlay_view(one: SliceMap, top: float | None, size: tuple[int, int] | None) -> OverlayView:
    x, y, width, height = _placed(one.box, size)
    row, column = divmod(int(one.values.argmax()), one.values.shape[1])
    is_empty = top is None or not _is_shown(one)
    return OverlayView(
        overlay=None if is_empty or top is None else overlay_data_uri(one.values, top),
        x=x,
        y=y,
        width=width,
        height=height,
        together=float(np.maximum(one.values, 0).sum()),
        apart=float(np.minimum(one.values, 0).sum()),
        strongest=_in_words(one, row, column),
        n_rows=one.values.shape[0],
        n_columns=one.values.shape[1],
    )


def _placed(box: SliceBox, size: tuple[int, int] | None) -> tuple[float, float, float, float]:
    """A box on a picture that is fitted into the square, in the middle, as browsers do."""
    picture_width, picture_height = size or (1, 1)
    scale = SIDE / max(picture_width, picture_height)
    width, height = picture_width * scale, picture_height * scale
    return (
        round((SIDE - width) / 2 + box.left * width, 2),
        round((SIDE - height) / 2 + box.top * height, 2),
        round(box.width * width, 2),
        round(box.height * height, 2),
    )


def _in_words(one: SliceMap, row: int, column: int) -> str:
    n_rows, n_columns = one.values.shape
    down = one.box.top + one.box.height * (row + 0.5) / n_rows
    across = one.box.left + one.box.width * (column + 0.5) / n_columns
    return f"{100 * across:.0f} % from the left and {100 * down:.0f} % from the top of the picture"
