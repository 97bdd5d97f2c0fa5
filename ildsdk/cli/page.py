"""The page of ``--report``: what it must not replace, said before the work and not after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ildsdk.records import QueryResult
    from ildsdk.retriever import Retriever

_HINT = "--report"


def refuse_page(report: Path, study: Path) -> None:
    """Refuse a page that cannot be written, or that would take the place of something else.

    Raises
    ------
    click.BadParameter
        ``-``, a folder, a link, a device, the study itself or a file in it, or a folder that does
        not exist.
    """
    if str(report) == "-":
        raise click.BadParameter(
            "the page goes into a file, stdout holds the answer: name a file", param_hint=_HINT
        )
    if report.is_symlink() or (report.exists() and not report.is_file()):
        kind = "link" if report.is_symlink() else "folder" if report.is_dir() else "device or pipe"
        raise click.BadParameter(
            f"{report.name} is a {kind}, expected a new file or a page to replace", param_hint=_HINT
        )
    if not report.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder of {report.name} does not exist", param_hint=_HINT)
    if _is_part_of(report, study):
        raise click.BadParameter(
            f"{report.name} is the study or lies in its folder: the page would replace images, or "
            "be read as one next time; choose a file elsewhere",
            param_hint=_HINT,
        )


def _is_part_of(report: Path, study: Path) -> bool:
    place, whole = report.resolve(), study.resolve()
    if place == whole or whole in place.parents:
        return True
    # A hard link, or another spelling on a file system that ignores case.
    return report.exists() and study.exists() and report.samefile(study)


def write_page(result: QueryResult, report: Path, retriever: Retriever) -> None:
    """Write the page and say so on stderr."""
    from ildsdk.reports.html import write_html

    write_html(result, report, thumbnails=retriever.thumbnail)
    # As it was typed, but never an absolute path: logs keep stderr.
    shown = report.name if report.is_absolute() else report
    click.echo(f"page written: {shown}", err=True)


def tell_older_page(report: Path) -> None:
    """Say so where a query that failed leaves an older page, perhaps of another patient."""
    if report.exists():
        click.echo(f"no page written: {report.name} is an older one, not of this query", err=True)
