"""Command line of the training side: ``python -m export``."""

from __future__ import annotations

import sys
from functools import wraps
from pathlib import Path
from typing import Any

import click

from export.train_settings import TrainSettings
from ildsdk.errors import ConfigError, IldError
from ildsdk.settings import MethodSettings

_FOLDER = click.Path(file_okay=False, path_type=Path)
_DEFAULTS = TrainSettings()


def _say(line: str) -> None:
    click.echo(line, err=True)


def _typed_errors(command: Any) -> Any:
    """Errors made on purpose become one line and their exit code, as in ``ildsdk``."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except IldError as error:
            _say(f"error: {error}")
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


def _training_options(command: Any) -> Any:
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


def _training(seed: int, schedule: str, fusion_epochs: int, threads: int) -> TrainSettings:
    return TrainSettings(
        seed=seed,
        schedule=_parse_schedule(schedule),
        fusion_epochs=fusion_epochs,
        n_threads=threads,
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make phantom CT, train, export to ONNX and evaluate. Needs torch; run from a checkout."""


@main.command()
@click.argument("out", type=_FOLDER)
@click.option("--cases", default=20, show_default=True, help="Cases of each class.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first case of each class.")
@click.option("--size", default=512, show_default=True, help="Rows and columns of a slice.")
@click.option("--difficulty", default=0.5, show_default=True, help="0 (easy) to 1 (hard).")
@click.option("--processes", default=2, show_default=True)
@_typed_errors
def phantom(out: Path, cases: int, seed: int, size: int, difficulty: float, processes: int) -> None:
    """Write a phantom archive (DICOM, a folder per case, cases.csv) to OUT."""
    from export.phantom import PhantomSettings, write_archive

    n_slices = write_archive(
        out, cases, seed, PhantomSettings(size=size, difficulty=difficulty), processes
    )
    _say(f"{n_slices} slices")


@main.command()
@click.argument("cases_csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=_FOLDER)
@click.option("--input-size", default=160, show_default=True, help="Side of the model input.")
@click.option("--every-mm", default=10.0, show_default=True, help="Slice sampling; 0 takes all.")
@click.option(
    "--engine", type=click.Choice(["fast", "pyradiomics"]), default="fast", show_default=True
)
@click.option("--processes", default=2, show_default=True)
@_typed_errors
def prepare(
    cases_csv: Path, out: Path, input_size: int, every_mm: float, engine: Any, processes: int
) -> None:
    """Turn the archive of CASES_CSV into a training set in OUT; goes on where it stopped.

    CASES_CSV has the columns path, case_id, label and optionally site, verification. What was left
    out, and why, stands in OUT/skipped.csv.
    """
    from export.prepare import archive_sources
    from export.prepare import prepare as run

    slices = run(
        archive_sources(cases_csv, every_mm), out, MethodSettings(input_size=input_size),
        engine=engine, n_processes=processes,
    )  # fmt: skip
    _say(f"{len(slices)} slices of {len(set(slices.case_ids))} cases")


@main.command()
@click.argument("prepared", type=_FOLDER)
@click.argument("out", type=_FOLDER)
@click.option("--test-share", default=0.2, show_default=True, help="Share of cases held out.")
@click.option(
    "--initial-weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="ResNet-50 state dict in torchvision's naming (.pth or .safetensors). Mind its license.",
)
@_training_options
@_typed_errors
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
        _say("initial weights: check that their license allows what you will do with the model")
    trained = run(
        load_slice_set(prepared), out, _training(**options),
        test_share=test_share, initial_weights=initial_weights,
    )  # fmt: skip
    _say(f"held out: {', '.join(trained.held_out_cases)}")


@main.command("export")
@click.argument("prepared", type=_FOLDER)
@click.argument("training", type=_FOLDER)
@click.argument("out", type=_FOLDER)
@click.option("--fp32", is_flag=True, help="Store float32 weights (94 MB instead of 24 MB).")
@_typed_errors
def export_command(prepared: Path, training: Path, out: Path, fp32: bool) -> None:
    """Export the model of TRAINING to ONNX in OUT, checked against torch on PREPARED's slices."""
    from export.dataset import load_slice_set
    from export.default_bundle import export_trained
    from export.train import MODEL_NAME, load_trained

    trained = load_trained(training / MODEL_NAME)
    export_trained(load_slice_set(prepared), trained, out, compress=not fp32, say=_say)


@main.command()
@click.argument("prepared", type=_FOLDER)
@click.argument("training", type=_FOLDER)
@click.argument("onnx_folder", type=_FOLDER)
@click.argument("out", type=_FOLDER)
@click.option("--synthetic", is_flag=True, help="The data are phantoms: the report says so.")
@_typed_errors
def evaluate(prepared: Path, training: Path, onnx_folder: Path, out: Path, synthetic: bool) -> None:
    """Measure retrieval of the exported model on held-out cases; report in OUT."""
    from export.dataset import load_slice_set
    from export.evaluate import evaluate as run
    from export.evaluate import markdown_report
    from export.train import MODEL_NAME, load_trained

    trained = load_trained(training / MODEL_NAME)
    result = run(load_slice_set(prepared), trained, onnx_folder, out, is_synthetic=synthetic)
    click.echo(markdown_report(result))


@main.command()
@click.argument("training", type=_FOLDER)
@click.argument("onnx_folder", type=_FOLDER)
@click.argument("evaluation", type=_FOLDER)
@click.argument("out", type=_FOLDER)
@click.option("--name", required=True, help="Name of the bundle in answers.")
@click.option("--license", "license_name", required=True, help="License of the model.")
@click.option("--intended-use", required=True, help="One sentence; stands in the manifest.")
@click.option("--synthetic", is_flag=True, help="Trained on phantoms: every answer says so.")
@_typed_errors
def bundle(
    training: Path, onnx_folder: Path, evaluation: Path, out: Path, name: str,
    license_name: str, intended_use: str, synthetic: bool,
) -> None:  # fmt: skip
    """Assemble a bundle folder OUT from an exported and evaluated model."""
    from export.default_bundle import assemble_bundle
    from export.train import MODEL_NAME, load_trained
    from ildsdk.settings import settings_from_mapping

    trained = load_trained(training / MODEL_NAME)
    assemble_bundle(
        out, name, trained, onnx_folder, evaluation,
        settings_from_mapping(MethodSettings, trained.description["method"]),
        is_synthetic=synthetic, license=license_name, intended_use=intended_use,
    )  # fmt: skip


@main.command("default-bundle")
@click.option("--work", type=_FOLDER, default=Path("work/default-bundle"), show_default=True)
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
@_training_options
@_typed_errors
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
        training=_training(**options),
    )
    folder = make_default_bundle(work, settings, n_processes=processes, say=_say)
    click.echo(folder)
    click.echo((work / "evaluation" / "evaluation.md").read_text(encoding="utf-8"))


@main.command()
@click.option("--work", type=_FOLDER, default=Path("work/default-bundle"), show_default=True)
@click.option("--data", type=_FOLDER, default=Path("ildsdk/data"), show_default=True)
@_typed_errors
def install(work: Path, data: Path) -> None:
    """Put a finished default bundle, its index and a demo study into the package."""
    from export.install import install_defaults

    for name, n_bytes in install_defaults(work, data).items():
        click.echo(f"{name}: {n_bytes / 1e6:.1f} MB")
