"""Confusion matrices (Fig. 3), intervals and differences, precision@k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.reporting.published import MAIN_SYSTEM, PUBLISHED
from export.reporting.style import (
    INK,
    LINE,
    MUTED,
    SYSTEM_LOOKS,
    drawable,
    look,
    new_figure,
    png,
)

Systems = Mapping[str, Any]


def confusion_picture(systems: Systems, labels: Sequence[str], data: str) -> bytes:
    """Row-normalised confusion matrices of all six systems; a missing one is an empty frame."""
    with look():
        figure = new_figure(9.2, 6.4)
        figure.suptitle(
            f"Confusion of the top-1 slice's class, rows sum to 1 ({data})", fontsize=11
        )
        axes = figure.subplots(2, 3)
        names = [drawable(label, 12) for label in labels]
        order = list(PUBLISHED)
        image = None
        for place, (ax, (name, row)) in enumerate(zip(axes.flat, PUBLISHED.items(), strict=True)):
            ax.set_title(row.title, fontweight="bold" if name == MAIN_SYSTEM else "normal")
            ax.spines[:].set_visible(False)
            if name not in systems:
                ax.set(xticks=[], yticks=[])
                ax.text(0.5, 0.5, "no result", ha="center", va="center", color=MUTED)
                continue
            values = np.array(systems[name]["slice"]["confusion_rows_normalized"])
            image = ax.imshow(values, cmap="Blues", vmin=0, vmax=1)
            for (i, j), value in np.ndenumerate(values):
                ax.text(
                    j, i, f"{value:.2f}", ha="center", va="center",
                    color="white" if value > 0.55 else INK,
                    fontweight="bold" if i == j else "normal",
                )  # fmt: skip
            ticks = range(len(labels))
            # Names once a row and column: at the first and at the lowest matrix there is.
            is_first = not any(other in systems for other in order[place - place % 3 : place])
            is_lowest = place >= 3 or order[place + 3] not in systems
            ax.set_xticks(
                ticks, names if is_lowest else [], rotation=30, ha="right", rotation_mode="anchor"
            )
            ax.set_yticks(ticks, names if is_first else [])
            ax.tick_params(length=0)
            if is_first:
                ax.set_ylabel("true class")
            if is_lowest:
                ax.set_xlabel("class of the top-1 slice")
        if image is not None:
            bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=30, pad=0.02)
            bar.outline.set_visible(False)
            bar.set_label("share of the true class")
        return png(figure)


def interval_picture(
    systems: Systems, comparison: Mapping[str, Any], baseline: Mapping[str, Any], data: str
) -> bytes:
    """Macro F1 with 95 % intervals, and the differences to the main system."""
    with look():
        figure = new_figure(9.2, 3.6)
        figure.suptitle(f"Macro F1 of the top-1 slice's class ({data})", fontsize=11)
        left, right = figure.subplots(1, 2, sharey=True)
        names = list(PUBLISHED)
        for place, name in enumerate(names):
            if name not in systems:
                left.text(0.02, place, "no result", color=MUTED, va="center", fontsize=8,
                          transform=left.get_yaxis_transform())  # fmt: skip
                continue
            found = systems[name]["intervals_95"]["macro_f1"]
            _dot(left, place, found, ("low", "high"), name)
        random_f1 = 100 * baseline["random_neighbor"]["f1"]
        left.axvline(random_f1, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        left.annotate(
            "random\nneighbor", (random_f1, 0.98), xycoords=("data", "axes fraction"),
            xytext=(4, 0), textcoords="offset points", va="top", color=MUTED, fontsize=8,
        )  # fmt: skip
        left.set_xlabel("percent; bar: 95 % bootstrap interval over cases")
        left.set_yticks(range(len(names)), [PUBLISHED[name].title for name in names])
        for label, name in zip(left.get_yticklabels(), names, strict=True):
            label.set(color=INK, fontweight="bold" if name == MAIN_SYSTEM else "normal")
        left.set_ylim(len(names) - 0.5, -0.5)
        against = comparison.get("against", {})
        for place, name in enumerate(names):
            found = against.get(name, {}).get("figures", {}).get("macro_f1")
            if found is not None:
                _dot(right, place, found, ("low", "high"), name)
                ends = [100 * found["adjusted_low"], 100 * found["adjusted_high"]]
                right.plot(ends, [place, place], color=SYSTEM_LOOKS[name]["color"], linewidth=1)
        right.text(
            0.5, names.index(MAIN_SYSTEM), "compared with each other system" if against
            else "no comparison: a result is missing", color=MUTED, ha="center", va="center",
            fontsize=8, transform=right.get_yaxis_transform(), backgroundcolor="white",
        )  # fmt: skip
        right.axvline(0, color=INK, linewidth=1)
        right.set_xlabel(f"{PUBLISHED[MAIN_SYSTEM].title} minus this system, points;\n"
                         "thick: 95 %, thin: adjusted for the number of comparisons")  # fmt: skip
        right.tick_params(axis="y", length=0)
        for ax in (left, right):
            ax.grid(axis="x", color=LINE, linewidth=0.7)
            ax.set_axisbelow(True)
        return png(figure)


def _dot(ax: Any, place: int, found: Mapping[str, float], ends: tuple[str, str], name: str) -> None:
    style = SYSTEM_LOOKS[name]
    low, high = (100 * found[key] for key in ends)
    ax.plot([low, high], [place, place], color=style["color"], linewidth=3.2, solid_capstyle="butt")
    ax.plot(
        [100 * found["value"]], [place], marker=style["marker"], markersize=7.5,
        color=style["color"], markeredgecolor="white", linestyle="none",
    )  # fmt: skip


def precision_picture(systems: Systems, baseline: Mapping[str, Any], data: str) -> bytes:
    """precision@k of the systems for k up to 50."""
    with look():
        figure = new_figure(7.2, 4.2)
        ax = figure.subplots()
        ax.set_title(f"Share of the first k slices with the query's class ({data})", fontsize=11)
        for name in PUBLISHED:
            if name not in systems:
                continue
            curve = 100 * np.array(systems[name]["slice"]["precision_curve"])
            style = SYSTEM_LOOKS[name]
            ks = np.arange(1, curve.size + 1)
            ax.plot(
                ks, curve, **style, linewidth=2.2 if name == MAIN_SYSTEM else 1.5, markersize=5,
                markevery=[k - 1 for k in (1, 5, 10, 20, 30, 40, 50) if k <= curve.size],
                label=PUBLISHED[name].title,
            )  # fmt: skip
        chance = 100 * baseline["random_neighbor"]["accuracy"]
        ax.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), label="random neighbor")
        ax.set(xlabel="k", ylabel="precision@k, percent", xlim=(0.5, None))
        ax.set_ylim(max(0, 5 * (chance // 5) - 5), 101)
        ax.grid(color=LINE, linewidth=0.7)
        ax.set_axisbelow(True)
        # The order of the curves at their right end is the order of the legend.
        handles, texts = ax.get_legend_handles_labels()
        ends = [-float(handle.get_ydata()[-1]) for handle in handles]
        order = np.argsort(ends, kind="stable")
        ax.legend(
            [handles[i] for i in order], [texts[i] for i in order],
            loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=3.2,
        )  # fmt: skip
        return png(figure)
