"""``ildsdk query STUDY``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ildsdk.cli.options import (
    bundle_option,
    explain_option,
    index_option,
    new_path,
    quiet_option,
    runtime_options,
    study_options,
    study_path,
)
from ildsdk.cli.progress import progress_bar
from ildsdk.errors import NoUsableSliceError
from ildsdk.settings import QuerySettings, SearchMode

if TYPE_CHECKING:
    from ildsdk.records import QueryResult
    from ildsdk.retriever import Retriever


@click.command()
@click.argument("study", type=study_path)
@index_option
@bundle_option
@click.option(
    "-n", "--top-n", type=click.IntRange(1, 1000), default=10, show_default=True,
    help="Neighbors per slice and cases in the ranking.",
)  # fmt: skip
@click.option(
    "--format", "output_format", type=click.Choice(["table", "json"]), default="table",
    show_default=True, help="What stands on stdout; JSON is versioned and alone there.",
)  # fmt: skip
@click.option("--report", type=new_path, help="Also write one self-contained HTML page here.")
@explain_option
@study_options
@click.option(
    "--mode", "search_mode", type=click.Choice(get_args(SearchMode)), default="exact",
    show_default=True,
    help="Exact search; fast: looser bounds or sketches, for very large indexes (aims at 99 % of "
    "the exact answer); paper: k = 3 hash buckets (loses neighbors).",
)  # fmt: skip
@click.option(
    "--include-same-patient", is_flag=True,
    help="Do not leave out items of the query's own patient or study.",
)  # fmt: skip
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="End with exit status 6 where the answer takes longer (opening the models not counted).",
)  # fmt: skip
@runtime_options
@quiet_option
def query(
    study: Path,
    index_path: Path | None,
    bundle: Path | None,
    top_n: int,
    output_format: str,
    report: Path | None,
    explain: bool,
    series_uid: str | None,
    every_mm: float,
    search_mode: SearchMode,
    include_same_patient: bool,
    timeout_s: float | None,
    runtime: dict[str, Any],
    quiet: bool,
) -> None:
    """Show the most similar diagnosed cases for a chest CT STUDY.

    STUDY is a folder (nested, any file names), one DICOM file, or a zip. Every file is
    either used or listed with the reason it is not.
    """
    settings = QuerySettings(
        top_n=top_n,
        every_mm=every_mm,
        series_uid=series_uid,
        search_mode=search_mode,
        exclude_same_patient=not include_same_patient,
    )
    run_query(
        study,
        index_path,
        bundle,
        settings,
        output_format,
        report,
        runtime,
        explain=explain,
        quiet=quiet,
        timeout_s=timeout_s,
    )


def run_query(
    study: Path,
    index_path: Path | None,
    bundle: Path | None,
    settings: QuerySettings,
    output_format: str,
    report: Path | None,
    runtime: dict[str, Any],
    *,
    explain: bool,
    quiet: bool,
    timeout_s: float | None = None,
) -> None:
    """Query, print, and write the page; shared with ``ildsdk demo``."""
    if explain and report is None:
        raise click.UsageError("--explain draws maps on the page of --report: name a file for it")
    from ildsdk.retriever import Retriever

    if report is not None:
        _refuse_unwritable(report)
    with Retriever.open(bundle, index_path, **runtime) as retriever:
        try:
            with progress_bar("slice", quiet=quiet) as progress:
                result = retriever.query(
                    study,
                    settings,
                    with_pictures=report is not None,
                    with_maps=explain,
                    progress=progress,
                    timeout_s=timeout_s,
                )
        except NoUsableSliceError as error:
            if output_format == "json":
                # Programs get every file's reason too, beside the exit status.
                empty = retriever.empty_result(settings, error.skipped)
                click.echo(empty.to_json())
            raise
        _print_result(result, output_format)
        if report is not None:
            _write_page(result, report, retriever)


def _print_result(result: QueryResult, output_format: str) -> None:
    if output_format == "json":
        click.echo(result.to_json())
        return
    from ildsdk.reports.text import format_table

    in_color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    click.echo(format_table(result, color=in_color))


def _write_page(result: QueryResult, report: Path, retriever: Retriever) -> None:
    from ildsdk.reports.html import write_html

    write_html(result, report, thumbnails=retriever.thumbnail)
    # As it was typed, but never an absolute path: logs keep stderr.
    shown = report.name if report.is_absolute() else report
    click.echo(f"page written: {shown}", err=True)


def _refuse_unwritable(report: Path) -> None:
    """Say so before the work, not after it, when the page cannot be written."""
    if report.is_dir():
        raise click.BadParameter(
            f"{report.name} is a folder, expected a file name", param_hint="--report"
        )
    if not report.absolute().parent.is_dir():
        raise click.BadParameter(
            f"the folder of {report.name} does not exist", param_hint="--report"
        )
