"""``default-bundle`` and ``install``: what ships inside the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from export.cli.options import FOLDER, say, training_options, training_settings, typed_errors
from ildsdk.settings import MethodSettings


@click.command("default-bundle")
@click.option("--work", type=FOLDER, default=Path("work/default-bundle"), show_default=True)
@click.option("--cases", default=24, show_default=True, help="Phantom cases of each class.")
@click.option("--held-out", default=6, show_default=True, help="Of these, kept out of training.")
@click.option("--phantom-seed", default=1000, show_default=True)
@click.option("--phantom-size", default=512, show_default=True)
@click.option("--difficulty", default=0.5, show_default=True, help="0 (easy) to 1 (hard).")
@click.option("--input-size", default=160, show_default=True, help="Side of the model input.")
@click.option(
    "--index-cases", type=int, help="Indexed cases of each class; default: all trained on."
)
@click.option("--processes", default=2, show_default=True)
@training_options
@typed_errors
def default_bundle(
    work: Path, cases: int, held_out: int, phantom_seed: int, phantom_size: int,
    difficulty: float, input_size: int, index_cases: int | None, processes: int, **options: Any,
) -> None:  # fmt: skip
    """Everything from nothing: phantom, prepare, train, ONNX, evaluate, bundle, index.

    Each stage has its folder in --work and is skipped when complete; a killed run goes on
    where it stopped.
    """
    from export.default_bundle import DefaultBundleSettings, make_default_bundle

    settings = DefaultBundleSettings(
        n_cases_per_label=cases,
        n_held_out_per_label=held_out,
        phantom_seed=phantom_seed,
        phantom_size=phantom_size,
        difficulty=difficulty,
        n_index_cases_per_label=index_cases,
        method=MethodSettings(input_size=input_size),
        training=training_settings(**options),
    )
    folder = make_default_bundle(work, settings, n_processes=processes, say=say)
    click.echo(folder)
    click.echo((work / "evaluation" / "evaluation.md").read_text(encoding="utf-8"))


@click.command()
@click.option("--work", type=FOLDER, default=Path("work/default-bundle"), show_default=True)
@click.option("--data", type=FOLDER, default=Path("ildsdk/data"), show_default=True)
@typed_errors
def install(work: Path, data: Path) -> None:
    """Put a finished default bundle, its index and a demo study into the package."""
    from export.install import install_defaults

    for name, n_bytes in install_defaults(work, data).items():
        click.echo(f"{name}: {n_bytes / 1e6:.1f} MB")
