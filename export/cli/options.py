"""What the commands share: folders, typed errors, messages, options of training."""

from __future__ import annotations

import sys
from functools import wraps
from pathlib import Path
from typing import Any

import click

from export.train_settings import TrainSettings
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


def training_options(command: Any) -> Any:
    """Add the options of :func:`training_settings` to a command."""
    for option in (
        click.option("--seed", default=_DEFAULTS.seed, show_default=True, help="Seed of training."),
        click.option(
            "--schedule",
            default=",".join(f"{side}x{epochs}" for side, epochs in _DEFAULTS.schedule),
            show_default=True,
            help="Backbone training: input side x epochs, in order.",
        ),
        click.option(
            "--fusion-epochs", default=_DEFAULTS.fusion_epochs, show_default=True,
            help="Epochs of contrastive training.",
        ),
        click.option(
            "--threads", default=_DEFAULTS.n_threads, show_default=True, help="Threads of torch."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def training_settings(seed: int, schedule: str, fusion_epochs: int, threads: int) -> TrainSettings:
    """Settings from the values of :func:`training_options`."""
    return TrainSettings(
        seed=seed,
        schedule=_parse_schedule(schedule),
        fusion_epochs=fusion_epochs,
        n_threads=threads,
    )
