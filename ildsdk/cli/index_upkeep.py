"""``ildsdk index remove|compact|repair|calibrate``: an index over the years."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ildsdk.cli.index_options import index_folder, tell_kept_aside

if TYPE_CHECKING:
    from ildsdk.index import Index


@click.command()
@click.argument("folder", type=index_folder)
@click.option("--item", "item_ids", multiple=True, help="Item id to remove; repeatable.")
@click.option("--case", "case_ids", multiple=True, help="Case to remove whole; repeatable.")
@click.option("--dry-run", is_flag=True, help="Only say how many items would be removed.")
def remove(
    folder: Path, item_ids: tuple[str, ...], case_ids: tuple[str, ...], dry_run: bool
) -> None:
    """Remove items or whole cases from an index.

    All that are named go, or none. They are in no answer from then on, but stay in the files
    until `index compact`.
    """
    if not item_ids and not case_ids:
        raise click.UsageError("name at least one --item or --case")
    from ildsdk.index import Index

    with Index.open(folder) as opened:
        if dry_run:
            n_named = _n_named(opened, set(item_ids), set(case_ids))
            click.echo(
                f"{n_named} items would be removed, {len(opened) - n_named} be left; nothing was "
                "changed"
            )
            return
        n_removed = opened.remove(item_ids=item_ids, case_ids=case_ids)
        n_left, threshold = len(opened), opened.no_match_threshold
    click.echo(f"{n_removed} items removed, {n_left} left")
    click.echo("their data stay in the files until `ildsdk index compact`", err=True)
    if threshold is not None:
        click.echo(
            "the threshold of 'no similar case' is the one measured before; "
            "`ildsdk index calibrate` measures it anew",
            err=True,
        )


def _n_named(opened: Index, item_ids: set[str], case_ids: set[str]) -> int:
    """Items a removal would take; names the index does not have are refused as removing does."""
    from ildsdk.errors import InputError
    from ildsdk.index.iterating import CHUNK_ROWS, kept_rows

    n_named, unknown_items, unknown_cases = 0, set(item_ids), set(case_ids)
    for rows in kept_rows(opened, None, CHUNK_ROWS):
        for item in opened.items(rows):
            n_named += item.item_id in item_ids or item.case_id in case_ids
            unknown_items.discard(item.item_id)
            unknown_cases.discard(item.case_id)
    if unknown_items or unknown_cases:
        raise InputError(
            f"{len(unknown_items)} items and {len(unknown_cases)} cases that were named are not in "
            f"the index (for example {min(unknown_items or unknown_cases)!r}); nothing would be "
            "removed"
        )
    return n_named


@click.command()
@click.argument("folder", type=index_folder)
@click.option(
    "--into-one", is_flag=True,
    help="Join all segments, large ones too: searches are fastest in one.",
)  # fmt: skip
def compact(folder: Path, into_one: bool) -> None:
    """Drop removed items from the files, join small segments."""
    from ildsdk.index import Index

    with Index.open(folder) as opened:
        report = opened.compact(into_one=into_one)
    click.echo(
        f"{report.n_rows_dropped} removed items dropped, {report.n_segments_before} segments are "
        f"{report.n_segments_after} now, {report.n_bytes_before} bytes {report.n_bytes_after}"
    )
    tell_kept_aside(report.kept_aside)


@click.command()
@click.argument("folder", type=index_folder)
def repair(folder: Path) -> None:
    """Repair a damaged index, dropping only what is lost."""
    from ildsdk.index.kept_aside import kept_aside
    from ildsdk.index.repairing import repair_index

    report = repair_index(folder)
    for repaired in report.repaired:
        click.echo(f"repaired: {repaired}")
    for loss in report.losses:
        click.echo(f"{loss.n_items} items lost: {loss.reason}", err=True)
    tell_kept_aside(kept_aside(folder))
    if not report.is_changed:
        click.echo("nothing to repair")
    click.echo(f"{report.n_items} items in the index, {report.n_items_lost} lost")


@click.command()
@click.argument("folder", type=index_folder)
def calibrate(folder: Path) -> None:
    """Measure the threshold of "no similar case" anew.

    One case is left out at a time; it takes as long as searching all items once.
    """
    from ildsdk.index import Index
    from ildsdk.index.threshold import calibrate as measured

    with Index.open(folder) as opened:
        threshold, how = measured(opened)
        opened.set_calibration(threshold, how)
        caution = opened.info().threshold_caution
    found = "not measured" if threshold is None else f"{threshold:.4f}"
    click.echo(f"threshold of 'no similar case': {found} ({how})")
    if caution is not None:
        click.echo(caution, err=True)
