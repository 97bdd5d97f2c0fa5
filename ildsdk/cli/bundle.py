"""``ildsdk bundle info|card|verify``."""

from __future__ import annotations

import json
from pathlib import Path

import click

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def bundle() -> None:
    """Look at and check model bundles."""


@bundle.command()
@click.argument("folder", type=_FOLDER, required=False)
def info(folder: Path | None) -> None:
    """Print what a bundle is, as JSON [default: the embedded one]."""
    from ildsdk import defaults
    from ildsdk.bundle import Bundle

    opened = Bundle.open(folder or defaults.bundle_path())
    description = {
        "name": opened.name,
        "bundle_hash": opened.bundle_hash,
        "is_synthetic": opened.is_synthetic,
        "intended_use": opened.intended_use,
        "license": opened.license,
        "labels": opened.labels,
        "input_size": opened.method.input_size,
        "window_center_hu": opened.method.window_center_hu,
        "window_width_hu": opened.method.window_width_hu,
        "embedding_size": opened.embedding_size,
        "gem_p": opened.gem_p,
        "n_features": len(opened.feature_names),
        "default_precision": opened.default_precision,
        "int8_agreement": opened.int8_agreement,
        "has_maps": opened.explain is not None,
        "has_model_card": opened.has_model_card,
        "files_bytes": {
            path.name: path.stat().st_size
            for path in (
                opened.backbone,
                opened.backbone_int8,
                opened.backbone_int8_symmetric,
                opened.fusion,
                opened.explain,
            )
            if path is not None
        },
        "figures": opened.figures,
        "provenance": opened.provenance,
    }
    click.echo(json.dumps(description, indent=2))


@bundle.command()
@click.argument("folder", type=_FOLDER, required=False)
def card(folder: Path | None) -> None:
    """Print the model card: purpose, data, figures, limits [default: the embedded bundle's]."""
    from ildsdk import defaults
    from ildsdk.bundle import Bundle
    from ildsdk.errors import ConfigError

    opened = Bundle.open(folder or defaults.bundle_path())
    text = opened.model_card()
    if text is None:
        raise ConfigError(
            f"bundle {opened.name!r} has no model card; `ildsdk bundle info` prints what it says "
            "of itself"
        )
    # Whoever made the bundle wrote it: nothing in it may steer the terminal.
    shown = "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
    click.echo(shown, nl=not shown.endswith("\n"))


@bundle.command()
@click.argument("folder", type=_FOLDER, required=False)
def verify(folder: Path | None) -> None:
    """Check manifest, checksums and model contract, and run the models once on the CPU."""
    from ildsdk import defaults
    from ildsdk.bundle import Bundle
    from ildsdk.encoder import Encoder
    from ildsdk.settings import RuntimeSettings

    opened = Bundle.open(folder or defaults.bundle_path())
    Encoder(opened, RuntimeSettings(provider="cpu")).self_test()
    click.echo(f"bundle {opened.name} is intact: {opened.bundle_hash}")
