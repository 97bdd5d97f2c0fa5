"""New files and folders that appear under their name complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ildsdk.errors import ConfigError, IndexFileError
from ildsdk.index.writing import sync_folder


@contextlib.contextmanager
def draft_beside(out: Path) -> Iterator[Path]:
    """Give a path to write a new file or folder to; it is renamed to ``out`` at the end.

    The draft lies in a temporary folder ``.index-*`` beside ``out``, so that the last step is a
    rename on one file system. That folder goes away whatever happens but a kill, after which
    it may be deleted.

    Raises
    ------
    ConfigError
        ``out`` exists already, or its folder cannot be written.
    IndexFileError
        The disk is full, or another system error stopped the work; ``out`` does not exist.
    """
    _refuse_existing(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(prefix=".index-", dir=out.parent)
    except OSError as error:
        raise ConfigError(
            f"the folder of {out.name!r} cannot be written ({error.strerror}); choose another"
        ) from error
    with holder as folder:
        draft = Path(folder) / out.name
        try:
            yield draft
            if draft.is_file():
                with draft.open("rb+") as file:
                    os.fsync(file.fileno())
            _refuse_existing(out)
            draft.rename(out)
            sync_folder(out.parent)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise IndexFileError(
                f"{out.name!r} could not be written: {reason}; nothing was left behind"
            ) from error


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise ConfigError(f"{out.name!r} exists already and is not replaced; choose a new name")
