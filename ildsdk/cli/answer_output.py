"""An answer on stdout, wherever it was computed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ildsdk.records import QueryResult


def print_result(result: QueryResult, output_format: str) -> None:
    """Print an answer on stdout, as a table or as JSON."""
    if output_format == "json":
        click.echo(result.to_json())
        return
    from ildsdk.reports.text import format_table

    in_color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    click.echo(format_table(result, color=in_color))
