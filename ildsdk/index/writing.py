"""Writing so that a crash at any moment leaves the last complete state."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from ildsdk.errors import IndexFileError
from ildsdk.index.manifest import (
    COPY_NAME,
    HYPERPLANES_NAME,
    KINDS,
    MANIFEST_NAME,
    DamagedManifestError,
    FileEntry,
    Manifest,
    file_name,
    is_file_name,
    read_manifest,
)

TEMPORARY = ".tmp"
SCRATCH_NAME = "repair.tmp"  # folder of items a repair salvages
_CHUNK_BYTES = 2**20


class NewFile:
    """A file that is written under a temporary name and gets its own when it is complete.

    Parameters
    ----------
    path : Path
        Its name to be; an older file of that name is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + TEMPORARY)
        self._file = self._temporary.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self.n_bytes = 0

    def write(self, content: bytes | memoryview) -> None:
        """Append bytes."""
        view = memoryview(content)
        for start in range(0, len(view), _CHUNK_BYTES):
            chunk = view[start : start + _CHUNK_BYTES]
            self._digest.update(chunk)  # while it is in the cache
            self.n_bytes += len(chunk)
            while len(chunk):
                chunk = chunk[self._file.write(chunk) :]

    def publish(self) -> FileEntry:
        """Sync to disk and rename."""
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._path)
        sync_folder(self._path.parent)
        return FileEntry(
            file=self._path.name, n_bytes=self.n_bytes, sha256=self._digest.hexdigest()
        )

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def write_bytes(path: Path, content: bytes) -> FileEntry:
    """Write a small new file."""
    with NewFile(path) as file:
        file.write(content)
        return file.publish()


def publish(temporary: Path) -> FileEntry:
    """Sync a finished ``<name>.tmp`` that another library wrote, and give it its name."""
    with temporary.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        n_bytes = file.tell()
        os.fsync(file.fileno())
    path = temporary.with_name(temporary.name.removesuffix(TEMPORARY))
    os.replace(temporary, path)
    sync_folder(path.parent)
    return FileEntry(file=path.name, n_bytes=n_bytes, sha256=digest)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable (POSIX; elsewhere the system does it)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def all_or_nothing(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Delete the named new files if the work inside fails before the manifest names them.

    Raises
    ------
    IndexFileError
        The disk is full, or another system error stopped the writer.
    """
    try:
        yield
    except BaseException as error:
        for name in _unnamed(folder, set(names)):
            with contextlib.suppress(OSError):
                (folder / name).unlink(missing_ok=True)
        if isinstance(error, (OSError, sqlite3.Error)):
            reason = getattr(error, "strerror", None) or str(error)
            raise IndexFileError(
                f"index could not be written: {reason}; it holds its last complete state"
            ) from error
        raise


def segment_file_names(number: int) -> list[str]:
    """Names of every file a change with this number may write for one segment."""
    return [file_name(kind, number) for kind in KINDS]


def _unnamed(folder: Path, names: set[str]) -> set[str]:
    """Which of the files nothing relies on, temporary names included."""
    temporary = {name + TEMPORARY for name in (*names, MANIFEST_NAME, COPY_NAME)}
    if not (folder / MANIFEST_NAME).exists():
        return names | temporary
    try:
        manifest = read_manifest(folder)
        _take_back_copy(folder, manifest)
    except (IndexFileError, OSError):  # the copy may name them: left to the next writer
        return temporary
    return (names - {entry.file for entry in manifest.files()}) | temporary


def _take_back_copy(folder: Path, manifest: Manifest) -> None:
    """Bring back the copy of the manifest where it tells of a change that did not come to be."""
    try:
        is_ahead = read_manifest(folder, COPY_NAME).revision > manifest.revision
    except DamagedManifestError:
        return
    if is_ahead:
        write_bytes(folder / COPY_NAME, manifest.to_bytes())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the copy, then the manifest, the moment at which an index changes; then clean up.

    So the copy is never older than the manifest: restoring it undoes no removal and loses no
    addition. A new folder gets its manifest first, for a copy alone would be no index. What fails
    after the manifest (deleting old files) is left to the next writer.
    """
    content = manifest.to_bytes()
    if (folder / MANIFEST_NAME).exists():
        write_bytes(folder / COPY_NAME, content)
    write_bytes(folder / MANIFEST_NAME, content)
    with contextlib.suppress(OSError):
        tidy(folder, manifest)


def tidy(folder: Path, manifest: Manifest) -> None:
    """Make the manifest's copy equal to it, then delete what no manifest names.

    In this order, so that the files of the copy's state are always there. The caller
    holds the lock.
    """
    shutil.rmtree(folder / SCRATCH_NAME, ignore_errors=True)  # patient data of a killed repair
    content = manifest.to_bytes()
    copy = folder / COPY_NAME
    try:
        is_equal = copy.read_bytes() == content
    except FileNotFoundError:
        is_equal = manifest.version == 1  # has none, and needs none before its first change
    if not is_equal:
        write_bytes(copy, content)
    delete_leftovers(folder, manifest)


def leftovers(folder: Path, manifest: Manifest | None) -> list[str]:
    """Names of files a killed writer left: ours by name, but in no manifest."""
    known = {entry.file for entry in manifest.files()} if manifest else set()
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in known and _is_ours(path.name.removesuffix(TEMPORARY), path.name)
    )


def _is_ours(name: str, full_name: str) -> bool:
    if name in (MANIFEST_NAME, COPY_NAME):
        return full_name != name
    return name == HYPERPLANES_NAME or any(is_file_name(kind, name) for kind in KINDS)


def delete_leftovers(folder: Path, manifest: Manifest | None) -> None:
    """Delete what a killed writer left; the caller holds the lock."""
    for name in leftovers(folder, manifest):
        with contextlib.suppress(PermissionError):  # Windows: a reader has it open
            (folder / name).unlink(missing_ok=True)
