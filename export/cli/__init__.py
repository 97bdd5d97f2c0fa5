"""Command line of the training side: ``python -m export``; one file per group of commands."""

from __future__ import annotations

import click

from export.cli.bundling import bundle, evaluate, export_command
from export.cli.data import check_leaks, phantom, phantom_figure, prepare
from export.cli.embedded import default_bundle, input_sizes, install
from export.cli.experiment import experiment
from export.cli.explaining import pointing
from export.cli.quantizing import add_int8, quantize
from export.cli.reporting import report
from export.cli.training import train
from export.cli.triton import triton


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make phantom CT, train, export to ONNX and evaluate. Needs torch; run from a checkout."""


for command in (
    phantom,
    phantom_figure,
    prepare,
    check_leaks,
    train,
    experiment,
    export_command,
    evaluate,
    report,
    bundle,
    quantize,
    add_int8,
    default_bundle,
    input_sizes,
    install,
    pointing,
    triton,
):
    main.add_command(command)
