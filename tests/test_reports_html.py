"""The HTML page: structure, escaping, self-containment, atomic writing."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ildsdk.errors import ConfigError
from ildsdk.records import SlicePictures
from ildsdk.reports import palette
from ildsdk.reports.html import render_html, write_html
from ildsdk.reports.images import MAX_SIDE, image_data_uri, outline_data_uri, picture_data_uri
from tests.result_factory import (
    LABELS,
    NOTICE,
    make_neighbor,
    make_odd_result,
    make_result,
    make_study,
    make_thumbnail,
)

VOID = {"meta", "input", "img", "br", "link", "hr", "base", "source", "area", "embed", "col"}
WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


class PageParser(HTMLParser):
    """Tags with their attributes, visible text, and any tag closed out of order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.misnested.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def having(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attrs for name, attrs in self.tags if name == tag)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def parse(result, thumbnails=make_thumbnail) -> PageParser:
    return PageParser(render_html(result, thumbnails=thumbnails, generated_at=WHEN))


@pytest.fixture(scope="module")
def usual() -> PageParser:
    return parse(make_result(make_study(n_slices=3)))


@pytest.fixture(scope="module")
def odd() -> PageParser:
    return parse(make_odd_result())


@pytest.mark.parametrize("name", ["usual", "odd"])
def test_page_is_well_formed_and_its_links_lead_somewhere(name, request):
    page = request.getfixturevalue(name)
    assert page.misnested == []
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    references = [attrs["href"] for tag, attrs in page.tags if tag in ("a", "use")]
    assert references
    assert {reference.removeprefix("#") for reference in references} <= set(ids)
    labelled = {attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs}
    assert labelled <= set(ids)


@pytest.mark.parametrize("name", ["usual", "odd"])
def test_page_needs_no_network_and_no_script(name, request):
    page = request.getfixturevalue(name)
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    for _, attrs in page.tags:
        for key in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert (attrs.get(key) or "#").startswith(("#", "data:image/"))
        assert not any(key.startswith("on") for key in attrs)
    policy = next(attrs for attrs in page.having("meta") if "http-equiv" in attrs)
    assert "default-src 'none'" in (policy["content"] or "")


def test_style_sheet_references_nothing_outside():
    page = render_html(make_result(make_study(n_slices=1)), thumbnails=make_thumbnail)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|https?:", style.group(1))


@pytest.mark.parametrize("is_synthetic", [True, False])
def test_banner_is_always_there(is_synthetic):
    empty = make_result(is_synthetic=is_synthetic, studies=())
    for result in (empty, make_result(make_study(n_slices=1), is_synthetic=is_synthetic)):
        words = parse(result).words
        assert NOTICE in words
        assert "Not a medical device. For research." in words
        assert (
            "SYNTHETIC (phantom) database: figures and cases are not patients." in words
        ) is is_synthetic


def test_page_shows_what_the_result_holds(usual):
    result = make_result(make_study(n_slices=3))
    study = result.studies[0]
    words = usual.words
    assert "Label of the most similar diagnosed case" in words
    assert "diagnosis is" not in words.lower()
    for case in study.cases:
        assert case.case_id in words
        assert f"{case.score:.3f}" in words
    for answer in study.slices:
        assert answer.source in words
        assert f"{answer.neighbors[-1].score:.3f}" in words
    for series in study.series:
        assert series.reason in words
        assert series.series_instance_uid in words
    made = result.provenance
    for text in (made.bundle_name, made.bundle_hash, made.index_name, made.index_hash):
        assert text in words
    assert made.provider in words
    assert "2 threads" in words
    assert "2026-01-02 03:04:05 UTC" in words
    assert "within 10 mm of a slice taken and 119 more" in words
    assert "not-dicom" in words


def test_label_shares_and_prevalence_stand_side_by_side_on_one_scale():
    study = make_study(n_slices=3)
    page = render_html(make_result(study), thumbnails=make_thumbnail)
    rows = page.split('<table class="shares">')[1].split("</table>")[0].split("<tr>")[2:]
    assert len(rows) == len(study.labels)
    for row, entry in zip(rows, study.labels, strict=True):
        widths = [float(width) for width in re.findall(r"width:([\d.]+)%", row)]
        assert widths == pytest.approx([100 * entry.share, 100 * entry.prevalence], abs=0.051)


