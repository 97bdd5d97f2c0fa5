"""One look for all pictures: restrained, readable in print and without color."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from export.reporting.document import shown
from export.reporting.published import PUBLISHED
from ildsdk.reports.palette import COLORS

FONT = "DejaVu Sans"  # comes with matplotlib, so pictures look alike everywhere
INK, MUTED, LINE = "#17212b", "#53606d", "#d9dfe5"
CLASS_COLORS = tuple(light for light, _ in COLORS)
CLASS_MARKERS = ("o", "^", "D", "s", "P", "X", "v")
# Systems differ in color, marker and line; the one the report is about is black and thick.
SYSTEM_LOOKS: dict[str, dict[str, Any]] = {
    name: {"color": color, "marker": marker, "linestyle": dashes}
    for name, color, marker, dashes in zip(
        PUBLISHED,
        ("#8a6500", "#c85200", "#a8508a", "#00845f", "#0072b2", INK),
        ("v", "^", "s", "P", "D", "o"),
        ((0, (1, 1.5)), (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2, 2)), (0, (8, 2)), "-"),
        strict=True,
    )
}
_SETTINGS = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a case id may hold a dollar sign
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
_DPI = 150


@contextmanager
def look() -> Iterator[None]:
    """Draw with these settings, leaving matplotlib's own as they were."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, drawn by Agg whatever the user's backend is."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The picture's file; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def drawable(text: object, limit: int = 28) -> str:
    """Text from outside with what the font cannot draw as a question mark, cut to a length."""
    known = font_manager.get_font(font_manager.findfont(FONT)).get_charmap()
    clean = "".join(c if ord(c) in known else "?" for c in shown(text))
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
