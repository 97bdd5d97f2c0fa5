"""``ildsdk bundle info|verify``."""

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
        "files_bytes": {
            path.name: path.stat().st_size for path in (opened.backbone, opened.fusion)
        },
        "figures": opened.figures,
        "provenance": opened.provenance,
    }
    click.echo(json.dumps(description, indent=2))


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
