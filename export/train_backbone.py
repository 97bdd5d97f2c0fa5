"""Stage 1: the backbone learns to classify (the paper's "ResNet50" system)."""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from export.augment import AugmentSettings, augment, resize
from export.checkpoints import Checkpoint
from export.dataset import SliceSet
from export.models.resnet import N_DEEP_FEATURES, ResNet50
from export.train_settings import TrainSettings

_WARMUP_SHARE = 0.15


def one_cycle(step: int, n_steps: int) -> float:
    """Factor of the learning rate: linear rise, then half a cosine down to 0."""
    position = (step + 0.5) / n_steps
    if position < _WARMUP_SHARE:
        return position / _WARMUP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (position - _WARMUP_SHARE) / (1 - _WARMUP_SHARE)))


def train_backbone(
    slices: SliceSet,
    train_rows: npt.NDArray[np.int64],
    held_out_rows: npt.NDArray[np.int64],
    backbone: ResNet50,
    settings: TrainSettings,
    checkpoint: Checkpoint,
    augmentation: AugmentSettings,
    show_progress: bool = True,
) -> None:
    """Train ``backbone`` (changed in place) with a linear classifier that is then thrown away.

    Goes on from the checkpoint where there is one. Randomness depends on seed and epoch
    only, so that a resumed run gives the same weights as an uninterrupted one.
    """
    classes = slices.class_indices()
    head = nn.Linear(N_DEEP_FEATURES, len(slices.label_names))
    backbone.to(memory_format=torch.channels_last)
    parameters = [*backbone.parameters(), *head.parameters()]
    decayed = [p for p in parameters if p.ndim > 1]  # biases and batch norms are not decayed
    plain = [p for p in parameters if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    first_epoch = 0
    if (state := checkpoint.load()) is not None:
        backbone.load_state_dict(state["backbone"])
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        first_epoch = state["epoch"] + 1

    batch_size = min(settings.batch_size, train_rows.size)
    n_batches = train_rows.size // batch_size  # the rest of an epoch is dropped: batch norm
    n_epochs = settings.n_backbone_epochs
    for epoch in range(first_epoch, n_epochs):
        started = time.perf_counter()
        rng = np.random.default_rng([settings.seed, 1, epoch])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        side = settings.side_of_epoch(epoch)
        order = rng.permutation(train_rows)[: n_batches * batch_size].reshape(n_batches, -1)
        backbone.train()
        total_loss, n_right = 0.0, 0
        bar = tqdm(
            order, desc=f"backbone {epoch + 1}/{n_epochs} ({side} px)", disable=not show_progress
        )
        for batch, rows in enumerate(bar):
            factor = one_cycle(epoch * n_batches + batch, n_epochs * n_batches)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * factor
            images = torch.from_numpy(slices.images[rows].astype(np.float32))
            images = augment(images, side, slices.method.window_width_hu, augmentation, generator)
            truth = torch.from_numpy(classes[rows])
            logits = head(backbone(images))
            loss = functional.cross_entropy(logits, truth, label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            total_loss += loss.item()
            n_right += int((logits.argmax(dim=1) == truth).sum())
            bar.set_postfix(loss=f"{total_loss / (batch + 1):.3f}", refresh=False)
        is_last = epoch + 1 == n_epochs
        held_out: float | None = None  # not measured in this epoch
        if is_last or (epoch + 1) % settings.validate_every == 0:
            held_out = round(_accuracy(slices, held_out_rows, classes, backbone, head, side), 4)
        checkpoint.save(
            {
                "backbone": backbone.state_dict(),
                "head": head.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
            },
            {
                "epoch": epoch + 1,
                "side": side,
                "loss": round(total_loss / n_batches, 5),
                "train_accuracy": round(n_right / order.size, 4),
                "held_out_accuracy": held_out,
                "seconds": round(time.perf_counter() - started, 1),
            },
        )


@torch.inference_mode()
def _accuracy(
    slices: SliceSet,
    rows: npt.NDArray[np.int64],
    classes: npt.NDArray[np.int64],
    backbone: ResNet50,
    head: nn.Linear,
    side: int,
) -> float:
    backbone.eval()
    n_right = 0
    for start in range(0, rows.size, 32):
        part = rows[start : start + 32]
        images = resize(torch.from_numpy(slices.images[part].astype(np.float32)), side)
        predicted = head(backbone(images)).argmax(dim=1).numpy()
        n_right += int((predicted == classes[part]).sum())
    return n_right / max(1, rows.size)
