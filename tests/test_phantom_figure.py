"""The pictures of the phantom's documentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="the figures need matplotlib")

from export.phantom.figure import draw_figures


def test_figures_show_slices_and_the_outline_of_lesions(tmp_path: Path) -> None:
    classes, lesions = draw_figures(tmp_path, seed=3002, size=64, n_columns=1)
    for path, has_color in ((classes, False), (lesions, True)):
        picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert picture.std() > 30
        is_colored = (np.ptp(picture, axis=2) > 60).mean()
        assert (is_colored > 0.002) == has_color


def test_committed_figures_are_linked_and_small(repo: Path) -> None:
    text = (repo / "docs" / "phantom.md").read_text(encoding="utf-8")
    for name in ("phantom-classes.png", "phantom-lesions.png"):
        assert f"(pictures/{name})" in text
        assert (repo / "docs" / "pictures" / name).stat().st_size < 600_000
