"""Test slices of one fold in two dimensions (t-SNE), a panel a system."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from export.reporting.published import MAIN_SYSTEM, PUBLISHED
from export.reporting.reading import Experiment
from export.reporting.style import (
    CLASS_COLORS,
    CLASS_MARKERS,
    INK,
    MUTED,
    drawable,
    look,
    new_figure,
    png,
)

_MIN_SLICES = 5
_PERPLEXITY = 30.0


def places(vectors: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float64]:
    """t-SNE of unit vectors, ``(n, d) -> (n, 2)``; the same seed gives the same map.

    References
    ----------
    van der Maaten and Hinton 2008, "Visualizing Data using t-SNE".
    """
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    # A random start: PCA's start fails where all vectors are equal. One thread: for so few points
    # threads cost more than they give, and many times more where cores are shared.
    with threadpool_limits(1):
        found = TSNE(
            perplexity=perplexity, init="random", learning_rate="auto", random_state=seed
        ).fit_transform(vectors)
    return np.asarray(found, dtype=np.float64)


def embedding_picture(experiment: Experiment, fold: int, seed: int, data: str) -> bytes | None:
    """The map of a fold's test slices; None where they are too few for one."""
    slices = experiment.slices
    rows = slices.rows_of(experiment.folds[fold])
    if rows.size < _MIN_SLICES:
        return None
    classes = slices.class_indices()[rows]
    cases = np.array([slices.case_ids[row] for row in rows])
    with look():
        figure = new_figure(9.2, 6.6)
        figure.suptitle(f"Test slices of fold {fold} by t-SNE ({data})", fontsize=11)
        for ax, (name, row) in zip(figure.subplots(2, 3).flat, PUBLISHED.items(), strict=True):
            ax.set_title(row.title, fontweight="bold" if name == MAIN_SYSTEM else "normal")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if (name, fold) not in experiment.results:
                ax.text(0.5, 0.5, "no result", ha="center", va="center", color=MUTED)
                continue
            points = places(experiment.vectors(name, fold)[rows], seed)
            for case in np.unique(cases):
                of_case = points[cases == case]
                center = np.median(of_case, axis=0)
                color = CLASS_COLORS[int(classes[cases == case][0]) % len(CLASS_COLORS)]
                spokes = np.stack([np.broadcast_to(center, of_case.shape), of_case])
                ax.plot(spokes[..., 0], spokes[..., 1], color=color, linewidth=0.5, alpha=0.35)
            for number in np.unique(classes):
                of_class = points[classes == number]
                ax.scatter(
                    of_class[:, 0], of_class[:, 1], s=13, linewidths=0.3, edgecolors="white",
                    color=CLASS_COLORS[number % len(CLASS_COLORS)],
                    marker=CLASS_MARKERS[number % len(CLASS_MARKERS)],
                )  # fmt: skip
            ax.margins(0.06)
        keys = [
            Line2D([], [], linestyle="none", markersize=6, color=CLASS_COLORS[n % 7],
                   marker=CLASS_MARKERS[n % 7], label=drawable(label))
            for n, label in enumerate(slices.label_names)
        ]  # fmt: skip
        keys.append(Line2D([], [], color=MUTED, linewidth=0.8, label="slice to its case's middle"))
        figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), labelcolor=INK)
        return png(figure)