def test_every_image_has_a_text_and_every_table_headers(odd):
    assert all(attrs.get("alt") for attrs in odd.having("img"))
    drawings = list(odd.having("svg"))
    assert all("aria-label" in attrs or attrs.get("aria-hidden") == "true" for attrs in drawings)
    assert all(attrs.get("scope") in ("col", "row") for attrs in odd.having("th"))


def test_no_similar_case_and_missing_parts_are_said(odd):
    words = odd.words
    assert "No similar case" in words
    assert "No answered slice reached the index's threshold, cosine 0.710" in words
    assert "No slice of this study could be answered" in words
    assert "nothing left to compare with" in words
    assert "position unknown" in words
    assert "picture not kept" in words
    assert "frame 12" in words
    assert "14 indexed slices of the query's own patient or study left out" in words
    assert "\N{MINUS SIGN}0.040" in words


def test_a_label_is_a_mark_and_a_word_never_color_alone(usual):
    marks = palette.mark_labels(LABELS)
    assert len({(mark.color, mark.shape) for mark in marks.values()}) == len(LABELS)
    assert len({mark.shape for mark in marks.values()}) == len(LABELS)
    assert all(label in usual.words for label in LABELS)


def test_thirty_five_labels_get_thirty_five_marks_in_any_order():
    names = [f"label-{number:02d}" for number in range(35)]
    marks = palette.mark_labels(names)
    assert len({(mark.color, mark.shape) for mark in marks.values()}) == 35
    assert palette.mark_labels(reversed(names)) == marks


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_label_colors_stand_out_on_their_surfaces():
    for light, dark in palette.COLORS:
        assert contrast(light, palette.SURFACE_LIGHT) >= 3
        assert contrast(dark, palette.SURFACE_DARK) >= 3
        assert contrast(dark, palette.SURFACE_IMAGE) >= 3


def css_variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def test_text_colors_are_readable_in_light_dark_and_viewer():
    source = Path(palette.__file__).parent / "templates" / "report.css"
    style = source.read_text(encoding="utf-8")
    light = css_variables(style.split("@media screen")[0])
    dark = light | css_variables(style.split("@media screen")[1].split(".viewer")[0])
    viewer = dark | css_variables(style.split(".viewer {")[1].split("}")[0])
    themes = (
        (light, palette.SURFACE_LIGHT),
        (dark, palette.SURFACE_DARK),
        (viewer, palette.SURFACE_IMAGE),
    )
    for colors, surface in themes:
        for name in ("ink", "muted", "accent"):
            assert contrast(colors[name], surface) >= 4.5, (name, surface)
    for colors in (light, dark):
        assert contrast(colors["warn-ink"], colors["warn-ground"]) >= 4.5
        assert contrast(colors["loud-ink"], colors["loud-ground"]) >= 4.5
        assert contrast(colors["muted"], colors["ground"]) >= 4.5


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"


