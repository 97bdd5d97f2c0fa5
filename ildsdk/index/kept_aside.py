"""Folders inside an index with what a repair had to drop: ours to name, the user's to delete."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ildsdk.index.manifest import FileEntry

_NAME = re.compile(r"damaged-[0-9]{6,12}", re.ASCII)


def kept_aside(folder: Path) -> dict[str, int]:
    """Names of such folders in an index folder, sorted, and the bytes that each holds.

    They belong to no state of the index and may hold items of patients removed since. A folder
    that cannot be read counts as empty.
    """
    found = {}
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if _NAME.fullmatch(path.name) and path.is_dir():
                found[path.name] = _n_bytes(path)
    return found


def _n_bytes(folder: Path) -> int:
    n_bytes = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            n_bytes += path.lstat().st_size
    return n_bytes


def unused_name(folder: Path, number: int) -> str:
    """First name from this number on that is not taken."""
    while (folder / f"damaged-{number:06d}").exists():
        number += 1
    return f"damaged-{number:06d}"


@contextlib.contextmanager
def keeping(aside: Path, files: Sequence[FileEntry]) -> Iterator[None]:
    """Keep files that are about to go in a folder of their own; not where the work inside fails."""
    try:
        aside.mkdir()
        for file in files:
            source = aside.parent / file.file
            if source.exists():
                try:
                    os.link(source, aside / file.file)
                except OSError:  # a file system without links
                    shutil.copy2(source, aside / file.file)
        yield
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
