"""Pointing game: scores on planted maps, and the whole of it on a tiny bundle."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from export.explain.scoring import (  # noqa: E402
    chance,
    mean_over_cases,
    on_slice,
    score_map,
    share_outside,
    summarised,
    widened,
)

torch.set_num_threads(1)


@dataclasses.dataclass
class Box:
    top: float
    left: float
    height: float
    width: float


SHAPE = (100, 80)
LUNG = np.zeros(SHAPE, bool)
LUNG[20:80, 10:70] = True
LESION = np.zeros(SHAPE, bool)
LESION[30:40, 20:30] = True


def test_map_lies_on_the_slice_where_its_box_does() -> None:
    values = np.array([[0, 0, 0], [0, 0, 4.0], [0, -9, 0]])
    heat = on_slice(values, Box(0.1, 0.25, 0.6, 0.6), SHAPE)  # rows 10 to 70, columns 20 to 68
    assert np.unravel_index(heat.argmax(), SHAPE)[0] in (39, 40)
    # The middle of place (1, 2): row 10 + 60 / 2, column 20 + 48 * 5 / 6 = 60.
    assert heat[39:41, 60:].max() == pytest.approx(4, rel=0.05)
    assert heat[40, 67] == pytest.approx(heat[40, 60], rel=0.05)  # constant beyond the middle
    assert heat.min() == 0  # the negative place shows nothing
    outside = np.ones(SHAPE, bool)
    outside[10:70, 20:68] = False
    assert not heat[outside].any()
    # Half way to the next middle the value is half.
    assert heat[39, 52] == pytest.approx(2, rel=0.1)


def test_a_box_beyond_the_edge_is_cut_off() -> None:
    heat = on_slice(np.array([[1.0, 2.0]]), Box(-0.5, -0.5, 2, 2), SHAPE)
    assert heat[50, 0] == pytest.approx(1.0, abs=0.01)
    assert heat[50, 79] == pytest.approx(2.0, abs=0.01)
    assert (np.diff(heat[50]) >= 0).all()


@pytest.mark.parametrize(
    ("place", "hit", "near"), [((35, 25), 1, 1), ((35, 33), 0, 1), ((70, 60), 0, 0)]
)
def test_hit_and_near_hit_of_a_single_peak(place, hit, near) -> None:
    heat = np.full(SHAPE, 0.1)
    heat[place] = 5
    scores = score_map(heat, LUNG, LESION, widened(LESION, (1.0, 1.0), 4))
    assert (scores.hit, scores.near_hit) == (hit, near)


def test_scores_count_in_the_lung_alone_and_share_ties() -> None:
    near = widened(LESION, (1.0, 1.0), 4)
    heat = np.zeros(SHAPE)
    heat[0, 0] = 9  # outside the lung
    heat[35, 25] = heat[60, 60] = 1
    scores = score_map(heat, LUNG, LESION, near)
    assert (scores.hit, scores.energy) == (0.5, 0.5)
    assert score_map(np.zeros(SHAPE), LUNG, LESION, near).hit == 0
    flat = score_map(np.ones(SHAPE), LUNG, LESION, near)
    by_chance = chance(LUNG, LESION, near)
    assert flat == by_chance
    assert flat.energy == 100 / 3600
    assert share_outside(np.ones(SHAPE), LUNG) == pytest.approx(1 - 3600 / 8000)
    assert share_outside(np.zeros(SHAPE), LUNG) == 0


def test_chance_is_the_mean_over_random_places() -> None:
    rng = np.random.default_rng(0)
    near = widened(LESION, (1.0, 1.0), 4)
    rows, columns = np.nonzero(LUNG)
    drawn = rng.integers(len(rows), size=20_000)
    hits = LESION[rows[drawn], columns[drawn]].mean()
    nears = near[rows[drawn], columns[drawn]].mean()
    by_chance = chance(LUNG, LESION, near)
    assert by_chance.hit == pytest.approx(hits, abs=0.005)
    assert by_chance.near_hit == pytest.approx(nears, abs=0.01)


def test_widening_is_in_millimeters() -> None:
    mask = np.zeros((41, 41), bool)
    mask[20, 20] = True
    wide = widened(mask, (1.0, 2.0), 6)
    assert np.flatnonzero(wide[:, 20]).tolist() == list(range(14, 27))
    assert np.flatnonzero(wide[20]).tolist() == list(range(17, 24))


def test_mean_is_over_cases_and_its_interval_by_cases() -> None:
    # Case a has many slices, b and c one each: a mean over slices would be near 1.
    values, cases = [1.0] * 50 + [0.0, 0.2], ["a"] * 50 + ["b", "c"]
    found = mean_over_cases(values, cases, 2000, seed=0)
    assert found["mean"] == pytest.approx(0.4)
    assert (found["n_cases"], found["n_slices"]) == (3, 52)
    assert found["low"] == pytest.approx(0.0)
    assert found["high"] == pytest.approx(1.0)
    assert mean_over_cases([0.3], ["a"], 100, 0)["low"] is None
    assert mean_over_cases([], [], 100, 0)["mean"] is None


def test_differences_are_paired_by_slice() -> None:
    names = ("hit", "near_hit", "energy")
    rows = [
        {
            "case_id": str(i),
            "scores": {
                "model": dict.fromkeys(names, base + 0.1),
                "chance": dict.fromkeys(names, base),
            },
        }
        for i, base in enumerate((0.1, 0.4, 0.8))
    ]
    difference = summarised(rows, ("model", "chance"), 500, 0)["differences"]["chance"]["hit"]
    assert difference["low"] == pytest.approx(0.1)  # though the scores differ much by case
    assert difference["high"] == pytest.approx(0.1)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A tiny trained-on-nothing bundle of the real architecture, and the game played with it."""
    from export.dataset import SliceSet
    from export.explain.phantom_queries import phantom_queries
    from export.explain.pointing import PointingSettings
    from export.explain.pointing_report import play_and_report
    from export.models.ild_ffn import IldFfn
    from export.models.resnet import ResNet50
    from export.phantom import PhantomSettings, case_id_of
    from export.to_onnx import export_models
    from ildsdk.bundle import write_bundle
    from ildsdk.radiomics.scaler import FeatureScaler
    from ildsdk.settings import MethodSettings

    phantom = PhantomSettings(size=128, n_slices=2, difficulty=0.0)
    method = MethodSettings(input_size=64)
    index = [case_id_of(label, 1) for label in ("IPF-ILD", "Normal")]
    held_out = [case_id_of(label, 0) for label in ("IPF-ILD", "Normal")]
    made = list(phantom_queries([*index, *held_out], phantom, method, None, False))
    slices = SliceSet(
        images=np.stack([query.image for query in made]),
        radiomics=np.stack([query.features for query in made]),
        labels=tuple(query.label for query in made),
        case_ids=tuple(query.case_id for query in made),
        position_mm=tuple(query.position_mm for query in made),
        method=method,
    )
    folder = tmp_path_factory.mktemp("pointing")
    torch.manual_seed(0)
    scaler = FeatureScaler.fit(slices.radiomics)
    report = export_models(
        ResNet50().eval(), IldFfn(2048, slices.radiomics.shape[1], 16).eval(), folder / "onnx",
        images=slices.images, radiomics=scaler.transform(slices.radiomics), compress=False,
    )  # fmt: skip
    bundle = write_bundle(
        folder / "bundle", name="tiny", method=method, backbone=report.backbone,
        fusion=report.fusion, explain=report.explain, scaler=scaler, labels=("IPF-ILD", "Normal"),
        embedding_size=16, gem_p=3.0, is_synthetic=True, figures={}, license="x", intended_use="x",
        provenance={"training": {"train_cases": index, "held_out_cases": held_out}},
    )  # fmt: skip
    settings = PointingSettings(phantom=phantom, n_neighbors=2, n_bootstrap=100, n_threads=1)
    result = play_and_report(slices, bundle, folder / "out", settings, show_progress=False)
    return slices, bundle, settings, folder / "out", result


