"""``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from export.cli.options import FOLDER, recipe_options, say, training_settings, typed_errors
from export.systems import SYSTEMS
from ildsdk.errors import ConfigError

_SYSTEM_LINES = "\n".join(
    f"  {system.name:13} {about}"
    for system, about in zip(
        SYSTEMS.values(),
        (
            "VGG-16 (with batch norm), searched by its pooled deep features",
            "AlexNet, likewise",
            "ResNet-50, likewise",
            "standardised radiomics alone; nothing but the scaler is fitted",
            "ResNet-50, then a linear head by the contrastive loss",
            "ResNet-50, then ILD-FFN by the contrastive loss: what a bundle holds",
        ),
        strict=True,
    )
)


@click.command(
    help=f"""Train one system on PREPARED into OUT, a folder.

Stage 1 trains the backbone with GeM pooling and a linear classifier. Stage 2, of the systems that
end in -scl, trains a head and the backbone's last block by the contrastive loss.

\b
Systems (--system):
{_SYSTEM_LINES}

What is held out: whole cases, never slices. --test-share of each class's cases are the test cases:
nothing is learned from them and nothing chosen by them. Their figures stand in the logs under
names that end in "for_information". With --patience a further share of the TRAINING cases is set
aside (--validation-share), and the epoch that is best on these is kept.

Resume: run the same command again. After a kill at any moment it goes on at the last finished
epoch, and with --deterministic it ends with the very same weights. Other settings or data in the
same OUT are refused; a finished stage is only read.

\b
In OUT:
  classify.pt, classify.csv   checkpoint and log of stage 1, one line an epoch
  contrast.pt, contrast.csv   of stage 2
  maps.npy                    feature maps that stage 2 trains on; may be deleted afterwards
  tensorboard/                with --tensorboard
  model.pt                    the trained system
"""
)
@click.argument("prepared", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--system",
    "system_name",
    type=click.Choice(list(SYSTEMS)),
    default="ild-ffn-scl",
    show_default=True,
    help="What to train, see above.",
)
@click.option(
    "--test-share", default=0.2, show_default=True, help="Share of each class's cases held out."
)
@click.option(
    "--initial-weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="State dict of the backbone in torchvision's naming (.pth or .safetensors; VGG: vgg16_bn) "
    "to start from instead of random weights. Mind its license.",
)
@recipe_options
@typed_errors
def train(
    prepared: Path,
    out: Path,
    system_name: str,
    test_share: float,
    initial_weights: Path | None,
    **options: Any,
) -> None:
    """See the help text above: it names the systems from their table."""
    from export.dataset import load_slice_set
    from export.train import split_and_train

    if initial_weights is not None:
        say("initial weights: check that their license allows what you will do with the model")
    slices, settings = load_slice_set(prepared), training_settings(**options)
    last_side = settings.schedule[-1][0]
    if last_side != slices.method.input_size:
        raise ConfigError(
            f"the schedule ends at {last_side} px, but PREPARED was made for an input of "
            f"{slices.method.input_size} px: a network is used at the size it was trained at last"
        )
    trained = split_and_train(
        slices, out, settings,
        system=SYSTEMS[system_name], test_share=test_share, initial_weights=initial_weights,
    )  # fmt: skip
    if trained.validation_cases:
        say(f"validation (early stopping): {', '.join(trained.validation_cases)}")
    say(f"held out: {', '.join(trained.held_out_cases)}")
