"""Pointing game on phantoms: do activation maps point at the lesions, which phantoms know.

Held-out cases are made again with their lesion masks and searched, slice by slice, in the training
cases of the same class. Their maps are scored beside chance (exactly computed) and beside the maps
of a network with random weights (Adebayo et al. 2018, "Sanity checks for saliency maps").
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from export.dataset import SliceSet
from export.explain.graphs import Graphs
from export.explain.phantom_queries import PhantomQuery, check_same, phantom_queries
from export.explain.random_network import RandomNetwork
from export.explain.scoring import (
    SCORE_NAMES,
    chance,
    on_slice,
    score_map,
    share_outside,
    summarised,
    widened,
)
from export.phantom import PhantomSettings
from ildsdk.bundle import Bundle
from ildsdk.errors import ConfigError

SCHEMA = "export.pointing/1"
MODEL, CHANCE, RANDOM = "model", "chance", "random network"
_N_FOR_BATCH_NORM = 16

Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PointingSettings:
    """What is scored.

    Attributes
    ----------
    n_cases_per_label : int or None
        Held-out cases of each class, the first by case id; None takes all.
    n_neighbors : int
        Neighbors of each slice whose maps are scored; a slice's scores are their mean.
    min_lesion_mm2 : float
        Slices with less lesion than this inside the lung mask are not scored.
    phantom : PhantomSettings
        What the phantoms of the training set were made with.
    n_bootstrap, seed : int
        Draws of cases; seed of the draws and of the random network.
    n_threads : int
    """

    n_cases_per_label: int | None = None
    n_neighbors: int = 4
    min_lesion_mm2: float = 200.0
    phantom: PhantomSettings = dataclasses.field(default_factory=PhantomSettings)
    n_bootstrap: int = 2000
    seed: int = 0
    n_threads: int = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Played:
    """One query slice, its neighbors and its maps.

    Attributes
    ----------
    rows, cosines : ndarray
        Rows of the prepared set of its neighbors, best first, and their scores.
    maps : ndarray
        float32 ``(n_neighbors, h, w)``, signed, of the model.
    row : dict
        What goes into the result.
    """

    query: PhantomQuery
    rows: npt.NDArray[np.int64]
    cosines: Array
    maps: Array
    row: dict[str, Any]


class PointingGame:
    """Held-out phantoms against the index slices of one bundle.

    Parameters
    ----------
    slices : SliceSet
        The prepared set that the bundle's model was trained with.
    bundle : Bundle
        With ``explain.onnx``.

    Raises
    ------
    ConfigError
        The bundle's cases are not in the set.
    """

    def __init__(self, slices: SliceSet, bundle: Bundle, settings: PointingSettings) -> None:
        self.slices, self.bundle, self.settings = slices, bundle, settings
        training = bundle.provenance.get("training", {})
        self.held_out = sorted(training.get("held_out_cases", []))
        self.index_rows = slices.rows_of(training.get("train_cases", []))
        if not self.index_rows.size or not set(self.held_out) & set(slices.case_ids):
            raise ConfigError(
                "the prepared set does not hold the cases of the bundle's training; give the one "
                "that its model was trained with"
            )
        self.radiomics = bundle.scaler.transform(slices.radiomics)
        self.graphs = Graphs(bundle.folder, settings.n_threads)
        some = self.index_rows[
            np.linspace(0, self.index_rows.size - 1, _N_FOR_BATCH_NORM).astype(int)
        ]
        self.random = RandomNetwork(
            np.stack([self.image(row) for row in some]), self.radiomics[some],
            bundle.embedding_size, bundle.gem_p, settings.seed,
        )  # fmt: skip
        # Slices share neighbors.
        self.embed_at_random = functools.lru_cache(4096)(
            lambda row: self.random.embed(self.image(row), self.radiomics[row])
        )

    def image(self, row: int) -> Array:
        """Model input of a prepared slice, float32 ``(1, S, S)``."""
        return np.asarray(self.slices.images[row], dtype=np.float32)

    def play(self, show_progress: bool = True) -> Iterator[Played]:
        """Every query slice with its maps and scores.

        Raises
        ------
        ConfigError
            A held-out case is no phantom, or the settings make other pictures than prepared.
        """
        bar = tqdm(self.index_rows, desc="index", unit="slice", disable=not show_progress)
        embeddings = np.stack([self.graphs.embed(self.image(i), self.radiomics[i]) for i in bar])
        labels = np.array(self.slices.labels)[self.index_rows]
        checked: set[str] = set()
        for query in phantom_queries(
            self.held_out, self.settings.phantom, self.bundle.method,
            self.settings.n_cases_per_label, show_progress,
        ):  # fmt: skip
            if query.case_id not in checked:
                check_same(self.slices, query)
                checked.add(query.case_id)
            values = self.bundle.scaler.transform(query.features)
            embedding, locations = self.graphs.locate(query.image, values)
            same = np.flatnonzero(labels == query.label)
            cosines = embeddings[same] @ embedding
            best = np.argsort(-cosines, kind="stable")[: self.settings.n_neighbors]
            maps = np.einsum("hwd,nd->nhw", locations, embeddings[same[best]])
            rows = self.index_rows[same[best]]
            row = self._scored(query, values, rows, maps)
            yield Played(query=query, rows=rows, cosines=cosines[best], maps=maps, row=row)

    def _scored(
        self, query: PhantomQuery, values: Array, rows: npt.NDArray[np.int64], maps: Array
    ) -> dict[str, Any]:
        shape = query.lung_mask.shape
        heats = [on_slice(one, query.box, shape) for one in maps]
        in_box = on_slice(np.ones((1, 1)), query.box, shape) > 0
        row: dict[str, Any] = {
            "case_id": query.case_id,
            "label": query.label,
            "position_mm": query.position_mm,
            "lesion_mm2": query.lesion_mm2,
            "has_lesion": query.has_lesion,
            "positive": float(np.maximum(maps, 0).sum(axis=(1, 2)).mean()),
            "negative": float(-np.minimum(maps, 0).sum(axis=(1, 2)).mean()),
            "outside_lung": float(np.mean([share_outside(h, query.lung_mask) for h in heats])),
            "area_outside_lung": share_outside(in_box.astype(float), query.lung_mask),
        }
        if query.lesion_mm2 < self.settings.min_lesion_mm2:
            return row
        height_mm = query.box.height * shape[0] * query.pixel_spacing_mm[0]
        half_cell_mm = height_mm / maps.shape[1] / 2
        near = widened(query.lesion_mask, query.pixel_spacing_mm, half_cell_mm)
        by_chance = chance(query.lung_mask, query.lesion_mask, near)
        _, at_random = self.random.locate(query.image, values)
        targets = np.stack([self.embed_at_random(int(i)) for i in rows])
        random_maps = np.einsum("hwd,nd->nhw", at_random, targets)
        row["half_cell_mm"] = half_cell_mm
        row["scores"] = {CHANCE: dataclasses.asdict(by_chance)}
        for system, its_maps in ((MODEL, maps), (RANDOM, random_maps)):
            scores = [
                score_map(on_slice(one, query.box, shape), query.lung_mask, query.lesion_mask, near)
                for one in its_maps
            ]
            row["scores"][system] = {
                name: float(np.mean([getattr(score, name) for score in scores]))
                for name in SCORE_NAMES
            }
        return row


def result_of(
    rows: list[dict[str, Any]], bundle: Bundle, settings: PointingSettings
) -> dict[str, Any]:
    """Means with intervals over all cases and by class, and what slices without lesion show."""
    scored = [row for row in rows if "scores" in row]
    systems = (MODEL, CHANCE, RANDOM)

    def summary(some: list[dict[str, Any]]) -> dict[str, Any]:
        return summarised(some, systems, settings.n_bootstrap, settings.seed)

    groups = {
        "lesion scored": scored,
        "lesion too small to be scored": [
            row for row in rows if row["has_lesion"] and "scores" not in row
        ],
        "no lesion, diseased case": [
            row for row in rows if not row["has_lesion"] and row["label"] != "Normal"
        ],
        "no lesion, normal case": [
            row for row in rows if not row["has_lesion"] and row["label"] == "Normal"
        ],
    }
    return {
        "schema": SCHEMA,
        "is_synthetic": True,
        "bundle_hash": bundle.bundle_hash,
        "settings": dataclasses.asdict(settings),
        "half_cell_mm": float(np.mean([r["half_cell_mm"] for r in scored])) if scored else None,
        "all": summary(scored),
        "by_label": {
            label: summary([row for row in scored if row["label"] == label])
            for label in sorted({row["label"] for row in scored})
        },
        "energy_by_group": {
            name: {
                "n_slices": len(group),
                "n_cases": len({row["case_id"] for row in group}),
                **{
                    key: float(np.mean([row[key] for row in group])) if group else None
                    for key in ("positive", "negative", "outside_lung", "area_outside_lung")
                },
            }
            for name, group in groups.items()
        },
        "slices": rows,
    }
