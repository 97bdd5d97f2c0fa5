"""Options of commands that work on an index: its folder, and which of its items."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

index_folder = click.Path(exists=True, file_okay=False, path_type=Path)

_DAY = click.DateTime(formats=["%Y-%m-%d"])


def tell_kept_aside(names: Iterable[str]) -> None:
    """Name the folders with what repairs dropped, which no command deletes."""
    for name in names:
        click.echo(
            f"{name} inside the index holds damaged files that a repair put aside, perhaps with "
            "data of removed patients; delete that folder once nobody wants them, no command does",
            err=True,
        )


def filter_options(command: CommandT) -> CommandT:
    """``--label``, ``--site``, ``--case``, ``--added-from``, ``--added-until``.

    They come as ``item_filter=Filter(...)``, None where none is given.
    """

    @click.option("--label", "labels", multiple=True, help="Only this diagnosis; repeatable.")
    @click.option("--site", "sites", multiple=True, help="Only from this site; repeatable.")
    @click.option("--case", "case_ids", multiple=True, help="Only this case id; repeatable.")
    @click.option(
        "--added-from", type=_DAY, help="Only items added to the index on this day (UTC) or later."
    )
    @click.option("--added-until", type=_DAY, help="Only items added on this day (UTC) or earlier.")
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        labels: tuple[str, ...],
        sites: tuple[str, ...],
        case_ids: tuple[str, ...],
        added_from: datetime.datetime | None,
        added_until: datetime.datetime | None,
        **kwargs: Any,
    ) -> Any:
        given = {
            "labels": labels or None,
            "sites": sites or None,
            "case_ids": case_ids or None,
            "added_from": added_from and added_from.date(),
            "added_until": added_until and added_until.date(),
        }
        item_filter = None
        if any(value is not None for value in given.values()):
            from ildsdk.index.filtering import Filter

            try:
                item_filter = Filter(**given)  # type: ignore[arg-type]
            except ValueError as error:
                raise click.UsageError(str(error)) from error
        return command(*args, item_filter=item_filter, **kwargs)

    return wrapped  # type: ignore[return-value]
