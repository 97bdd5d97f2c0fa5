"""Whether the bytes of a file are those that were written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ildsdk.index.manifest import FileEntry


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
