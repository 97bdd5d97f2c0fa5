"""``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from export.cli.options import FOLDER, say, training_options, training_settings, typed_errors


@click.command()
@click.argument("prepared", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--test-share", default=0.2, show_default=True, help="Share of cases held out.")
@click.option(
    "--initial-weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="ResNet-50 state dict in torchvision's naming (.pth or .safetensors). Mind its license.",
)
@training_options
@typed_errors
def train(
    prepared: Path, out: Path, test_share: float, initial_weights: Path | None, **options: Any
) -> None:
    """Train backbone and fusion net on PREPARED into OUT; goes on where it stopped.

    Stage 1 trains ResNet-50 + GeM to classify, stage 2 trains ILD-FFN (and the backbone's last
    block) with the contrastive loss. Cases, not slices, are held out. Logs: OUT/backbone.csv and
    OUT/fusion.csv.
    """
    from export.dataset import load_slice_set
    from export.train import train as run

    if initial_weights is not None:
        say("initial weights: check that their license allows what you will do with the model")
    trained = run(
        load_slice_set(prepared), out, training_settings(**options),
        test_share=test_share, initial_weights=initial_weights,
    )  # fmt: skip
    say(f"held out: {', '.join(trained.held_out_cases)}")
