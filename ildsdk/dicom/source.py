"""Where the bytes of a study come from: a folder, one file, or a zip read in place.

Nothing is ever extracted to disk, so a member name such as ``../../x`` is only a label. Against
zip bombs an archive is bounded in members, in total inflated size, and each member in size
and in compression ratio; the sizes are those the archive declares, and :mod:`zipfile`
never inflates a member beyond its declared size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, cast

from ildsdk.dicom import reasons
from ildsdk.errors import ConfigError, InputError

MAX_ARCHIVE_MEMBERS: Final = 100_000
MAX_ARCHIVE_BYTES: Final = 32 << 30
MAX_MEMBER_BYTES: Final = 2 << 30
# Deflate reaches 1032 at most; CT with much constant padding stays below 100.
MAX_MEMBER_RATIO: Final = 400
_RATIO_FREE_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where one object lies; holds a real path, so it is never shown or serialized."""

    path: Path
    member: str | None
    size: int
    modified_ns: int

    def __repr__(self) -> str:
        """Hide the path: reprs end up in logs."""
        return f"Origin(size={self.size})"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One file or zip member that was found.

    Attributes
    ----------
    parts : tuple of str
        Path components inside the study, not redacted yet.
    problem : tuple of str or None
        ``(reason, detail)`` where the entry must not be opened at all.
    """

    parts: tuple[str, ...]
    origin: Origin
    problem: tuple[str, str] | None = None


class StudySource:
    """The entries under one path, and a way to open them one after another.

    Parameters
    ----------
    path : Path
        Folder, single object, or zip archive.

    Raises
    ------
    ConfigError
        The path does not exist or is neither file nor folder.
    InputError
        The archive is damaged or exceeds a limit.
    """

    def __init__(self, path: Path) -> None:
        self._archive: zipfile.ZipFile | None = None
        self.is_archive = False
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                self.entries = tuple(_folder_entries(path))
            elif stat.S_ISREG(mode):
                self.is_archive = _is_zip(path)
                if self.is_archive:
                    self._archive = _open_archive(path)
                    self.entries = tuple(_archive_entries(path, self._archive))
                else:
                    self.entries = (_file_entry(path, (path.name,)),)
            else:
                raise ConfigError("the study path is neither a folder nor a regular file")
        except FileNotFoundError:
            raise ConfigError("the study path does not exist") from None
        except OSError as error:
            raise ConfigError(f"the study path cannot be read ({_why(error)})") from None

    def __enter__(self) -> StudySource:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._archive is not None:
            self._archive.close()

    @contextlib.contextmanager
    def open(self, entry: Entry) -> Iterator[BinaryIO]:
        """Open one entry for reading; raises ``OSError`` or ``zipfile`` errors."""
        if self._archive is None:
            with entry.origin.path.open("rb") as file:
                yield file
        else:
            with self._archive.open(entry.origin.member or "") as member:
                yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, member), 1 << 15))


@contextlib.contextmanager
def open_origin(origin: Origin, source: str) -> Iterator[BinaryIO]:
    """Open an object found earlier, for its pixels.

    Parameters
    ----------
    origin : Origin
        From :class:`Entry`.
    source : str
        Redacted label for messages.

    Raises
    ------
    InputError
        The file is gone, changed since discovery, or cannot be read.
    """
    # The yield stands outside the try: the caller's own errors are not reading errors.
    stack = contextlib.ExitStack()
    with stack:
        try:
            status = origin.path.stat()
            if status.st_mtime_ns != origin.modified_ns:
                raise InputError(f"{source} changed after discovery: discover the study again")
            if origin.member is None:
                stream: BinaryIO = stack.enter_context(origin.path.open("rb"))
            else:
                archive = stack.enter_context(zipfile.ZipFile(origin.path))
                member = stack.enter_context(archive.open(origin.member))
                stream = cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, member), 1 << 18))
        except OSError as error:
            raise InputError(f"{source} cannot be read ({_why(error)})") from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, KeyError) as error:
            raise InputError(
                f"{source} cannot be read from its archive ({type(error).__name__})"
            ) from None
        yield stream


def _why(error: OSError) -> str:
    # str(error) would quote the full path.
    return error.strerror or type(error).__name__


def _file_entry(path: Path, parts: tuple[str, ...]) -> Entry:
    try:
        status = path.stat()
    except OSError as error:
        problem = (reasons.UNREADABLE, f"cannot be opened ({_why(error)})")
        return Entry(parts, Origin(path, None, 0, 0), problem)
    origin = Origin(path, None, status.st_size, status.st_mtime_ns)
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe or device could block or never end.
        return Entry(parts, origin, (reasons.UNREADABLE, "not a regular file"))
    return Entry(parts, origin)


def _folder_entries(folder: Path) -> Iterator[Entry]:
    def unreadable(error: OSError) -> None:
        name = Path(error.filename or "")
        parts = name.relative_to(folder).parts if name.is_relative_to(folder) else ()
        problem = (reasons.UNREADABLE, f"a folder that cannot be listed ({_why(error)})")
        closed.append(Entry(parts or (".",), Origin(name, None, 0, 0), problem))

    closed: list[Entry] = []
    for current, folders, files in os.walk(folder, onerror=unreadable):
        folders.sort()
        base = Path(current)
        for name in sorted(files):
            path = base / name
            yield _file_entry(path, path.relative_to(folder).parts)
    yield from closed


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(
            f"the study archive is damaged ({type(error).__name__}): make the zip again"
        ) from None


def _archive_entries(path: Path, archive: zipfile.ZipFile) -> Iterator[Entry]:
    modified_ns = path.stat().st_mtime_ns
    members = [info for info in archive.infolist() if not info.is_dir()]
    total = sum(info.file_size for info in members)
    if len(members) > MAX_ARCHIVE_MEMBERS or total > MAX_ARCHIVE_BYTES:
        archive.close()
        raise InputError(
            f"the study archive declares {len(members)} members and {total} bytes inflated; at "
            f"most {MAX_ARCHIVE_MEMBERS} members and {MAX_ARCHIVE_BYTES} bytes are read: unpack "
            "it and pass the folder"
        )
    seen: set[str] = set()
    for info in sorted(members, key=lambda info: info.filename):
        parts = tuple(part for part in PurePosixPath(info.filename).parts if part != "/")
        origin = Origin(path, info.filename, info.file_size, modified_ns)
        problem = _member_problem(info)
        if info.filename in seen:
            problem = (reasons.UNREADABLE, "a second member of the same name")
        seen.add(info.filename)
        yield Entry(parts or ("member",), origin, problem)


def _member_problem(info: zipfile.ZipInfo) -> tuple[str, str] | None:
    if info.flag_bits & 0x1:
        return reasons.UNREADABLE, "an encrypted zip member: decrypt the archive first"
    if info.file_size > MAX_MEMBER_BYTES:
        return (
            reasons.ARCHIVE_LIMIT,
            f"{info.file_size} bytes inflated, at most {MAX_MEMBER_BYTES} are read",
        )
    ratio = info.file_size / max(info.compress_size, 1)
    if info.file_size > _RATIO_FREE_BYTES and ratio > MAX_MEMBER_RATIO:
        return (
            reasons.ARCHIVE_LIMIT,
            f"compressed {ratio:.0f} to 1, at most {MAX_MEMBER_RATIO} to 1 is read",
        )
    return None
