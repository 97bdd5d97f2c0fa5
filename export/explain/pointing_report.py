"""The pointing game's result as a folder: JSON, Markdown, gallery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.dataset import SliceSet
from export.explain.gallery import GalleryRow, draw_gallery
from export.explain.pointing import (
    CHANCE,
    MODEL,
    RANDOM,
    Played,
    PointingGame,
    PointingSettings,
    result_of,
)
from ildsdk.bundle import Bundle

_SCORE_TITLES = {
    "hit": "maximum inside the lesion",
    "near_hit": "maximum inside, half a place of tolerance",
    "energy": "positive energy inside the lesion",
}


def play_and_report(
    slices: SliceSet,
    bundle: Bundle,
    out: Path,
    settings: PointingSettings,
    *,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Play and write ``pointing.json``, ``pointing.md`` and ``pointing.png``.

    Raises
    ------
    ConfigError, ModelError
        As :class:`export.explain.pointing.PointingGame`.
    """
    out.mkdir(parents=True, exist_ok=True)
    game = PointingGame(slices, bundle, settings)
    rows, shown = [], dict[str, Played]()
    for played in game.play(show_progress):
        rows.append(played.row)
        label = played.query.label
        best = shown.get(label)
        if best is None or (
            best.query.case_id == played.query.case_id and _size(played) > _size(best)
        ):
            shown[label] = played
    result = result_of(rows, bundle, settings)
    draw_gallery(out / "pointing.png", [_gallery_row(game, shown[label]) for label in shown])
    text = json.dumps(result, indent=1, allow_nan=False)
    (out / "pointing.json").write_text(text + "\n", encoding="utf-8")
    (out / "pointing.md").write_text(markdown_report(result), encoding="utf-8")
    return result


def _size(played: Played) -> tuple[int, int]:
    """Which slice of a class's first case is shown is a rule: largest lesion, then largest lung."""
    query = played.query
    return np.count_nonzero(query.lesion_mask), np.count_nonzero(query.lung_mask)


def _gallery_row(game: PointingGame, played: Played) -> GalleryRow:
    neighbor = int(played.rows[0])
    image = game.image(neighbor)
    _, locations = game.graphs.locate(image, game.radiomics[neighbor])
    query = game.graphs.embed(
        played.query.image, game.bundle.scaler.transform(played.query.features)
    )
    scores = played.row.get("scores", {}).get(MODEL)
    return GalleryRow(
        image=played.query.image[0],
        lesion_mask=played.query.lesion_mask,
        box=played.query.box,
        values=played.maps[0],
        neighbor_image=image[0],
        neighbor_values=locations @ query,
        caption=(
            f"{played.query.case_id}  {played.query.position_mm:.0f} mm  lesion "
            f"{played.query.lesion_mm2 / 100:.1f} cm2",
            f"neighbor {game.slices.case_ids[neighbor]}  cosine {played.cosines[0]:.3f}",
            "not scored: no or little lesion"
            if scores is None
            else f"{len(played.rows)} neighbors: hit {scores['hit']:.2f}, "
            f"energy {scores['energy']:.2f}",
        ),
    )


def markdown_report(result: Mapping[str, Any]) -> str:
    """The result as Markdown; headings say that the data are phantoms."""
    settings, everything = result["settings"], result["all"]
    first = everything["systems"][MODEL]["hit"]
    lines = [
        "# Pointing game of the activation maps on PHANTOM (synthetic) CT",
        "",
        f"{first['n_slices']} slices of {first['n_cases']} held-out phantom cases with at least "
        f"{settings['min_lesion_mm2']:g} mm2 of lesion inside the lung mask, each against its "
        f"{settings['n_neighbors']} nearest slices of training cases of the same class. Map: "
        "positive part of gradient x activation of the cosine, interpolated over the slice; only "
        "the lung counts. Means of case means, in brackets 95 % bootstrap intervals over cases; "
        f"seed {settings['seed']}. Chance: a place drawn at random in the lung, computed exactly; "
        "its energy is that of a uniform map. Random network: the same architecture, untrained.",
        "",
    ]
    if first["n_slices"]:
        lines += _tables(result)
    lines += [
        "## Positive and negative sums by group (PHANTOM)",
        "",
        "Mean over slices of what a map's places add up to, of a cosine. The nearer the cosine is "
        "to 1 the smaller are the sums: at 1 no place can raise it. A slice without lesion has a "
        "map too: it shows what makes two slices alike, which need not be a lesion. The last two "
        "columns: percent of the positive sum that lies outside the lung mask, where the model "
        "input is empty, and percent of the input's area that does.",
        "",
        "| group | slices | cases | positive sum | negative sum | positive outside lung | area "
        "outside lung |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, group in result["energy_by_group"].items():
        cells = [
            "-" if group[key] is None else f"{scale * group[key]:.{digits}f}"
            for key, scale, digits in (
                ("positive", 1, 4), ("negative", 1, 4),
                ("outside_lung", 100, 0), ("area_outside_lung", 100, 0),
            )
        ]  # fmt: skip
        lines.append(f"| {name} | {group['n_slices']} | {group['n_cases']} | {' | '.join(cells)} |")
    lines += ["", "![Queries and their first neighbors with both maps](pointing.png)", ""]
    return "\n".join(lines)


def _tables(result: Mapping[str, Any]) -> list[str]:
    everything = result["all"]
    lines = [
        f"Half a place of the feature map is {result['half_cell_mm']:.0f} mm on these slices.",
        "",
        "## All classes (PHANTOM), percent",
        "",
        f"| map | {' | '.join(_SCORE_TITLES.values())} |",
        "| --- | --- | --- | --- |",
    ]
    for system, scores in everything["systems"].items():
        cells = [_percent(scores[name]) for name in _SCORE_TITLES]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    for system, scores in everything["differences"].items():
        cells = [_percent(scores[name], sign="+") for name in _SCORE_TITLES]
        lines.append(f"| {MODEL} - {system} | {' | '.join(cells)} |")
    lines += [
        "",
        "A difference is supported by the data where its interval leaves out 0: "
        + "; ".join(_verdict(everything["differences"], system) for system in (CHANCE, RANDOM))
        + ". With fewer than some 20 cases such intervals are too narrow.",
        "",
        "## By class (PHANTOM), percent",
        "",
        "| class | slices | cases | maximum inside | chance | energy inside | chance |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label, group in result["by_label"].items():
        model, by_chance = group["systems"][MODEL], group["systems"][CHANCE]
        cells = [_percent(one[name]) for name in ("hit", "energy") for one in (model, by_chance)]
        counts = f"{model['hit']['n_slices']} | {model['hit']['n_cases']}"
        lines.append(f"| {label} | {counts} | {' | '.join(cells)} |")
    return [*lines, ""]


def _percent(value: Mapping[str, Any], sign: str = "") -> str:
    text = f"{100 * value['mean']:{sign}.1f}"
    if value["low"] is None:
        return f"{text} [one case]"
    return f"{text} [{100 * value['low']:{sign}.1f}, {100 * value['high']:{sign}.1f}]"


def _verdict(differences: Mapping[str, Any], system: str) -> str:
    """Which scores are above, below or not told from those of a system."""
    words: dict[str, list[str]] = {}
    for name in _SCORE_TITLES:
        value = differences[system][name]
        if value["low"] is None or value["low"] <= 0 <= value["high"]:
            key = "not told apart"
        else:
            key = "above" if value["low"] > 0 else "below"
        words.setdefault(key, []).append(name.replace("_", " "))
    found = ", ".join(f"{' and '.join(names)} {key}" for key, names in words.items())
    return f"against {system}: {found}"
