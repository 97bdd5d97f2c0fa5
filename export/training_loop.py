"""The loop of both stages: epochs, checkpoints, early stopping, resume."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from export.checkpoints import Checkpoint, Entry
from export.train_settings import TrainSettings
from ildsdk.errors import ConfigError

_WARMUP_SHARE = 0.15
# What one epoch, or one measurement, adds to the log.
EpochFunction = Callable[[int], Entry]
# Compared from the left: the figure, then what decides where figures are equal.
Score = tuple[float, ...]


def prepare_torch(settings: TrainSettings) -> None:
    """Seed, threads and determinism of this process, from the settings."""
    torch.set_num_threads(settings.n_threads)
    torch.use_deterministic_algorithms(settings.deterministic)
    # Its companion that fills fresh memory costs time and finds only bugs of torch itself.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(settings.seed)
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but torch finds no CUDA device here")


def learning_rate_factor(kind: str, step: int, n_steps: int) -> float:
    """Factor of the learning rate at a step (from 0): see ``TrainSettings.lr_schedule``."""
    position = (step + 0.5) / n_steps
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * position))
    if position < _WARMUP_SHARE:
        return position / _WARMUP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (position - _WARMUP_SHARE) / (1 - _WARMUP_SHARE)))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale each group's own ``base_lr``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def run_epochs(
    checkpoint: Checkpoint,
    modules: Mapping[str, nn.Module],
    make_optimizer: Callable[[], torch.optim.Optimizer],
    n_epochs: int,
    *,
    train_epoch: Callable[[int, torch.optim.Optimizer], Entry],
    measure: Callable[[int], tuple[Entry, Score | None]],
    patience: int = 0,
    before_first: Callable[[], None] = lambda: None,
) -> None:
    """Train ``modules`` in place; go on from the checkpoint where there is one.

    After the last epoch the checkpoint shrinks to the chosen weights, without the optimizer.

    Parameters
    ----------
    modules : mapping
        Name to module: everything with weights that the stage changes.
    make_optimizer : callable
        Called only if there is something left to train.
    train_epoch : callable
        ``(epoch, optimizer) -> entry``. Its randomness must depend on seed and epoch only: that
        makes a resumed run equal to an uninterrupted one.
    measure : callable
        ``epoch -> (entry, score)``; a higher score is better, None: not measured.
    patience : int
        Stop after so many epochs without a better score and keep the best epoch's weights.
    before_first : callable
        Runs once, before the first epoch of a new run.

    Raises
    ------
    ConfigError
        The checkpoint is of another run, or the loss is not finite.
    """
    state = checkpoint.load()
    if state is not None and state["is_finished"]:
        _restore(modules, state["weights"])
        return
    optimizer = make_optimizer()
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    first_epoch, best = 0, None
    if state is None:
        before_first()
    else:
        _restore(modules, state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        first_epoch, best = state["epoch"] + 1, state["best"]
    for epoch in range(first_epoch, n_epochs):
        if patience and best is not None and epoch - 1 - best["epoch"] >= patience:
            break
        started = time.perf_counter()
        entry: Entry = {"epoch": epoch + 1, **train_epoch(epoch, optimizer)}
        loss = entry["loss"]
        if not (isinstance(loss, float) and math.isfinite(loss)):
            raise ConfigError(
                f"the loss of epoch {epoch + 1} is {loss}: training diverged, the checkpoint holds "
                "the epoch before; use a smaller learning rate and another folder"
            )
        figures, score = measure(epoch)
        entry |= figures
        weights = {name: module.state_dict() for name, module in modules.items()}
        if patience:
            if score is None:
                raise ValueError("early stopping needs a score in every epoch")
            if best is None or score > tuple(best["score"]):
                best = {"epoch": epoch, "score": score, "weights": copy.deepcopy(weights)}
        entry["seconds"] = round(time.perf_counter() - started, 1)
        checkpoint.save(
            {
                "is_finished": False,
                "weights": weights,
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
                "best": best,
            },
            entry,
        )
    if best is not None:
        _restore(modules, best["weights"])
    final: dict[str, Any] = {name: module.state_dict() for name, module in modules.items()}
    checkpoint.save(
        {
            "is_finished": True,
            "weights": final,
            "kept_epoch": n_epochs if best is None else best["epoch"] + 1,
        },
        None,
    )


def _restore(modules: Mapping[str, nn.Module], weights: Mapping[str, Any]) -> None:
    for name, module in modules.items():
        module.load_state_dict(weights[name])
