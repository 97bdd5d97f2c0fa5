"""Activation maps on the page: colors, places, and what is said where there is nothing to show."""

from __future__ import annotations

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from ildsdk.explain import SliceBox, SliceMap
from ildsdk.records import SliceAnswer
from ildsdk.reports.html import render_html
from ildsdk.reports.map_colors import OVERLAY_SIDE, color_table, css_stops, overlay_data_uri
from ildsdk.reports.map_view import MIN_POSITIVE, encoded_size, pair_views
from tests.result_factory import (
    make_mapped_study,
    make_neighbor,
    make_result,
    make_study,
    make_thumbnail,
)
from tests.test_reports_html import HOSTILE, WHEN, PageParser, parse


def pixels_of(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as picture:
        return np.asarray(picture.convert("RGBA")).astype(int)


def oklab_lightness(rgb: np.ndarray) -> np.ndarray:
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_cone = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                        [0.2119034982, 0.6806995451, 0.1073969566],
                        [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
    return np.cbrt(linear @ to_cone.T) @ np.array([0.2104542553, 0.7936177850, -0.0040720468])


class TestColors:
    def test_lightness_rises_evenly_from_transparent_to_opaque(self) -> None:
        table = color_table().astype(float)
        steps = np.diff(oklab_lightness(table[:, :3]))
        assert steps.min() > 0
        assert steps.max() < 2 * steps.mean()
        assert table[0, 3] == 0
        assert (np.diff(table[:, 3]) >= 0).all()
        assert table[-1, 3] < 255  # tissue is seen through the strongest place

    def test_the_bar_has_the_colors_of_the_table(self) -> None:
        stops = css_stops()
        assert (stops[0][0], stops[-1][0]) == (0.0, 1.0)
        assert stops[-1][1] == "#{:02x}{:02x}{:02x}".format(*color_table()[-1, :3])

    def test_a_map_is_drawn_where_it_is_and_only_where_it_pulls_together(self) -> None:
        values = np.zeros((4, 8), np.float32)
        values[3, 1], values[0, 6] = 2.0, -5.0
        drawn = pixels_of(overlay_data_uri(values, 2.0))
        assert drawn.shape == (OVERLAY_SIDE, OVERLAY_SIDE, 4)
        row, column = np.unravel_index(oklab_lightness(drawn[..., :3]).argmax(), drawn.shape[:2])
        assert row >= 3 * OVERLAY_SIDE / 4
        assert OVERLAY_SIDE / 8 <= column < 2 * OVERLAY_SIDE / 8
        # The middle of a place falls between two pixels.
        np.testing.assert_allclose(drawn[row, column], color_table()[-1], atol=32)
        assert (drawn[: OVERLAY_SIDE // 2, :, 3] == 0).all()

    def test_the_scale_is_the_one_asked_for(self) -> None:
        flat = np.full((3, 3), 0.5, np.float32)
        for top, level in ((0.5, 255), (1.0, 128), (50.0, 3)):
            np.testing.assert_allclose(
                pixels_of(overlay_data_uri(flat, top))[5, 5], color_table()[level], atol=2
            )


@pytest.fixture
def mapped() -> SliceAnswer:
    return make_mapped_study(n_slices=1).slices[0]


class TestPairs:
    def test_both_maps_of_a_pair_have_one_scale(self, mapped: SliceAnswer) -> None:
        first, _, third, fourth = pair_views(mapped, (320, 320), {})
        pair = mapped.maps[0]
        assert first.top == max(pair.query.values.max(), pair.neighbor.values.max())
        assert third.neighbor_map is None
        assert third.missing == "not-kept"
        assert third.top == mapped.maps[2].query.values.max()
        assert fourth.top is None
        assert fourth.query_map.overlay is fourth.neighbor_map.overlay is None
        assert first.query_map.together == pytest.approx(
            float(pair.query.values[pair.query.values > 0].sum()), rel=1e-5
        )

    def test_a_weak_map_is_not_stretched_beside_a_strong_one(self, mapped: SliceAnswer) -> None:
        strong, weak = mapped.maps[0], mapped.maps[3]
        pair = dataclasses.replace(strong, neighbor=weak.neighbor)
        (view,) = pair_views(dataclasses.replace(mapped, maps=(pair,)), None, {})
        assert view.top == strong.query.values.max()
        assert view.query_map.overlay is not None
        assert view.neighbor_map.overlay is None
        just = SliceMap(
            values=np.full((2, 2), 1.01 * MIN_POSITIVE / 4, np.float32), box=weak.query.box
        )
        (view,) = pair_views(
            dataclasses.replace(mapped, maps=(dataclasses.replace(pair, query=just),)), None, {}
        )
        assert view.top == pytest.approx(1.01 * MIN_POSITIVE / 4)

    def test_where_nothing_is_similar_nothing_is_drawn(self, mapped: SliceAnswer) -> None:
        unlike = dataclasses.replace(mapped, no_similar_case=True)
        for view in pair_views(unlike, (320, 320), {}):
            assert view.top is None
            assert view.query_map.overlay is None
            assert view.neighbor_map is None or view.neighbor_map.overlay is None

    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            (None, (16, 32, 80, 64)),
            ((300, 300), (16, 32, 80, 64)),
            ((400, 200), (16, 40 + 16, 80, 32)),  # wide: 160 x 80 in the middle
            ((100, 200), (40 + 8, 32, 40, 64)),
        ],
    )
    def test_a_box_lies_where_the_fitted_picture_has_it(
        self, mapped: SliceAnswer, size: tuple[int, int] | None, expected: tuple[float, ...]
    ) -> None:
        box = SliceBox(top=0.2, left=0.1, height=0.4, width=0.5)
        query = dataclasses.replace(mapped.maps[0].query, box=box)
        pair = dataclasses.replace(mapped.maps[0], query=query)
        (view,) = pair_views(dataclasses.replace(mapped, maps=(pair,)), size, {})
        found = view.query_map
        assert (found.x, found.y, found.width, found.height) == pytest.approx(expected)

    def test_the_strongest_place_in_words(self, mapped: SliceAnswer) -> None:
        values = np.zeros((2, 4), np.float32)
        values[1, 3] = 1
        box = SliceBox(top=0.5, left=0.0, height=0.5, width=0.5)
        pair = dataclasses.replace(mapped.maps[0], query=SliceMap(values=values, box=box))
        (view,) = pair_views(dataclasses.replace(mapped, maps=(pair,)), None, {})
        assert view.query_map.strongest == "44 % from the left and 88 % from the top of the picture"

    def test_size_of_a_picture_and_of_what_is_none(self) -> None:
        stream = io.BytesIO()
        Image.new("L", (30, 20)).save(stream, format="WEBP")
        assert encoded_size(stream.getvalue()) == (30, 20)
        assert encoded_size(b"\x89PNG\r\n\x1a\n") is None
        assert encoded_size(b"") is None


class TestPage:
    def test_pairs_stand_side_by_side_with_a_scale_and_what_it_means(self) -> None:
        study = make_mapped_study(n_slices=2)
        page = parse(make_result(study))
        assert page.misnested == []
        assert page.open == []
        pairs = [attrs for attrs in page.having("figure") if attrs.get("class") == "map-pair"]
        assert len(pairs) == 8
        words = page.words
        assert words.count("Contribution to the cosine per place; one scale for both") == 4
        assert "radiomics features and constant terms of the network" in words
        assert "Maps show what the network reacted to, not where disease is." in words
        assert "5 x 5 places" in words
        assert words.count("No map: the index keeps none of this slice.") == 2
        assert words.count("Hardly anything here pulls the two closer: the map is left empty.") == 4
        assert "Not a medical device. For research." in words
        top = max(
            float(one.values.max())
            for one in (study.slices[0].maps[0].query, study.slices[0].maps[0].neighbor)
        )
        assert f"{top:.2g}" in words

    def test_ids_links_and_pictures_hold_together(self) -> None:
        page = parse(make_result(make_mapped_study(n_slices=2), make_study(n_slices=1, seed=3)))
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        references = {attrs["href"] for tag, attrs in page.tags if tag in ("a", "use")}
        assert {reference.removeprefix("#") for reference in references} <= set(ids)
        assert "map-colors" in ids
        drawings = list(page.having("svg"))
        assert all(
            "aria-label" in attrs or attrs.get("aria-hidden") == "true" for attrs in drawings
        )
        told = [
            attrs["aria-label"] for attrs in drawings if "its map" in attrs.get("aria-label", "")
        ]
        assert len(told) == 10  # two drawn pairs and one query alone in each slice
        for _, attrs in page.tags:
            assert (attrs.get("href") or "#").startswith(("#", "data:image/"))

    def test_no_similar_case_is_not_dressed_up(self) -> None:
        page = parse(make_result(make_mapped_study(n_slices=1, best=0.55)))
        assert "there is no similarity to explain. The maps are left empty." in page.words
        assert not any("its map is" in attrs.get("aria-label", "") for attrs in page.having("svg"))
        assert "Contribution to the cosine per place" not in page.words
        assert "Hardly anything" not in page.words

    @pytest.mark.parametrize(
        ("reason", "sentence"),
        [
            ("no-maps-in-index", "The index keeps no maps, so only the query's are shown"),
            ("other-explain-graph", "made with another explain.onnx than that of this bundle"),
        ],
    )
    def test_what_holds_for_the_whole_index_is_said_once(self, reason: str, sentence: str) -> None:
        study = make_mapped_study(n_slices=3)
        slices = tuple(
            dataclasses.replace(
                answer,
                maps=tuple(
                    dataclasses.replace(pair, neighbor=None, missing=reason) for pair in answer.maps
                ),
            )
            for answer in study.slices
        )
        words = parse(make_result(dataclasses.replace(study, slices=slices))).words
        assert words.count(sentence) == 1
        assert words.count("No map.") == 12

    def test_without_pictures_maps_stand_on_black(self) -> None:
        study = make_mapped_study(n_slices=1)
        bare = dataclasses.replace(study.slices[0], pictures=None)
        page = parse(make_result(dataclasses.replace(study, slices=(bare,))), lambda item_id: None)
        assert page.words.count("no picture") >= 2
        assert any("its map is strongest" in a.get("aria-label", "") for a in page.having("svg"))

    def test_what_others_name_is_escaped(self) -> None:
        study = make_mapped_study(n_slices=1)
        answer = study.slices[0]
        neighbors = tuple(
            make_neighbor(rank, 0.9, rank, case_id=HOSTILE, label=HOSTILE, item_id=HOSTILE)
            for rank in range(1, 5)
        )
        hostile = dataclasses.replace(
            study, slices=(dataclasses.replace(answer, neighbors=neighbors),)
        )
        page, plain = parse(make_result(hostile)), parse(make_result(study))
        assert page.misnested == []
        assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
        assert all(not key.startswith("on") for _, attrs in page.tags for key in attrs)
        assert any(HOSTILE in attrs.get("aria-label", "") for attrs in page.having("svg"))

    def test_a_page_without_maps_has_nothing_of_them(self) -> None:
        text = render_html(make_result(make_study(n_slices=1)), thumbnails=make_thumbnail)
        body = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
        assert "map" not in PageParser(body).words.lower()
        assert "map-colors" not in body

    def test_thirty_slices_with_maps_stay_light(self) -> None:
        page = render_html(
            make_result(make_mapped_study(n_slices=30)),
            thumbnails=make_thumbnail,
            generated_at=WHEN,
        )
        assert len(page) < 6_000_000
