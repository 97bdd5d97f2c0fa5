"""``ildsdk doctor``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

from ildsdk.cli.options import engine_folder_option, user_engine_folder


@click.command()
@click.option(
    "--format", "output_format", type=click.Choice(["table", "json"]), default="table",
    show_default=True,
)  # fmt: skip
@engine_folder_option
def doctor(output_format: str, engine_folder: Path | None) -> None:
    """Say what works here: versions, providers, GPU, decoders, caches, embedded data.

    Kernels, networks, data and one whole answer are run, not looked up; each provider and
    precision is compared with the CPU. Exit status 1 where something that must work does not.
    """
    from ildsdk.doctor import run_checks

    checks = run_checks(engine_folder or user_engine_folder())
    if output_format == "json":
        click.echo(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    else:
        for check in checks:
            click.echo(f"{check.status:8}{check.area:10} {check.name}: {check.detail}")
    if any(check.status == "failed" for check in checks):
        sys.exit(1)