def test_everything_users_name_is_escaped():
    study = make_study(n_slices=2)
    neighbor = make_neighbor(
        1,
        0.9,
        5,
        case_id=HOSTILE,
        label=HOSTILE,
        site=HOSTILE,
        verification=HOSTILE,
        item_id=HOSTILE,
    )
    slices = tuple(
        dataclasses.replace(
            answer, neighbors=(neighbor,), source=HOSTILE, timings_ms={HOSTILE: 1.0}
        )
        for answer in study.slices
    )
    hostile = dataclasses.replace(
        study,
        study_instance_uid=HOSTILE,
        suggested_label=HOSTILE,
        slices=slices,
        cases=(dataclasses.replace(study.cases[0], case_id=HOSTILE, label=HOSTILE, site=HOSTILE),),
        labels=(dataclasses.replace(study.labels[0], label=HOSTILE),),
        series=(dataclasses.replace(study.series[0], kernel=HOSTILE, reason=HOSTILE),),
        skipped=(
            dataclasses.replace(study.skipped[0], source=HOSTILE, reason=HOSTILE, detail=HOSTILE),
        ),
    )
    result = make_result(hostile)
    named = {
        field.name: HOSTILE
        for field in dataclasses.fields(result.provenance)
        if isinstance(getattr(result.provenance, field.name), str)
    }
    result = dataclasses.replace(result, provenance=dataclasses.replace(result.provenance, **named))
    plain = parse(make_result(dataclasses.replace(study, slices=study.slices)))
    page = parse(result)
    assert page.misnested == []
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert all(not key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert all((attrs.get("src") or "data:").startswith("data:") for attrs in page.having("img"))
    assert page.words.count(HOSTILE) >= 15


def test_same_input_gives_the_same_page():
    result = make_result(make_study(n_slices=2))
    first = render_html(result, thumbnails=make_thumbnail, generated_at=WHEN)
    assert render_html(result, thumbnails=make_thumbnail, generated_at=WHEN) == first


def test_each_thumbnail_is_asked_for_and_stored_once():
    study = make_study(n_slices=1)
    twins = dataclasses.replace(study, slices=study.slices * 5)
    asked: list[str] = []

    def thumbnails(item_id: str) -> bytes | None:
        asked.append(item_id)
        return make_thumbnail(item_id)

    page = parse(make_result(twins), thumbnails)
    assert len(asked) == len(set(asked))
    assert len(list(page.having("image"))) <= len(asked)


def test_bytes_that_are_no_picture_are_not_shown():
    page = parse(make_result(make_study(n_slices=1)), lambda item_id: b"<svg onload=alert(1)>")
    assert list(page.having("image")) == []
    assert "no thumbnail in the index" in page.words
    assert image_data_uri(b"RIFF\0\0\0\0WEBPVP8 ") is not None
    assert image_data_uri(b"") is None


def test_many_neighbors_and_skipped_items_are_cut_and_counted():
    study = make_study(n_slices=1)
    many = tuple(make_neighbor(rank, 0.9 - rank / 1000, rank) for rank in range(1, 151))
    answer = dataclasses.replace(study.slices[0], neighbors=many)
    page = parse(make_result(dataclasses.replace(study, slices=(answer,))))
    figures = [attrs for attrs in page.having("figure") if attrs.get("class") == "neighbor"]
    assert len(figures) == 12
    assert "96 more neighbors" in page.words
    assert "50 further neighbors are in the JSON output" in page.words
    assert "and 20 more: the JSON output lists them all" in page.words


def test_thirty_slices_stay_light():
    page = render_html(make_result(make_study(n_slices=30)), thumbnails=make_thumbnail)
    assert len(page) < 4_000_000


def test_query_pictures_are_reduced_and_outlines_kept():
    import base64
    import io

    from PIL import Image

    outline = np.zeros((900, 600), dtype=bool)
    outline[100:800, 300] = True
    pictures = SlicePictures(windowed=np.full((900, 600), 77, dtype=np.uint8), outline=outline)
    for uri in (picture_data_uri(pictures.windowed), outline_data_uri(pictures.outline)):
        with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as picture:
            assert picture.size == (round(600 * MAX_SIDE / 900), MAX_SIDE)
            if picture.mode == "RGBA":
                alpha = np.asarray(picture)[..., 3]
                assert alpha[160].max() > 120
                assert alpha[5].max() == 0


def test_write_makes_one_file_and_replaces_an_old_one(tmp_path: Path):
    target = tmp_path / "report.html"
    target.write_text("old")
    write_html(make_result(make_study(n_slices=1)), target, thumbnails=make_thumbnail)
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_undecodable_file_names_do_not_stop_the_page(tmp_path: Path):
    study = make_study(n_slices=1)
    odd = dataclasses.replace(study.slices[0], source="IM\udcff1.dcm")
    target = tmp_path / "report.html"
    write_html(
        make_result(dataclasses.replace(study, slices=(odd,))), target, thumbnails=make_thumbnail
    )
    assert "IM?1.dcm" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(step, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(ConfigError, match=r"'report\.html' cannot be written: No space left"):
        write_html(make_result(make_study(n_slices=1)), target, thumbnails=make_thumbnail)
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_failing_thumbnail_source_leaves_no_file(tmp_path: Path):
    def broken(item_id: str) -> bytes | None:
        raise RuntimeError("index closed")

    with pytest.raises(RuntimeError, match="index closed"):
        write_html(make_result(make_study(n_slices=1)), tmp_path / "r.html", thumbnails=broken)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named_without_its_path(tmp_path: Path):
    target = tmp_path / "absent" / "r.html"
    with pytest.raises(ConfigError) as caught:
        write_html(make_result(make_study(n_slices=1)), target, thumbnails=make_thumbnail)
    assert "absent" not in str(caught.value)
    assert "'r.html'" in str(caught.value)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("kept")
    (tmp_path / "link.html").symlink_to(other)
    os.mkfifo(tmp_path / "pipe.html")
    for name in ("link.html", "pipe.html"):
        with pytest.raises(ConfigError, match="expected a new file"):
            write_html(make_result(), tmp_path / name, thumbnails=lambda item_id: None)
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "pipe.html").is_fifo()
    assert other.read_text() == "kept"
