"""``export``, ``evaluate`` and ``bundle``: from a trained model to a bundle folder."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli.options import FOLDER, say, typed_errors
from ildsdk.settings import MethodSettings


@click.command("export")
@click.argument("prepared", type=FOLDER)
@click.argument("training", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--fp32", is_flag=True, help="Store float32 weights (94 MB instead of 24 MB).")
@typed_errors
def export_command(prepared: Path, training: Path, out: Path, fp32: bool) -> None:
    """Export the model of TRAINING to ONNX in OUT, checked against torch on PREPARED's slices.

    OUT gets backbone.onnx, fusion.onnx and explain.onnx (activation maps), or none of them where
    one differs from torch. PREPARED is the set that the model was trained with.
    """
    from export.bundling import export_trained
    from export.dataset import load_slice_set
    from export.train import MODEL_NAME, load_trained

    trained = load_trained(training / MODEL_NAME)
    export_trained(load_slice_set(prepared), trained, out, compress=not fp32, say=say)


@click.command()
@click.argument("prepared", type=FOLDER)
@click.argument("training", type=FOLDER)
@click.argument("onnx_folder", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--synthetic", is_flag=True, help="The data are phantoms: the report says so.")
@typed_errors
def evaluate(prepared: Path, training: Path, onnx_folder: Path, out: Path, synthetic: bool) -> None:
    """Measure retrieval of the exported model on held-out cases; report in OUT."""
    from export.dataset import load_slice_set
    from export.evaluate import evaluate as run
    from export.evaluate import markdown_report
    from export.train import MODEL_NAME, load_trained

    trained = load_trained(training / MODEL_NAME)
    result = run(load_slice_set(prepared), trained, onnx_folder, out, is_synthetic=synthetic)
    click.echo(markdown_report(result))


@click.command()
@click.argument("training", type=FOLDER)
@click.argument("onnx_folder", type=FOLDER)
@click.argument("evaluation", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--name", required=True, help="Name of the bundle in answers.")
@click.option("--license", "license_name", required=True, help="License of the model.")
@click.option("--intended-use", required=True, help="One sentence; stands in the manifest.")
@click.option("--synthetic", is_flag=True, help="Trained on phantoms: every answer says so.")
@typed_errors
def bundle(
    training: Path, onnx_folder: Path, evaluation: Path, out: Path, name: str,
    license_name: str, intended_use: str, synthetic: bool,
) -> None:  # fmt: skip
    """Assemble a bundle folder OUT, model card included, from an exported and evaluated model."""
    from export.bundling import assemble_bundle
    from export.train import MODEL_NAME, load_trained
    from ildsdk.settings import settings_from_mapping

    trained = load_trained(training / MODEL_NAME)
    assemble_bundle(
        out, name, trained, onnx_folder, evaluation,
        settings_from_mapping(MethodSettings, trained.description["method"]),
        is_synthetic=synthetic, license=license_name, intended_use=intended_use,
    )  # fmt: skip
