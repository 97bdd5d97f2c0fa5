"""Whether the bytes of a file are those that were written."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path

from ildsdk.errors import IndexFileError
from ildsdk.index.manifest import FileEntry

_DAMAGE = {errno.ENOENT, errno.EIO, errno.EISDIR, errno.ELOOP}


def check_readable(folder: Path, entry: FileEntry) -> None:
    """Tell a file the system does not let us read from one that is lost.

    Raises
    ------
    IndexFileError
        No permission, too many open files, or another reason that is no damage.
    """
    try:
        with (folder / entry.file).open("rb") as file:
            file.read(1)
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise IndexFileError(
                f"{entry.file} cannot be read ({error.strerror}), which is no damage: make it "
                "readable and try again"
            ) from error


def file_problems(folder: Path, entry: FileEntry) -> Iterator[str]:
    """Whether a file has other bytes than those that were written."""
    try:
        with (folder / entry.file).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            n_bytes = file.tell()
    except OSError as error:
        yield f"{entry.file} cannot be read: {error.strerror}"
        return
    if n_bytes != entry.n_bytes:
        yield f"{entry.file} has {n_bytes} bytes, expected {entry.n_bytes}"
    elif digest != entry.sha256:
        yield f"{entry.file} does not match its SHA-256"
