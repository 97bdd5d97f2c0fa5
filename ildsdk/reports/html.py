"""One self-contained HTML page for a query: no script, no second file, no network."""

from __future__ import annotations

import contextlib
import datetime
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from ildsdk.errors import ConfigError
from ildsdk.records import QueryResult


def write_html(
    result: QueryResult,
    path: str | os.PathLike[str],
    *,
    thumbnails: Callable[[str], bytes | None],
    generated_at: datetime.datetime | None = None,
) -> None:
    """Write the page of one query, whole or not at all.

    Parameters
    ----------
    result : QueryResult
        What to show; query pictures are taken from ``SliceAnswer.pictures`` where present.
    path : path-like
        The file to write; an existing one is replaced in one step, a link, folder or device
        never.
    thumbnails : callable
        Takes an ``item_id``, gives an encoded PNG, JPEG or WebP picture, or None.
    generated_at : datetime, optional
        Time written on the page; now (UTC) by default.

    Raises
    ------
    ConfigError
        The file cannot be written there, or what lies there is no file. An older file of that
        name is left as it was.
    """
    page = render_html(result, thumbnails=thumbnails, generated_at=generated_at)
    # Sources may hold undecodable file-name bytes (lone surrogates), which UTF-8 refuses.
    _replace_file(Path(path), page.encode("utf-8", errors="replace"))


def render_html(
    result: QueryResult,
    *,
    thumbnails: Callable[[str], bytes | None],
    generated_at: datetime.datetime | None = None,
) -> str:
    """Give the page of :func:`write_html` as text."""
    import jinja2

    from ildsdk.reports import page

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ildsdk.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(page.FILTERS)
    view = page.build_page(result, thumbnails, generated_at or datetime.datetime.now(datetime.UTC))
    return environment.get_template("report.html.jinja").render(page=view)


def _replace_file(path: Path, content: bytes) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ConfigError(
            f"the report {path.name!r} cannot be written: a link, folder or device lies there; "
            "expected a new file or a page to replace"
        )
    # Beside the target, so that the last step is a rename on one file system. A name of our own
    # and plain open() keep the permissions the user's umask asks for (mkstemp would give 0600).
    partial = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(
            f"the report {path.name!r} cannot be written: {why}; "
            "choose a file in a folder that exists and can be written to"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
