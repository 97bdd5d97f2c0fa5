"""``ildsdk query STUDY``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from ildsdk.cli.answer_output import print_result
from ildsdk.cli.asking import ask_server, socket_options
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
from ildsdk.cli.page import refuse_page, tell_older_page, write_page
from ildsdk.cli.progress import progress_bar
from ildsdk.errors import NoUsableSliceError
from ildsdk.settings import QuerySettings, SearchMode


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
@click.option("--report", type=new_path, help="Also write one self-contained HTML page here; "
              "an older page is replaced.")  # fmt: skip
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
@socket_options
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
    socket_path: Path | None,
    upload: bool,
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
    if socket_path is not None:
        ask_server(socket_path, study, settings, output_format, upload=upload, timeout_s=timeout_s)
        return
    if upload:
        raise click.UsageError("--upload sends the study to a server: name its --socket")
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
        refuse_page(report, study)
    is_written = report is None
    try:
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
                # Programs and readers of the page get every file's reason too, beside the status.
                empty = retriever.empty_result(settings, error.skipped)
                if output_format == "json":
                    click.echo(empty.to_json())
                if report is not None:
                    write_page(empty, report, retriever)
                    is_written = True
                raise
            print_result(result, output_format)
            if report is not None:
                write_page(result, report, retriever)
                is_written = True
    finally:
        if report is not None and not is_written:
            tell_older_page(report)