def test_game_scores_slices_with_lesion_and_reports_the_others_apart(played) -> None:
    *_, settings, out, result = played
    assert json.loads((out / "pointing.json").read_text()) == json.loads(json.dumps(result))
    rows = result["slices"]
    assert {row["label"] for row in rows} == {"IPF-ILD", "Normal"}
    for row in rows:
        assert ("scores" in row) == (row["lesion_mm2"] >= settings.min_lesion_mm2)
        assert row["label"] != "Normal" or not row["has_lesion"]
    n_scored = result["all"]["systems"]["model"]["hit"]["n_slices"]
    assert n_scored == sum("scores" in row for row in rows) > 0
    normal = result["energy_by_group"]["no lesion, normal case"]
    assert normal["n_slices"] == sum(row["label"] == "Normal" for row in rows) > 0
    assert normal["positive"] > 0
    assert 0 < normal["area_outside_lung"] < 1
    assert 0 <= normal["outside_lung"] <= 1
    text = (out / "pointing.md").read_text()
    assert "PHANTOM" in text.splitlines()[0]
    for words in ("chance", "random network", "no lesion, normal case"):
        assert words in text
    from PIL import Image

    with Image.open(out / "pointing.png") as picture:
        assert picture.size[1] > 2 * 240  # a row for each class


def test_phantoms_of_other_settings_are_refused(played) -> None:
    from export.explain.pointing import PointingGame
    from export.phantom import PhantomSettings
    from ildsdk.errors import ConfigError

    slices, bundle, settings, *_ = played
    other = dataclasses.replace(
        settings, phantom=PhantomSettings(size=128, n_slices=2, difficulty=1.0)
    )
    game = PointingGame(slices, bundle, other)
    with pytest.raises(ConfigError, match="differs from the prepared one"):
        next(game.play(show_progress=False))


def test_case_ids_that_are_no_phantoms_are_refused() -> None:
    from export.explain.phantom_queries import label_and_seed
    from ildsdk.errors import ConfigError

    assert label_and_seed("PHANTOM-DMRP-0012") == ("DM/RP-ILD", 12)
    for other in ("case-7", "PHANTOM-IPF-12", "PHANTOM-IPF-x"):
        with pytest.raises(ConfigError, match="no phantom"):
            label_and_seed(other)
