"""``ildsdk index export|import|merge|list``: what goes out of an index and comes in."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ildsdk.cli.index_options import filter_options, index_folder
from ildsdk.cli.options import existing_path, new_path

if TYPE_CHECKING:
    from ildsdk.index import Index
    from ildsdk.index.filtering import Filter

_LISTED = (
    "item_id", "case_id", "label", "site", "verification", "study_instance_uid",
    "series_instance_uid", "sop_instance_uid", "frame", "position_mm", "added_on",
)  # fmt: skip
_RECOGNIZED = "a query's own patient is recognized by study and case only, not by PatientID"


@click.command("export")
@click.argument("folder", type=index_folder)
@click.argument("out", type=new_path)
@click.option(
    "--with-patient-keys", is_flag=True,
    help="Also write patient keys, their salt and the days of adding, for moving an index.",
)  # fmt: skip
def export(folder: Path, out: Path, with_patient_keys: bool) -> None:
    """Write an index to one new file OUT, .parquet or .npz."""
    from ildsdk.index import Index
    from ildsdk.index.exchange import export_index

    with Index.open(folder) as opened:
        n_items = export_index(opened, out, with_patient_keys=with_patient_keys)
        has_maps = opened.maps_format is not None
    click.echo(f"{n_items} items written to {out.name}")
    if has_maps:
        click.echo(
            "activation maps are not part of the file: what is made from it has none", err=True
        )
    if with_patient_keys:
        click.echo(
            "it holds patient keys and their salt: keep it as safe as the index itself", err=True
        )
    else:
        click.echo(
            f"without patient keys: in an index made from it {_RECOGNIZED} "
            "(--with-patient-keys writes them)",
            err=True,
        )


@click.command("import")
@click.argument("source", type=existing_path)
@click.argument("out", type=new_path)
@click.option("--name", help="Name shown in answers [default: the one in the file].")
def import_(source: Path, out: Path, name: str | None) -> None:
    """Make the new index OUT from a file of `index export`."""
    from ildsdk.index.exchange import import_index

    with import_index(source, out, name=name) as made:
        info = made.info()
    click.echo(f"{info.n_items} items of {info.n_cases} cases imported into {out.name}")
    if info.n_items and not info.n_patients:
        click.echo(f"the file has no patient keys: {_RECOGNIZED}", err=True)


@click.command()
@click.argument("out", type=new_path)
@click.argument("sources", type=index_folder, nargs=-1, required=True)
@click.option("--name", help="Name shown in answers [default: the folder's name].")
@click.option(
    "--on-duplicate", type=click.Choice(["refuse", "skip"]), default="refuse", show_default=True,
    help="What to do with an item that two sources have: stop, or keep the earlier one.",
)  # fmt: skip
@click.option(
    "--case-prefix", "case_prefixes", multiple=True,
    help="Put before the case ids of a source; once per source, in their order.",
)  # fmt: skip
@click.option(
    "--drop-patient-keys", is_flag=True,
    help="Merge indexes of different salts; patients are then recognized by study and case only.",
)  # fmt: skip
def merge(
    out: Path,
    sources: tuple[Path, ...],
    name: str | None,
    on_duplicate: Any,
    case_prefixes: tuple[str, ...],
    drop_patient_keys: bool,
) -> None:
    """Make the new index OUT of several SOURCES.

    They must be built with one bundle, and stay as they are. The threshold of "no similar
    case" is not taken over: measure it with `index calibrate`.
    """
    if len(sources) < 2:
        raise click.UsageError("name at least two indexes to merge")
    if case_prefixes and len(case_prefixes) != len(sources):
        raise click.UsageError(
            f"{len(case_prefixes)} --case-prefix for {len(sources)} sources, expected one each"
        )
    from ildsdk.index.merging import merge_indexes

    report = merge_indexes(
        out,
        sources,
        name=name,
        on_duplicate=on_duplicate,
        case_prefixes=case_prefixes or None,
        drop_patient_keys=drop_patient_keys,
    )
    click.echo(
        f"{report.n_items} items of {report.n_cases} cases from {report.n_sources} indexes merged "
        f"into {out.name}; {report.n_skipped_items} items skipped, {report.n_joined_cases} cases "
        "joined"
    )
    if not report.has_patient_keys:
        click.echo(f"the merged index has no patient keys: {_RECOGNIZED}", err=True)
    if report.n_rehashed_sources:
        click.echo(
            f"{report.n_rehashed_sources} sources have other hyperplanes than the first: all items "
            "are hashed by those of the first, so mode 'paper' may answer otherwise than there",
            err=True,
        )
    if report.n_maps_dropped:
        click.echo(
            f"{report.n_maps_dropped} activation maps left out: the sources' were made with "
            "different graphs and do not compare",
            err=True,
        )
    click.echo(
        "threshold of 'no similar case': not measured; run `ildsdk index calibrate`", err=True
    )


@click.command("list")
@click.argument("folder", type=index_folder, required=False)
@filter_options
@click.option(
    "--format", "output_format", type=click.Choice(["csv", "jsonl"]), default="csv",
    show_default=True, help="A table with a header, or one JSON object per line.",
)  # fmt: skip
def list_(folder: Path | None, item_filter: Filter | None, output_format: str) -> None:
    """Print items, one per line [default: the embedded index]."""
    from ildsdk import defaults
    from ildsdk.index import Index

    with Index.open(folder or defaults.index_path()) as opened:
        excluded = None if item_filter is None else item_filter.excluded_rows(opened)
        listed = _listed(opened, excluded)
        stream = sys.stdout
        if output_format == "csv":
            table = csv.DictWriter(stream, _LISTED, lineterminator="\n")
            table.writeheader()
            table.writerows(listed)
        else:
            for values in listed:
                stream.write(json.dumps(values, ensure_ascii=False) + "\n")
        stream.flush()


def _listed(opened: Index, excluded: Any) -> Iterator[dict[str, Any]]:
    from ildsdk.index.iterating import CHUNK_ROWS, kept_rows

    days = opened.added_on()
    for rows in kept_rows(opened, excluded, CHUNK_ROWS):
        for item, day in zip(opened.items(rows), days[rows].astype(object), strict=True):
            values = {name: getattr(item, name) for name in _LISTED if name != "added_on"}
            yield {**values, "added_on": None if day is None else day.isoformat()}
