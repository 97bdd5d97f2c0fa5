"""What the commands share: folders, typed errors, messages, options of training."""

from __future__ import annotations

import sys
from functools import wraps
from pathlib import Path
from typing import Any

import click

from export.train_settings import CHOICES, TrainSettings
from ildsdk.errors import ConfigError, IldError

FOLDER = click.Path(file_okay=False, path_type=Path)
_DEFAULTS = TrainSettings()


def say(line: str) -> None:
    """One line on stderr; stdout is for results."""
    click.echo(line, err=True)


def typed_errors(command: Any) -> Any:
    """Errors made on purpose become one line and their exit code, as in ``ildsdk``."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except IldError as error:
            say(f"error: {error}")
            sys.exit(error.exit_code)

    return run


def _parse_schedule(text: str) -> tuple[tuple[int, int], ...]:
    try:
        pairs = [entry.split("x") for entry in text.split(",")]
        return tuple((int(side), int(epochs)) for side, epochs in pairs)
    except ValueError as error:
        raise ConfigError(
            f"schedule is {text!r}, expected SIDExEPOCHS[,SIDExEPOCHS...], for example 112x10,160x3"
        ) from error


def _with(options: tuple[Any, ...], command: Any) -> Any:
    for option in reversed(options):  # the last one applied stands first in the help
        command = option(command)
    return command


def training_options(command: Any) -> Any:
    """Add the options of :func:`training_settings` to a command."""
    options = (
        click.option("--seed", default=_DEFAULTS.seed, show_default=True, help="Seed of training."),
        click.option(
            "--schedule",
            default=",".join(f"{side}x{epochs}" for side, epochs in _DEFAULTS.schedule),
            show_default=True,
            help="Stage 1: input side x epochs, in order.",
        ),
        click.option(
            "--fusion-epochs", default=_DEFAULTS.fusion_epochs, show_default=True,
            help="Stage 2: epochs of contrastive training.",
        ),
        click.option(
            "--threads", default=_DEFAULTS.n_threads, show_default=True, help="Threads of torch."
        ),
    )  # fmt: skip
    return _with(options, command)


def _choice(name: str, *more: str) -> click.Choice[str]:
    return click.Choice([*CHOICES[name], *more])


def recipe_options(command: Any) -> Any:
    """The options of :func:`training_options` and the rest of the recipe."""
    options = (
        click.option(
            "--precision", type=_choice("precision", "auto"), default=_DEFAULTS.precision,
            show_default=True,
            help="Of the convolutions; auto takes bfloat16 where the processor has instructions "
            "for it (without them it is many times slower).",
        ),
        click.option(
            "--device", type=_choice("device"), default=_DEFAULTS.device, show_default=True
        ),
        click.option(
            "--deterministic/--any-order", default=_DEFAULTS.deterministic, show_default=True,
            help="Refuse operations whose result varies from run to run.",
        ),
        click.option(
            "--patience", default=_DEFAULTS.patience, show_default=True,
            help="Early stopping: epochs without a better validation figure; 0 is off.",
        ),
        click.option(
            "--validation-share", default=_DEFAULTS.validation_share, show_default=True,
            help="Share of each class's TRAINING cases set aside for early stopping.",
        ),
        click.option(
            "--optimizer", type=_choice("optimizer"), default=_DEFAULTS.optimizer,
            show_default=True, help="Of stage 1; stage 2 takes Adam.",
        ),
        click.option(
            "--batch-size", default=_DEFAULTS.batch_size, show_default=True,
            help="Slices in a batch of stage 1.",
        ),
        click.option(
            "--learning-rate", default=_DEFAULTS.learning_rate, show_default=True,
            help="Of stage 1.",
        ),
        click.option(
            "--weight-decay", default=_DEFAULTS.weight_decay, show_default=True, help="Of stage 1."
        ),
        click.option(
            "--lr-schedule", type=_choice("lr_schedule"), default=_DEFAULTS.lr_schedule,
            show_default=True, help="Learning rate over stage 1.",
        ),
        click.option(
            "--loss", type=_choice("loss"), default=_DEFAULTS.loss, show_default=True,
            help="Of stage 2: eqs. 4-5 of the paper, SupCon, or one of pytorch-metric-learning.",
        ),
        click.option(
            "--margin", default=_DEFAULTS.margin, show_default=True,
            help="Of the contrastive and the triplet loss.",
        ),
        click.option(
            "--partners", type=_choice("partners"), default=_DEFAULTS.partners, show_default=True,
            help="Stage 2: positive and negatives of a query from its batch, or from the whole "
            "training set as the paper words it (N + 1 forward passes a query).",
        ),
        click.option(
            "--fusion-per-class", default=_DEFAULTS.fusion_per_class, show_default=True,
            help="Stage 2: slices of each class in a batch (the paper's 8 of 4 classes: 2).",
        ),
        click.option(
            "--fusion-learning-rate", default=_DEFAULTS.fusion_learning_rate, show_default=True,
            help="Of stage 2.",
        ),
        click.option(
            "--fusion-lr-schedule", type=_choice("fusion_lr_schedule"),
            default=_DEFAULTS.fusion_lr_schedule, show_default=True,
            help="Learning rate over stage 2.",
        ),
        click.option(
            "--embedding-size", default=_DEFAULTS.embedding_size, show_default=True,
            help="Length of the embedding.",
        ),
        click.option(
            "--tensorboard", is_flag=True,
            help="Also log for TensorBoard (needs the package tensorboard).",
        ),
    )  # fmt: skip
    return training_options(_with(options, command))


def training_settings(
    seed: int, schedule: str, fusion_epochs: int, threads: int, **recipe: Any
) -> TrainSettings:
    """Settings from the values of :func:`training_options` or :func:`recipe_options`."""
    return TrainSettings(
        seed=seed,
        schedule=_parse_schedule(schedule),
        fusion_epochs=fusion_epochs,
        n_threads=threads,
        **recipe,
    )
