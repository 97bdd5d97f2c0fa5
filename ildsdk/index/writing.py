"""Writing so that a crash at any moment leaves the last complete state."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ildsdk.errors import IndexFileError
from ildsdk.index.manifest import (
    ARRAYS_NAME,
    HYPERPLANES_NAME,
    ITEMS_NAME,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    read_manifest,
)

LOCK_NAME = "write.lock"
TEMPORARY = ".tmp"
_CHUNK_BYTES = 2**20


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Keep every other writer out of an index folder.

    Raises
    ------
    IndexFileError
        Another writer works, or one was killed and left its lock.
    """
    path = folder / LOCK_NAME
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError as error:
        raise IndexFileError(_lock_message(path)) from error
    except OSError as error:
        raise IndexFileError(f"index cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
        yield
    finally:
        path.unlink(missing_ok=True)


def _lock_message(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        pid, host = int(owner["pid"]), str(owner["host"])[:100]
    except (OSError, ValueError, KeyError, TypeError):
        return (
            f"index is being written by an unknown process; if no writer runs, delete {LOCK_NAME} "
            "in the index folder"
        )
    who = f"process {pid} on host {host!r}"
    if host == socket.gethostname() and _is_gone(pid):
        return (
            f"index was being written by {who}, which no longer runs: delete {LOCK_NAME} in the "
            "index folder (the index itself is complete)"
        )
    return (
        f"index is being written by {who}: wait until it is done; if that process no longer runs, "
        f"delete {LOCK_NAME} in the index folder"
    )


def _is_gone(pid: int) -> bool:
    if os.name != "posix":  # signal 0 would end the process on Windows
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@contextlib.contextmanager
def all_or_nothing(folder: Path, names: list[str]) -> Iterator[None]:
    """Delete the named new files if the work inside fails before the manifest names them.

    Raises
    ------
    IndexFileError
        The disk is full, or another system error stopped the writer.
    """
    try:
        yield
    except BaseException as error:
        unnamed = set(names) - _named_files(folder, names)
        for name in {*unnamed, *(name + TEMPORARY for name in (*names, MANIFEST_NAME))}:
            with contextlib.suppress(OSError):
                (folder / name).unlink(missing_ok=True)
        if isinstance(error, (OSError, sqlite3.Error)):
            reason = getattr(error, "strerror", None) or str(error)
            raise IndexFileError(
                f"index could not be written: {reason}; it holds its last complete state"
            ) from error
        raise


def _named_files(folder: Path, names: list[str]) -> set[str]:
    """Files the manifest on disk relies on; every name where that cannot be told."""
    if not (folder / MANIFEST_NAME).exists():
        return set()
    try:
        return {entry.file for entry in read_manifest(folder).files()}
    except IndexFileError:
        return set(names)


def write_bytes(path: Path, content: bytes) -> FileEntry:
    """Write a file under a temporary name, sync and rename it."""
    temporary = path.with_name(path.name + TEMPORARY)
    with temporary.open("wb") as file:
        file.write(content)
    return publish(temporary)


def publish(temporary: Path) -> FileEntry:
    """Sync a finished ``<name>.tmp`` to disk and give it its name."""
    digest = hashlib.sha256()
    n_bytes = 0
    with temporary.open("rb+") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            n_bytes += len(chunk)
        os.fsync(file.fileno())
    path = temporary.with_name(temporary.name.removesuffix(TEMPORARY))
    os.replace(temporary, path)
    sync_folder(path.parent)
    return FileEntry(file=path.name, n_bytes=n_bytes, sha256=digest.hexdigest())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable (POSIX; elsewhere the system does it)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest: the moment at which an index changes."""
    write_bytes(folder / MANIFEST_NAME, manifest.to_bytes())


def leftovers(folder: Path, manifest: Manifest | None) -> list[str]:
    """Names of files a killed writer left: ours by name, but in no manifest."""
    known = {entry.file for entry in manifest.files()} if manifest else set()
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in known and _is_ours(path.name.removesuffix(TEMPORARY), path.name)
    )


def _is_ours(name: str, full_name: str) -> bool:
    if name == MANIFEST_NAME:
        return full_name != MANIFEST_NAME
    return bool(
        name == HYPERPLANES_NAME or ARRAYS_NAME.fullmatch(name) or ITEMS_NAME.fullmatch(name)
    )


def delete_leftovers(folder: Path, manifest: Manifest | None) -> None:
    """Delete what a killed writer left; the caller holds the lock."""
    for name in leftovers(folder, manifest):
        (folder / name).unlink(missing_ok=True)
