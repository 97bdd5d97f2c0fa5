"""Pictures of example slices: what the classes look like, and where disease was put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.phantom.case import generate_case
from export.phantom.settings import LABELS, PhantomCase, PhantomSettings
from ildsdk.lung import apply_lung_window

_HEIGHTS = (0.75, 0.5, 0.25)
"""Places of the slices, as shares of a case's slices from the lowest."""


def draw_figures(
    out: Path, seed: int = 0, size: int = 512, difficulty: float = 0.5, n_columns: int = 4
) -> list[Path]:
    """Draw ``phantom-classes.png`` and ``phantom-lesions.png`` into a folder.

    The first shows ``n_columns`` patients of each class, one slice each, in the lung window
    (-500 / 1500 HU). The second shows one patient of each class at three heights, with the
    outline of what the generator changed.

    Returns
    -------
    list of Path
        The two files.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    settings = PhantomSettings(size=size, difficulty=difficulty)
    out.mkdir(parents=True, exist_ok=True)
    cases = {
        label: [generate_case(label, seed + number, settings) for number in range(n_columns)]
        for label in LABELS
    }
    style = {"facecolor": "black", "layout": "constrained"}
    figure, axes = plt.subplots(
        len(LABELS), n_columns, figsize=(2 * n_columns, 7.2), squeeze=False, **style
    )
    for row, label in zip(axes, LABELS, strict=True):
        for number, (axis, case) in enumerate(zip(row, cases[label], strict=True)):
            # Neighboring columns at different heights.
            share = _HEIGHTS[number % len(_HEIGHTS)]
            index = round(share * (len(case.position_mm) - 1))
            severity = f"severity {case.severity:.2f}" if case.severity else "no disease"
            _show(axis, case, index, f"{label} {case.seed}, {severity}")
    classes = out / "phantom-classes.png"
    _save(figure, classes)

    figure, axes = plt.subplots(len(LABELS) - 1, len(_HEIGHTS), figsize=(6, 5.6), **style)
    diseased = [label for label in LABELS if label != "Normal"]
    for row, label in zip(axes, diseased, strict=True):
        case = max(cases[label], key=lambda one: one.severity)
        for axis, share in zip(row, _HEIGHTS, strict=True):
            index = round(share * (len(case.position_mm) - 1))
            _show(axis, case, index, f"{label} {case.seed}, {case.position_mm[index]:.0f} mm")
            if case.lesion_mask[index].any():
                axis.contour(case.lesion_mask[index], levels=[0.5], colors="#ffb000",
                             linewidths=0.5)  # fmt: skip
    lesions = out / "phantom-lesions.png"
    _save(figure, lesions)
    return [classes, lesions]


def _show(axis: Any, case: PhantomCase, index: int, title: str) -> None:
    windowed = apply_lung_window(case.pixels_hu[index].astype(np.float32), -500.0, 1500.0)
    axis.imshow(windowed, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    axis.set_title(title, color="white", fontsize=6, pad=2)
    axis.set_axis_off()


def _save(figure: Any, path: Path) -> None:
    from io import BytesIO

    from matplotlib import pyplot as plt
    from PIL import Image

    stream = BytesIO()
    figure.savefig(stream, dpi=110, facecolor=figure.get_facecolor())
    plt.close(figure)
    # 48 colors are enough to look at, and a smaller file.
    picture = Image.open(stream).convert("RGB").quantize(48, method=Image.Quantize.MEDIANCUT)
    picture.save(path, optimize=True)
