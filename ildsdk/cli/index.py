"""``ildsdk index``: build, add, info, verify; the other commands have files of their own."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ildsdk.cli.index_exchange import export, import_, list_, merge
from ildsdk.cli.index_options import index_folder, tell_kept_aside
from ildsdk.cli.index_upkeep import calibrate, compact, remove, repair
from ildsdk.cli.options import bundle_option, new_path, quiet_option, runtime_options
from ildsdk.cli.progress import progress_bar

if TYPE_CHECKING:
    from ildsdk.ingest import IngestReport

_cases_option = click.option(
    "--cases", "cases_csv", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="Table with columns path, case_id, label and optionally site, verification.",
)  # fmt: skip
_every_mm_option = click.option(
    "--every-mm", type=click.FloatRange(min=0), default=10.0, show_default=True,
    help="Take slices at least this far apart (mm); 0 takes all.",
)  # fmt: skip
_allow_option = click.option(
    "--allow-empty-cases", is_flag=True, help="Go on when a case gives no usable slice."
)

_maps_option = click.option(
    "--maps/--no-maps", "with_maps", default=None,
    help="Keep what draws the activation maps of `query --explain` for indexed slices: 3 to 6 KB a "
    "slice, and about the time of the network once more [default: where the bundle has maps; on "
    "adding, where the index has them].",
)  # fmt: skip


@click.group()
def index() -> None:
    """Build and keep databases of diagnosed cases."""


for _command in (list_, remove, compact, repair, calibrate, export, import_, merge):
    index.add_command(_command)


@index.command()
@click.argument("out", type=new_path)
@_cases_option
@click.option("--synthetic", is_flag=True, help="The cases are phantoms, not patients: say so.")
@click.option("--name", help="Name shown in answers [default: the folder's name].")
@bundle_option
@_every_mm_option
@_allow_option
@_maps_option
@click.option(
    "--threshold-from-bundle",
    is_flag=True,
    help="Take the threshold of 'no similar case' that the bundle measured on held-out cases: "
    "right where the indexed cases were also trained on [default: measured on the index].",
)
@runtime_options
@quiet_option
def build(
    out: Path,
    cases_csv: Path,
    synthetic: bool,
    name: str | None,
    bundle: Path | None,
    every_mm: float,
    allow_empty_cases: bool,
    with_maps: bool | None,
    threshold_from_bundle: bool,
    runtime: dict[str, Any],
    quiet: bool,
) -> None:
    """Build a new index folder OUT from a table of diagnosed cases."""
    from ildsdk import defaults
    from ildsdk.bundle import Bundle
    from ildsdk.ingest import build_index, read_cases_csv
    from ildsdk.settings import RuntimeSettings

    cases = read_cases_csv(cases_csv)
    opened = Bundle.open(bundle or defaults.bundle_path())
    calibration = None
    if threshold_from_bundle:
        calibration = (opened.held_out_threshold, "held-out cases of the bundle's training")
    with progress_bar("case", quiet=quiet) as progress:
        report = build_index(
            out,
            cases,
            opened,
            name=name,
            settings=RuntimeSettings(**runtime),
            every_mm=every_mm,
            allow_empty_cases=allow_empty_cases,
            calibration=calibration,
            with_maps=with_maps,
            is_synthetic=synthetic,
            progress=progress,
        )
    _print_report(report)


@index.command()
@click.argument("folder", type=index_folder)
@_cases_option
@bundle_option
@_every_mm_option
@_allow_option
@_maps_option
@runtime_options
@quiet_option
def add(
    folder: Path,
    cases_csv: Path,
    bundle: Path | None,
    every_mm: float,
    allow_empty_cases: bool,
    with_maps: bool | None,
    runtime: dict[str, Any],
    quiet: bool,
) -> None:
    """Add diagnosed cases to the index FOLDER; readers keep what they opened."""
    from ildsdk import defaults
    from ildsdk.bundle import Bundle
    from ildsdk.index import Index
    from ildsdk.ingest import add_cases, read_cases_csv
    from ildsdk.settings import RuntimeSettings

    cases = read_cases_csv(cases_csv)
    opened = Bundle.open(bundle or defaults.bundle_path())
    with (
        Index.open(folder, expected_bundle_hash=opened.bundle_hash) as target,
        progress_bar("case", quiet=quiet) as progress,
    ):
        report = add_cases(
            target,
            cases,
            opened,
            settings=RuntimeSettings(**runtime),
            every_mm=every_mm,
            allow_empty_cases=allow_empty_cases,
            with_maps=with_maps,
            progress=progress,
        )
    _print_report(report)


@index.command()
@click.argument("folder", type=index_folder, required=False)
def info(folder: Path | None) -> None:
    """Print what an index holds, as JSON [default: the embedded one]."""
    from ildsdk import defaults
    from ildsdk.index import Index

    with Index.open(folder or defaults.index_path()) as opened:
        description = dataclasses.asdict(opened.info())
    click.echo(json.dumps(description, indent=2))


@index.command()
@click.argument("folder", type=index_folder, required=False)
def verify(folder: Path | None) -> None:
    """Read every byte of an index and compare it with its checksums."""
    from ildsdk import defaults
    from ildsdk.errors import IndexFileError
    from ildsdk.index import verify_index

    report = verify_index(folder or defaults.index_path())
    for leftover in report.leftovers:
        click.echo(f"left behind by a killed writer, harmless: {leftover}", err=True)
    tell_kept_aside(report.kept_aside)
    if report.problems:
        problems = "; ".join(report.problems)
        is_none = problems.startswith("no index found")
        raise IndexFileError(problems if is_none else f"index is damaged: {problems}")
    click.echo(f"index is intact: {report.n_items} items in {report.n_files} files")


def _print_report(report: IngestReport) -> None:
    threshold = report.no_match_threshold
    found = "not measured, it needs two cases" if threshold is None else f"{threshold:.4f}"
    click.echo(
        f"{report.n_items} slices of {report.n_cases} cases indexed; threshold of 'no similar "
        f"case': {found}"
    )
    if report.threshold_caution is not None:
        click.echo(report.threshold_caution, err=True)
    if report.n_maps:
        click.echo(f"activation maps kept of {report.n_maps} slices")
    for case_id, items in report.skipped.items():
        counts: dict[str, int] = {}
        for item in items:
            counts[item.reason] = counts.get(item.reason, 0) + 1
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
        click.echo(f"  {case_id}: left out {reasons}", err=True)
    if report.cases_without_items:
        names = ", ".join(report.cases_without_items)
        click.echo(f"cases without a usable slice: {names}", file=sys.stderr)
