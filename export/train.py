"""Training of a whole system: its stages, resumable, deterministic by seed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from export.augment import AugmentSettings
from export.dataset import SliceSet
from export.leaks import require_no_leak
from export.models.backbone import Backbone
from export.models.heads import Head
from export.models.ild_ffn import IldFfn
from export.models.resnet import ResNet50
from export.sampling import split_cases
from export.systems import SYSTEMS, System
from export.train_backbone import classify
from export.train_contrast import contrast
from export.train_settings import TrainSettings
from export.trained_system import MODEL_NAME, TrainedSystem
from export.training_data import hold_out_validation
from ildsdk.errors import ConfigError
from ildsdk.radiomics.scaler import FeatureScaler

__all__ = [
    "MODEL_NAME",
    "TrainedModel",
    "TrainedSystem",
    "load_trained",
    "save_trained",
    "split_and_train",
    "train",
    "train_system",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """The model that ships, ILD-FFN + SCL, as export and evaluation take it.

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


def train_system(
    slices: SliceSet,
    train_cases: Sequence[str],
    system: System,
    out: Path,
    settings: TrainSettings,
    *,
    classify_folder: Path | None = None,
    maps_path: Path | None = None,
    validation_cases: Sequence[str] | None = None,
    augmentation: AugmentSettings | None = None,
    initial_weights: Path | None = None,
    show_progress: bool = True,
) -> TrainedSystem:
    """Train one system and write its ``model.pt``; goes on where a killed run stopped.

    Parameters
    ----------
    train_cases : sequence of str
        Every other case is held out: watched for information in the log, never learned from.
    system : System
    out : Path
        Folder of the system: ``model.pt``, checkpoint and log of stage 2.
    classify_folder : Path or None
        Folder of stage 1. Systems of one fold and backbone that name the same folder share
        it: the first trains, the others read. None: ``out``.
    maps_path : Path or None
        File of the frozen trunk's maps, shared in the same way. None: in ``out``.
    validation_cases : sequence of str or None
        Cases out of ``train_cases`` that early stopping chooses by; None draws them by the seed
        if ``settings.patience`` is set.
    initial_weights : Path or None
        State dict of the backbone in torchvision's naming; None starts at random.

    Raises
    ------
    ConfigError
        A folder holds another run, or the cases do not fit the settings.
    ModelError
        The initial weights do not fit.
    """
    augmentation = augmentation or AugmentSettings()
    held_out = sorted(set(slices.case_ids) - set(train_cases))
    if validation_cases is None:
        fitted, validation = hold_out_validation(slices, train_cases, settings)
    else:
        validation = sorted(set(validation_cases))
        if stray := sorted(set(validation) - set(train_cases)):
            raise ConfigError(f"validation case {stray[0]!r} is not a training case")
        fitted = sorted(set(train_cases) - set(validation))
    if validation:
        require_no_leak(slices, fitted, validation)
    shared: dict[str, Any] = {
        "validation_cases": validation,
        "watched_cases": held_out,
        "augmentation": augmentation,
        "show_progress": show_progress,
    }
    backbone: Backbone | None = None
    head: Head | None = None
    log: dict[str, Any] = {}
    weights_sha256 = None
    if system.backbone is not None:
        classified = classify(
            slices, fitted, system.backbone, classify_folder or out, settings,
            initial_weights=initial_weights, **shared,
        )  # fmt: skip
        backbone, weights_sha256 = classified.backbone, classified.initial_weights_sha256
        log["backbone"] = classified.log
    if system.head != "none":
        contrasted = contrast(
            slices, fitted, system.head, cast(ResNet50, backbone), out, settings,
            maps_path=maps_path, **shared,
        )  # fmt: skip
        backbone, head = contrasted.backbone, contrasted.head
        log["fusion"] = contrasted.log
    trained = TrainedSystem(
        system=system,
        backbone=backbone,
        head=head,
        scaler=FeatureScaler.fit(slices.radiomics[slices.rows_of(fitted)]),
        label_names=slices.label_names,
        train_cases=tuple(fitted),
        validation_cases=tuple(validation),
        held_out_cases=tuple(held_out),
        description={
            "system": system.name,
            "settings": dataclasses.asdict(settings),
            "augmentation": dataclasses.asdict(augmentation),
            "method": dataclasses.asdict(slices.method),
            "n_train_slices": int(slices.rows_of(fitted).size),
            "n_held_out_slices": int(slices.rows_of(held_out).size),
            "train_cases": fitted,
            "validation_cases": validation,
            "held_out_cases": held_out,
            "initial_weights_sha256": weights_sha256,
            "radiomics_sha256": hashlib.sha256(slices.radiomics.tobytes()).hexdigest(),
            "log": log,
            "torch": torch.__version__,
        },
    )
    trained.save(out / MODEL_NAME)
    return trained


