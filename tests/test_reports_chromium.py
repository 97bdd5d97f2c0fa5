"""The page in a real browser, offline: drawn, quiet on the console, outline switchable."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ildsdk.reports.html import write_html
from tests.result_factory import (
    make_mapped_study,
    make_odd_result,
    make_result,
    make_study,
    make_thumbnail,
)

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium to run the browser tests"
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--enable-logging=stderr",
    "--v=0",
    # No name resolves: a page that needs the network would show it.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
YELLOW = (255, 214, 64)


def browse(tmp_path: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    profile = tmp_path / "profile"
    try:
        return subprocess.run(
            [CHROMIUM or "", *FLAGS, f"--user-data-dir={profile}", *options, page.as_uri()],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            cwd=tmp_path,
        )
    finally:
        shutil.rmtree(profile, ignore_errors=True)


def console_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def take_picture(tmp_path: Path, page: Path, *options: str) -> np.ndarray:
    picture = tmp_path / "page.png"
    done = browse(tmp_path, page, f"--screenshot={picture}", "--window-size=1400,2600", *options)
    assert picture.exists(), done.stderr[-2000:]
    assert console_lines(done) == []
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count_near(pixels: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((np.abs(pixels - color).max(axis=-1) <= 24).sum())


def test_a_page_with_a_script_or_a_far_picture_would_be_noticed(tmp_path, page):
    text = page.read_text(encoding="utf-8")
    intruders = '<script>1</script><img src="https://example.org/x.png" alt="">'
    page.write_text(text.replace("<main", intruders + "<main"), encoding="utf-8")
    done = browse(tmp_path, page, f"--screenshot={tmp_path / 'x.png'}")
    assert len(console_lines(done)) == 2


@pytest.fixture
def page(tmp_path: Path) -> Path:
    target = tmp_path / "report.html"
    write_html(make_result(make_study(n_slices=3)), target, thumbnails=make_thumbnail)
    return target


@pytest.fixture(scope="module")
def light(tmp_path_factory) -> np.ndarray:
    """The page as drawn in the light color scheme, browsed once for several tests."""
    folder = tmp_path_factory.mktemp("light")
    target = folder / "report.html"
    write_html(make_result(make_study(n_slices=3)), target, thumbnails=make_thumbnail)
    return take_picture(folder, target)


def test_page_is_drawn_with_pictures_outline_and_banner(light):
    pixels = light
    assert pixels.shape == (2600, 1400, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
    assert count_near(pixels, (154, 52, 18)) > 20_000, "the synthetic banner is not drawn"
    viewer = count_near(pixels, (10, 13, 17))
    assert viewer > 100_000, "the dark image areas are not drawn"
    assert count_near(pixels, YELLOW) > 300, "the lung outline is not drawn"
    # The body of the drawn chest is a light grey: query and thumbnails together.
    grey = (np.ptp(pixels, axis=-1) <= 6) & (np.abs(pixels[..., 0] - 200) < 25)
    assert grey.sum() > 100_000, "the pictures are blank"


def test_outline_is_switched_off_without_script(tmp_path, page):
    text = page.read_text(encoding="utf-8")
    assert 'id="show-outline" checked' in text
    page.write_text(
        text.replace('id="show-outline" checked', 'id="show-outline"'), encoding="utf-8"
    )
    assert count_near(take_picture(tmp_path, page), YELLOW) < 60


def test_image_areas_stay_dark_and_the_page_follows_the_color_scheme(tmp_path, page, light):
    dark = take_picture(tmp_path, page, "--blink-settings=preferredColorScheme=0")
    assert light.mean() > 150
    assert dark.mean() < 90
    assert count_near(dark, (10, 13, 17)) > 100_000


def test_page_of_odd_results_is_quiet_and_does_not_run_sideways(tmp_path):
    target = tmp_path / "odd.html"
    write_html(make_odd_result(), target, thumbnails=make_thumbnail)
    # The window is narrower than the page would be if a long id pushed it apart.
    pixels = take_picture(tmp_path, target, "--window-size=700,3000")
    assert pixels.shape[1] == 700
    header = pixels[:40]
    assert np.abs(header[:, -2] - header[:, 2]).max() < 40


def test_page_prints_on_paper(tmp_path, page):
    target = tmp_path / "page.pdf"
    done = browse(tmp_path, page, f"--print-to-pdf={target}")
    assert console_lines(done) == []
    content = target.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 2


def test_maps_are_drawn_beside_each_other_and_not_where_nothing_is_similar(tmp_path):
    counts = []
    for best in (0.95, 0.55):
        target = tmp_path / "maps.html"
        study = make_mapped_study(n_slices=1, best=best)
        write_html(make_result(study), target, thumbnails=make_thumbnail)
        pixels = take_picture(tmp_path, target)
        red, _, blue = (pixels[..., channel] for channel in range(3))
        warm = (red > 150) & (red - blue > 80) & (np.abs(pixels - YELLOW).max(axis=-1) > 24)
        counts.append(int(warm[1300:].sum()))  # below the banner and the label marks
    assert counts[0] > 10_000
    assert counts[1] < counts[0] / 10
