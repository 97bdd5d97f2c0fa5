"""The recall-against-latency figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.search_tables import OUR_EXACT, OUR_FAST, PAPER, Cell, PointDict

KINDS = ("clustered", "uniform")
LEAST_MISS = 2e-4  # a recall above 0.9998 is drawn as that

# color, marker, line width; ours stand out, of the peers one hue per library or method
STYLES: Mapping[str, tuple[str, str, float]] = {
    OUR_EXACT: ("#c1121f", "*", 2.4),
    OUR_FAST: ("#e85d04", "o", 2.4),
    "ildsdk float32 scan": ("#7f1d1d", "*", 1.2),
    PAPER: ("#111111", "X", 1.2),
    "ildsdk hyperplane tables + probes": ("#8d99ae", "x", 1.2),
    "hnswlib": ("#1d4e89", "s", 1.2),
    "faiss IndexHNSWFlat": ("#00798c", "^", 1.2),
    "usearch": ("#66a3d2", "v", 1.2),
    "faiss IndexIVFFlat": ("#3a7d44", "D", 1.2),
    "faiss IndexFlatIP": ("#555555", "P", 1.2),
    "faiss IndexLSH 4d bits + refine": ("#9d4edd", "<", 1.0),
    "faiss IndexRaBitQ + refine": ("#c77dff", ">", 1.0),
    "faiss IndexRaBitQFastScan + refine": ("#7b2cbf", "h", 1.0),
    "faiss SQ8 + refine": ("#b08968", "p", 1.0),
}


def _miss(recall: float) -> float:
    return max(1 - recall, LEAST_MISS)


def draw(cells: Sequence[Cell], path: Path, *, dimension: int = 128) -> bool:
    """Draw the sets of one dimension; answers whether there was anything to draw.

    Up is slower, right is closer to the exact answer; both axes are logarithmic, the
    horizontal one in the share of neighbors missed.
    """
    kinds = [k for k in KINDS if any(_fits(cell, k, dimension) for cell in cells)]
    sizes = sorted({c["n"] for c in cells if any(_fits(c, k, dimension) for k in kinds)})
    if not kinds:
        return False
    figure, axes = plt.subplots(
        len(kinds),
        len(sizes),
        figsize=(max(4.3 * len(sizes) + 0.4, 7.5), 3.7 * len(kinds) + 1.1),
        sharex=True,
        sharey="col",
        squeeze=False,
        layout="constrained",
    )
    for row, kind in enumerate(kinds):
        for column, n in enumerate(sizes):
            panel = axes[row][column]
            panel.set_title(f"{kind}, {n:,} vectors", fontsize=10)
            for cell in cells:
                if _fits(cell, kind, dimension) and cell["n"] == n:
                    _panel(panel, cell)
            if row == len(kinds) - 1:
                panel.set_xlabel("recall@10 (held-out queries)")
            if column == 0:
                panel.set_ylabel("one query, median, microseconds")
    seen = {}
    for panel in axes.flat:
        handles, names = panel.get_legend_handles_labels()
        seen.update(zip(names, handles, strict=True))
    order = [name for name in STYLES if name in seen]
    figure.legend(
        [seen[name] for name in order],
        order,
        loc="outside lower center",
        ncols=3 if len(sizes) < 3 else 5,
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(f"Search by one thread, d = {dimension}: lower right is better", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
    return True


def _front(points: Sequence[PointDict]) -> list[tuple[float, float]]:
    """Misses and times of the points that no other point of the contender beats in both."""
    front: list[tuple[float, float]] = []
    for found in sorted(points, key=lambda p: (p["single_us"], -p["recall"])):
        if not front or _miss(found["recall"]) < front[-1][0]:
            front.append((_miss(found["recall"]), found["single_us"]))
    return front


def _fits(cell: Cell, kind: str, dimension: int) -> bool:
    return bool(cell["kind"] == kind and cell["dimension"] == dimension)


def _panel(panel: Axes, cell: Cell) -> None:
    for name, (color, marker, width) in STYLES.items():
        points = _front([p for p in cell["points"] if p["name"] == name])
        if not points:
            continue
        misses, times = zip(*points, strict=True)
        size = 13 if marker == "*" else 7 if width > 2 else 5
        front = 3 if width > 2 else 2
        panel.plot(
            misses, times, color=color, marker=marker, lw=width, ms=size, label=name, zorder=front
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(0.5, LEAST_MISS * 0.75)
    panel.set_xticks([0.5, 0.1, 0.01, 0.001, LEAST_MISS])
    panel.xaxis.set_major_formatter(
        FuncFormatter(lambda miss, _: "1" if miss <= LEAST_MISS else f"{1 - miss:g}")
    )
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.grid(visible=True, which="major", color="#dddddd", lw=0.6)
    panel.set_axisbelow(True)
