"""Queries picked by a rule, with the neighbors they got: right and wrong ones alike."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from export.reporting.outcomes import SystemOutcome
from export.reporting.published import PUBLISHED
from export.reporting.reading import Experiment
from export.reporting.style import INK, drawable, look, new_figure, png

N_PER_CLASS = 2
N_SHOWN = 5
RULE = (
    f"{N_PER_CLASS} queries per class: cases drawn at random among the class's test cases, then "
    "one slice of each at random; the seed is the report's, and nothing was exchanged afterward"
)
_RIGHT, _WRONG = "#0b6e4f", "#b3261e"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GalleryRow:
    """A query slice with its first neighbors; rows are those of the slice set."""

    fold: int
    query: int
    neighbors: tuple[int, ...]
    scores: tuple[float, ...]


def pick(experiment: Experiment, outcome: SystemOutcome, seed: int) -> list[GalleryRow]:
    """Queries by :data:`RULE`, in the order of the classes."""
    rng = np.random.default_rng(seed)
    slices = experiment.slices
    fold_of = {case: fold for fold in outcome.folds for case in fold.cases}
    picked = []
    for number in range(outcome.n_classes):
        members = np.flatnonzero(outcome.class_of_case == number)
        for place in rng.permutation(members)[:N_PER_CLASS]:
            case = outcome.cases[place]
            fold = fold_of[case]
            query = int(rng.choice(slices.rows_of([case])))
            row = int(np.flatnonzero(fold.query_rows == query)[0])
            picked.append(
                GalleryRow(
                    fold=fold.fold,
                    query=query,
                    neighbors=tuple(fold.top_rows[row, :N_SHOWN].tolist()),
                    scores=tuple(fold.top_scores[row, :N_SHOWN].tolist()),
                )
            )
    return picked


def gallery_picture(
    experiment: Experiment, rows: list[GalleryRow], system: str, data: str
) -> bytes:
    """Query at the left, neighbors by rank to the right of it; images are the model's inputs."""
    slices = experiment.slices
    with look():
        figure = new_figure(9.2, 0.7 + 2.02 * len(rows))
        figure.suptitle(
            f"Queries and their neighbors, {PUBLISHED[system].title} ({data})", fontsize=11
        )
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.07, wspace=0.02, hspace=0.03)
        axes = figure.subplots(len(rows), N_SHOWN + 1, squeeze=False)
        for row, line in zip(rows, axes, strict=True):
            label = slices.labels[row.query]
            _image(line[0], experiment, row.query)
            line[0].set_title(f"query, fold {row.fold}", fontsize=8, fontweight="bold")
            _frame(line[0], INK, "-", 1.2)
            for ax in line[1:]:
                ax.axis("off")
            for rank, (neighbor, score) in enumerate(
                zip(row.neighbors, row.scores, strict=True), start=1
            ):
                ax = line[rank]
                ax.axis("on")
                is_right = slices.labels[neighbor] == label
                color = _RIGHT if is_right else _WRONG
                _image(ax, experiment, neighbor)
                _frame(ax, color, "-" if is_right else (0, (2.5, 1.5)), 2.4)
                word = "✓ right" if is_right else "✗ wrong"
                ax.set_title(
                    f"{rank}   {score:.3f}   {word}", fontsize=8, color=color, fontweight="bold"
                )
        return png(figure)


def _image(ax: Axes, experiment: Experiment, row: int) -> None:
    slices = experiment.slices
    ax.imshow(np.asarray(slices.images[row, 0], np.float32), cmap="gray", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(
        f"{drawable(slices.labels[row], 16)}\n{drawable(slices.case_ids[row], 20)}",
        fontsize=7.5, color=INK, labelpad=2,
    )  # fmt: skip


def _frame(ax: Axes, color: str, linestyle: Any, width: float) -> None:
    for spine in ax.spines.values():
        spine.set(visible=True, color=color, linestyle=linestyle, linewidth=width)
