"""One color and one shape per diagnosis label, the same in each report of an index.

The colors follow Okabe and Ito's set for color-blind readers (2008), darkened for the light
page and lightened for the dark one until each has a contrast of 3 : 1 or more against its
surface (WCAG 2.2, 1.4.11; tested). Yellow is left out: it is the lung outline's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

SURFACE_LIGHT = "#ffffff"
SURFACE_DARK = "#151a20"
SURFACE_IMAGE = "#0a0d11"
OUTLINE_RGB = (255, 214, 64)

COLORS: tuple[tuple[str, str], ...] = (
    ("#0072b2", "#4aa8e8"),  # blue
    ("#c85200", "#f28e4b"),  # vermilion
    ("#a8508a", "#dd92bf"),  # reddish purple
    ("#00845f", "#35c49b"),  # bluish green
    ("#8a6500", "#e0ae3f"),  # ochre
    ("#2b7ea8", "#86cdf3"),  # sky blue
    ("#5b6470", "#aab4c0"),  # grey
)
"""Pairs of hex colors: on a light surface, on a dark one."""

SHAPES: tuple[str, ...] = (
    '<circle cx="8" cy="8" r="6"/>',
    '<path d="M8 1.5 14.8 14H1.2z"/>',
    '<path d="M8 .8 15.2 8 8 15.2.8 8z"/>',
    '<rect x="2.2" y="2.2" width="11.6" height="11.6" rx="1"/>',
    '<path d="M5.5 1.5h5v4h4v5h-4v4h-5v-4h-4v-5h4z"/>',
)
"""SVG bodies on a 16 x 16 grid; five shapes and seven colors give 35 distinct marks."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelMark:
    """How one label is drawn: indices into :data:`COLORS` and :data:`SHAPES`."""

    color: int
    shape: int


def mark_labels(labels: Iterable[str]) -> dict[str, LabelMark]:
    """Give each distinct label its mark, by alphabetical order.

    Parameters
    ----------
    labels : iterable of str
        Labels in any order, repeats allowed.

    Returns
    -------
    dict
        Label to mark; the first 35 labels differ from each other.
    """
    return {
        label: LabelMark(color=place % len(COLORS), shape=place % len(SHAPES))
        for place, label in enumerate(sorted(set(labels)))
    }
