"""Stage 1: a backbone learns to classify (the systems VGG, AlexNet and ResNet50)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from export.augment import AugmentSettings, augment, resize
from export.checkpoints import Checkpoint, Entry
from export.dataset import SliceSet
from export.models.backbone import Backbone, load_torchvision_weights, make_backbone
from export.precision import autocast
from export.train_settings import TrainSettings
from export.training_data import Rows, data_sha256, fingerprint, roles_of
from export.training_loop import (
    Score,
    learning_rate_factor,
    prepare_torch,
    run_epochs,
    set_learning_rate,
)
from ildsdk.errors import ConfigError

CHECKPOINT_NAME = "classify.pt"
MAX_GRADIENT_NORM = 5.0
"""Gradients of a step are scaled down to this norm: keeps a random start from diverging."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """What stage 1 leaves.

    Attributes
    ----------
    name : str
        Of the backbone, as in :mod:`export.systems`.
    backbone : Backbone
        In evaluation mode, on the CPU.
    log : list of dict
        One entry per epoch.
    initial_weights_sha256 : str or None
    """

    name: str
    backbone: Backbone
    log: list[Entry]
    initial_weights_sha256: str | None


def classify(
    slices: SliceSet,
    train_cases: Sequence[str],
    backbone_name: str,
    out: Path,
    settings: TrainSettings,
    *,
    validation_cases: Sequence[str] = (),
    watched_cases: Sequence[str] = (),
    augmentation: AugmentSettings | None = None,
    initial_weights: Path | None = None,
    show_progress: bool = True,
) -> Classified:
    """Train a backbone with a linear classifier that is then thrown away.

    Goes on from the checkpoint in ``out``; a finished stage is only read.

    Parameters
    ----------
    train_cases : sequence of str
        Weights are fitted to these cases alone.
    backbone_name : str
        ``"vgg16"``, ``"alexnet"`` or ``"resnet50"``.
    out : Path
        Folder of ``classify.pt`` and the log ``classify.csv``.
    validation_cases : sequence of str
        Early stopping (``settings.patience``) chooses the epoch by these; never test cases.
    watched_cases : sequence of str
        Test cases: their accuracy goes into the log (``test_accuracy_for_information``), and
        nothing is chosen by it.
    initial_weights : Path or None
        State dict in torchvision's naming; None starts at random.

    Raises
    ------
    ConfigError
        The folder holds another run, a case has two roles, or early stopping has no cases.
    ModelError
        The initial weights do not fit.
    """
    augmentation = augmentation or AugmentSettings()
    roles = roles_of(slices, train_cases, validation_cases, watched_cases)
    if settings.patience and not roles.validation.size:
        raise ConfigError("early stopping (patience) needs validation cases, and none were given")
    prepare_torch(settings)
    out.mkdir(parents=True, exist_ok=True)
    backbone = make_backbone(backbone_name, settings.gem_p)
    weights_sha256 = None
    if initial_weights is not None:
        load_torchvision_weights(backbone, initial_weights)
        weights_sha256 = hashlib.sha256(initial_weights.read_bytes()).hexdigest()
    classifier = nn.Linear(backbone.n_features, len(slices.label_names))
    checkpoint = Checkpoint(
        out / CHECKPOINT_NAME,
        fingerprint(
            {
                "stage": "classify",
                "backbone": backbone_name,
                "settings": settings.of_stage_1(),
                "augmentation": dataclasses.asdict(augmentation),
                "method": dataclasses.asdict(slices.method),
                "data_sha256": data_sha256(slices),
                "train_cases": sorted(train_cases),
                "validation_cases": sorted(validation_cases),
                "initial_weights_sha256": weights_sha256,
            }
        ),
        settings.tensorboard,
    )
    backbone.to(settings.device, memory_format=torch.channels_last)
    classifier.to(settings.device)
    parameters = [*backbone.parameters(), *classifier.parameters()]
    classes = slices.class_indices()
    batch_size = min(settings.batch_size, roles.train.size)
    n_batches = roles.train.size // batch_size  # the rest of an epoch is dropped: batch norm
    n_epochs = settings.n_backbone_epochs

    def logits_of(images: Tensor) -> Tensor:
        with autocast(settings.precision, settings.device):
            maps = backbone.feature_map(images.to(settings.device))
        return classifier(backbone.gem(maps))

    def train_epoch(epoch: int, optimizer: torch.optim.Optimizer) -> Entry:
        rng = np.random.default_rng([settings.seed, 1, epoch])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        side = settings.side_of_epoch(epoch)
        order = rng.permutation(roles.train)[: n_batches * batch_size].reshape(n_batches, -1)
        backbone.train()
        total_loss, n_right = 0.0, 0
        title = f"{backbone_name} {epoch + 1}/{n_epochs} ({side} px)"
        bar = tqdm(order, desc=title, disable=not show_progress)
        for batch, rows in enumerate(bar):
            step = epoch * n_batches + batch
            set_learning_rate(
                optimizer,
                learning_rate_factor(settings.lr_schedule, step, n_epochs * n_batches),
            )
            images = torch.from_numpy(slices.images[rows].astype(np.float32))
            images = augment(images, side, slices.method.window_width_hu, augmentation, generator)
            truth = torch.from_numpy(classes[rows]).to(settings.device)
            logits = logits_of(images)
            loss = functional.cross_entropy(logits, truth, label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
            optimizer.step()
            total_loss += loss.item()
            n_right += int((logits.argmax(dim=1) == truth).sum())
            bar.set_postfix(loss=f"{total_loss / (batch + 1):.3f}", refresh=False)
        return {
            "side": side,
            "loss": round(total_loss / n_batches, 5),
            "train_accuracy": round(n_right / order.size, 4),
        }

    @torch.inference_mode()
    def accuracy_and_loss(rows: Rows, side: int) -> tuple[float, float]:
        backbone.eval()
        n_right, loss = 0, 0.0
        for start in range(0, rows.size, 32):
            part = rows[start : start + 32]
            images = resize(torch.from_numpy(slices.images[part].astype(np.float32)), side)
            truth = torch.from_numpy(classes[part]).to(settings.device)
            logits = logits_of(images)
            n_right += int((logits.argmax(dim=1) == truth).sum())
            loss += float(functional.cross_entropy(logits, truth, reduction="sum"))
        return n_right / rows.size, loss / rows.size

    def measure(epoch: int) -> tuple[Entry, Score | None]:
        entry: Entry = {"validation_accuracy": None, "test_accuracy_for_information": None}
        score: Score | None = None
        side = settings.schedule[-1][0]  # of one size, or early stopping compares unlike figures
        is_due = epoch + 1 == n_epochs or (epoch + 1) % settings.validate_every == 0
        if roles.validation.size and (settings.patience or is_due):
            accuracy, loss = accuracy_and_loss(roles.validation, side)
            entry["validation_accuracy"] = round(accuracy, 4)
            score = (accuracy, -loss)
        if roles.watched.size and is_due:
            accuracy, _ = accuracy_and_loss(roles.watched, side)
            entry["test_accuracy_for_information"] = round(accuracy, 4)
        return entry, score

    run_epochs(
        checkpoint,
        {"backbone": backbone, "classifier": classifier},
        lambda: _optimizer(parameters, settings),
        n_epochs,
        train_epoch=train_epoch,
        measure=measure,
        patience=settings.patience,
    )
    return Classified(
        name=backbone_name,
        backbone=backbone.to("cpu").eval(),
        log=checkpoint.log,
        initial_weights_sha256=weights_sha256,
    )


def _optimizer(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam(
            parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    # Biases and batch norms are not decayed.
    return torch.optim.AdamW(
        [
            {
                "params": [p for p in parameters if p.ndim > 1],
                "weight_decay": settings.weight_decay,
            },
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        fused=True,
    )
