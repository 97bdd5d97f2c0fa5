"""A trained system of Table 2: embeds slices, and one file on disk."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from export.dataset import SliceSet
from export.models.backbone import Backbone, make_backbone
from export.models.heads import Head, make_head
from export.precision import autocast
from export.systems import SYSTEMS, System
from ildsdk.errors import ConfigError
from ildsdk.radiomics.scaler import FeatureScaler

MODEL_NAME = "model.pt"
# The file of the shipped model was written before there were six systems, and names none.
_UNNAMED_SYSTEM = "ild-ffn-scl"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainedSystem:
    """What it takes to turn slices into the vectors that are searched.

    Attributes
    ----------
    system : System
    backbone : Backbone or None
        None for radiomics alone.
    head : IldFfn, Projection or None
        None where the features themselves are searched. Both in evaluation mode.
    scaler : FeatureScaler
        Of the radiomics, fitted on the training cases alone.
    label_names : tuple of str
    train_cases, validation_cases, held_out_cases : tuple of str
        Of ``held_out_cases`` nothing was learned and by them nothing was chosen.
    description : dict
        Settings and log, for provenance.
    """

    system: System
    backbone: Backbone | None
    head: Head | None
    scaler: FeatureScaler
    label_names: tuple[str, ...]
    train_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    held_out_cases: tuple[str, ...]
    description: dict[str, Any]

    @torch.inference_mode()
    def embed(
        self,
        slices: SliceSet,
        rows: npt.NDArray[np.int64] | None = None,
        *,
        precision: str = "float32",
        batch_size: int = 16,
    ) -> npt.NDArray[np.float32]:
        """Unit vectors of these slices (None: of all), float32 ``(n, d)``.

        Parameters
        ----------
        precision : str
            Of the convolutions. float32 is what an exported model computes.
        """
        rows = np.arange(len(slices)) if rows is None else np.asarray(rows, dtype=np.int64)
        radiomics = torch.from_numpy(self.scaler.transform(slices.radiomics[rows]))
        if self.backbone is None:
            return functional.normalize(radiomics, dim=1).numpy()
        self.backbone.eval().to(memory_format=torch.channels_last)
        parts = []
        for start in range(0, rows.size, batch_size):
            part = slice(start, start + batch_size)
            images = torch.from_numpy(slices.images[rows[part]].astype(np.float32))
            with autocast(precision):
                deep = self.backbone(images)
                fused = deep if self.head is None else self.head.fused(deep, radiomics[part])
            parts.append(functional.normalize(fused.float(), dim=1))
        return torch.cat(parts).numpy()

    def save(self, path: Path) -> None:
        """Write one file of tensors and JSON text, no pickled code; replaced whole."""
        n_radiomics = len(self.scaler.mean)
        about = {
            "system": self.system.name,
            "scaler": self.scaler.to_dict(),
            "label_names": self.label_names,
            "gem_p": None if self.backbone is None else self.backbone.gem.p,
            "n_radiomics": n_radiomics,
            "embedding_size": None if self.head is None else self.head.linear.out_features,
            "description": self.description,
        }
        state: dict[str, Any] = {"about": json.dumps(about)}
        if self.backbone is not None:
            state["backbone"] = self.backbone.state_dict()
        if self.head is not None:
            state["fusion"] = self.head.state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".partial")
        torch.save(state, draft)
        os.replace(draft, path)

    @classmethod
    def load(cls, path: Path) -> TrainedSystem:
        """Inverse of :meth:`save`.

        Raises
        ------
        ConfigError
            No such file: training has not finished.
        """
        if not path.is_file():
            raise ConfigError(
                f"{path.name} does not exist: run `python -m export train` to the end"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
        about = json.loads(state["about"])
        system = SYSTEMS[about.get("system", _UNNAMED_SYSTEM)]
        backbone = head = None
        if system.backbone is not None:
            backbone = make_backbone(system.backbone, about["gem_p"]).eval()
            backbone.load_state_dict(state["backbone"])
        if system.head != "none":
            head = make_head(system.head, about["n_radiomics"], about["embedding_size"]).eval()
            head.load_state_dict(state["fusion"])
        description = about["description"]
        return cls(
            system=system,
            backbone=backbone,
            head=head,
            scaler=FeatureScaler.from_dict(about["scaler"]),
            label_names=tuple(about["label_names"]),
            train_cases=tuple(description["train_cases"]),
            validation_cases=tuple(description.get("validation_cases", ())),
            held_out_cases=tuple(description["held_out_cases"]),
            description=description,
        )
