"""``ildsdk demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ildsdk.cli.options import explain_option, quiet_option, runtime_options
from ildsdk.cli.query import run_query
from ildsdk.settings import QuerySettings


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for the page.",
)
@click.option(
    "--format", "output_format", type=click.Choice(["table", "json"]), default="table",
    show_default=True,
)  # fmt: skip
@explain_option
@runtime_options
@quiet_option
def demo(
    out: Path, output_format: str, explain: bool, runtime: dict[str, Any], quiet: bool
) -> None:
    """Query the embedded phantom study with the embedded bundle and index.

    Everything in it is synthetic: it shows what the software does, not how well it would do on
    patients.
    """
    from ildsdk import defaults

    study = defaults.demo_study_path()
    out.mkdir(parents=True, exist_ok=True)
    run_query(
        study,
        None,
        None,
        QuerySettings(),
        output_format,
        out / "report.html",
        runtime,
        explain=explain,
        quiet=quiet,
    )
