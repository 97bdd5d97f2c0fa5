"""Both training stages of the method, resumable, deterministic by seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from export.augment import AugmentSettings
from export.checkpoints import Checkpoint
from export.dataset import SliceSet
from export.models.ild_ffn import IldFfn
from export.models.resnet import N_DEEP_FEATURES, ResNet50, load_torchvision_weights
from export.sampling import split_cases
from export.train_backbone import train_backbone
from export.train_fusion import train_fusion
from export.train_settings import TrainSettings
from ildsdk.errors import ConfigError
from ildsdk.radiomics.scaler import FeatureScaler

MODEL_NAME = "model.pt"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """What a training run leaves behind.

    Attributes
    ----------
    backbone : ResNet50
    fusion : IldFfn
        Both in evaluation mode.
    scaler : FeatureScaler
        Fitted on the training cases alone.
    label_names : tuple of str
    train_cases, held_out_cases : tuple of str
    description : dict
        Settings and log, for the bundle's provenance.
    """

    backbone: ResNet50
    fusion: IldFfn
    scaler: FeatureScaler
    label_names: tuple[str, ...]
    train_cases: tuple[str, ...]
    held_out_cases: tuple[str, ...]
    description: dict[str, Any]


def train(
    slices: SliceSet,
    out: Path,
    settings: TrainSettings,
    *,
    test_share: float = 0.2,
    held_out_cases: tuple[str, ...] | None = None,
    augmentation: AugmentSettings | None = None,
    initial_weights: Path | None = None,
    show_progress: bool = True,
) -> TrainedModel:
    """Train backbone and fusion net; go on where a killed run stopped.

    Parameters
    ----------
    slices : SliceSet
    out : Path
        Folder of checkpoints, logs and the final ``model.pt``.
    settings : TrainSettings
    test_share : float
        Share of each class's cases held out (chosen by the seed).
    held_out_cases : tuple of str or None
        These cases instead of a drawn share.
    initial_weights : Path or None
        State dict in torchvision's naming; None starts at random.

    Raises
    ------
    ConfigError
        The split is impossible, or the folder holds another run.
    ModelError
        The initial weights do not fit.
    """
    augmentation = augmentation or AugmentSettings()
    torch.set_num_threads(settings.n_threads)
    torch.use_deterministic_algorithms(True)
    # Its companion that fills fresh memory costs time and finds only bugs of torch itself.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(settings.seed)
    out.mkdir(parents=True, exist_ok=True)
    if held_out_cases is None:
        train_cases, test_cases = split_cases(
            slices.case_ids, slices.labels, test_share, settings.seed
        )
    else:
        test_cases = sorted(set(held_out_cases))
        unknown = sorted(set(test_cases) - set(slices.case_ids))
        if unknown:
            raise ConfigError(f"held-out case {unknown[0]!r} has no prepared slice")
        train_cases = sorted(set(slices.case_ids) - set(test_cases))
    train_rows, held_out_rows = slices.rows_of(train_cases), slices.rows_of(test_cases)
    scaler = FeatureScaler.fit(slices.radiomics[train_rows])
    radiomics = scaler.transform(slices.radiomics)

    description: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "augmentation": dataclasses.asdict(augmentation),
        "method": dataclasses.asdict(slices.method),
        "n_train_slices": int(train_rows.size),
        "n_held_out_slices": int(held_out_rows.size),
        "train_cases": train_cases,
        "held_out_cases": test_cases,
        "initial_weights_sha256": None,
        "radiomics_sha256": hashlib.sha256(slices.radiomics.tobytes()).hexdigest(),
    }
    backbone = ResNet50(settings.gem_p)
    if initial_weights is not None:
        load_torchvision_weights(backbone, initial_weights)
        description["initial_weights_sha256"] = hashlib.sha256(
            initial_weights.read_bytes()
        ).hexdigest()
    fusion = IldFfn(N_DEEP_FEATURES, radiomics.shape[1], settings.embedding_size)
    fingerprint = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()

    first = Checkpoint(out / "backbone.pt", fingerprint)
    train_backbone(
        slices, train_rows, held_out_rows, backbone, settings, first, augmentation, show_progress
    )
    second = Checkpoint(out / "fusion.pt", fingerprint)
    train_fusion(
        slices, train_rows, held_out_rows, radiomics, backbone, fusion, settings, second,
        augmentation, out / "maps.npy", show_progress,
    )  # fmt: skip
    description["log"] = {"backbone": first.log, "fusion": second.log}
    description["torch"] = torch.__version__
    trained = TrainedModel(
        backbone=backbone.eval(),
        fusion=fusion.eval(),
        scaler=scaler,
        label_names=slices.label_names,
        train_cases=tuple(train_cases),
        held_out_cases=tuple(test_cases),
        description=description,
    )
    save_trained(trained, out / MODEL_NAME)
    return trained


def save_trained(trained: TrainedModel, path: Path) -> None:
    """Write one file of weights and description: tensors and JSON text, no pickled code."""
    text = json.dumps(
        {
            "scaler": trained.scaler.to_dict(),
            "label_names": trained.label_names,
            "gem_p": trained.backbone.gem.p,
            "n_radiomics": trained.fusion.n_radiomics,
            "embedding_size": trained.fusion.linear.out_features,
            "description": trained.description,
        }
    )
    draft = path.with_suffix(".partial")
    torch.save(
        {
            "backbone": trained.backbone.state_dict(),
            "fusion": trained.fusion.state_dict(),
            "about": text,
        },
        draft,
    )
    os.replace(draft, path)


def load_trained(path: Path) -> TrainedModel:
    """Inverse of :func:`save_trained`.

    Raises
    ------
    ConfigError
        No such file: training has not finished.
    """
    if not path.is_file():
        raise ConfigError(f"{path.name} does not exist: run `python -m export train` to the end")
    state = torch.load(path, map_location="cpu", weights_only=True)
    about = json.loads(state["about"])
    backbone = ResNet50(about["gem_p"])
    backbone.load_state_dict(state["backbone"])
    fusion = IldFfn(N_DEEP_FEATURES, about["n_radiomics"], about["embedding_size"])
    fusion.load_state_dict(state["fusion"])
    description = about["description"]
    return TrainedModel(
        backbone=backbone.eval(),
        fusion=fusion.eval(),
        scaler=FeatureScaler.from_dict(about["scaler"]),
        label_names=tuple(about["label_names"]),
        train_cases=tuple(description["train_cases"]),
        held_out_cases=tuple(description["held_out_cases"]),
        description=description,
    )