def split_and_train(
    slices: SliceSet,
    out: Path,
    settings: TrainSettings,
    *,
    system: System = SYSTEMS["ild-ffn-scl"],
    test_share: float = 0.2,
    held_out_cases: tuple[str, ...] | None = None,
    augmentation: AugmentSettings | None = None,
    initial_weights: Path | None = None,
    show_progress: bool = True,
) -> TrainedSystem:
    """Split the cases and train one system; goes on where a killed run stopped.

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

    Raises
    ------
    ConfigError
        The split is impossible, or the folder holds another run.
    LeakError
        A patient, a study or nearly the same slice stands on both sides.
    ModelError
        The initial weights do not fit.
    """
    if held_out_cases is None:
        train_cases, _ = split_cases(slices.case_ids, slices.labels, test_share, settings.seed)
    else:
        if unknown := sorted(set(held_out_cases) - set(slices.case_ids)):
            raise ConfigError(f"held-out case {unknown[0]!r} has no prepared slice")
        train_cases = sorted(set(slices.case_ids) - set(held_out_cases))
    test_cases = sorted(set(slices.case_ids) - set(train_cases))
    require_no_leak(slices, train_cases, test_cases)
    return train_system(
        slices, train_cases, system, out, settings,
        augmentation=augmentation, initial_weights=initial_weights, show_progress=show_progress,
    )  # fmt: skip


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
    """:func:`split_and_train` of the system that ships, ILD-FFN + SCL."""
    split_and_train(
        slices, out, settings,
        test_share=test_share, held_out_cases=held_out_cases, augmentation=augmentation,
        initial_weights=initial_weights, show_progress=show_progress,
    )  # fmt: skip
    return load_trained(out / MODEL_NAME)


def save_trained(trained: TrainedModel, path: Path) -> None:
    """Write the shipped model in the form of :meth:`TrainedSystem.save`."""
    description = trained.description
    TrainedSystem(
        system=SYSTEMS["ild-ffn-scl"],
        backbone=trained.backbone,
        head=trained.fusion,
        scaler=trained.scaler,
        label_names=trained.label_names,
        train_cases=trained.train_cases,
        validation_cases=tuple(description.get("validation_cases", ())),
        held_out_cases=trained.held_out_cases,
        description=description,
    ).save(path)


def load_trained(path: Path) -> TrainedModel:
    """The shipped model of a finished training.

    Raises
    ------
    ConfigError
        No such file, or another system: a bundle holds ILD-FFN + SCL.
    """
    trained = TrainedSystem.load(path)
    if not isinstance(trained.backbone, ResNet50) or not isinstance(trained.head, IldFfn):
        raise ConfigError(
            f"{path.name} holds the system {trained.system.name!r}; export and evaluation take "
            "'ild-ffn-scl', the one that a bundle holds"
        )
    return TrainedModel(
        backbone=trained.backbone,
        fusion=trained.head,
        scaler=trained.scaler,
        label_names=trained.label_names,
        train_cases=trained.train_cases,
        held_out_cases=trained.held_out_cases,
        description=trained.description,
    )
