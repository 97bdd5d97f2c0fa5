"""One writer at a time: a lock of the operating system, which dies with its process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from ildsdk.errors import IndexFileError

LOCK_NAME = "write.lock"


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Keep every other writer out of an index folder.

    Raises
    ------
    IndexFileError
        Another writer works, or the file system has no locks.
    """
    path = folder / LOCK_NAME
    handle = _locked(path)
    try:
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
        with contextlib.suppress(OSError):  # a full disk: only the message to others is lost
            os.truncate(handle, 0)
            os.write(handle, owner)
        yield
    finally:
        _unlock(handle, path)


def _locked(path: Path) -> int:
    while True:
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise IndexFileError(f"index cannot be written: {error.strerror}") from error
        try:
            _lock(handle)
            # The owner before us deletes the file: a lock on the deleted one keeps nobody out.
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            os.close(handle)
            raise IndexFileError(_owner_message(path)) from error
        except OSError as error:
            os.close(handle)
            raise IndexFileError(
                f"index cannot be locked for writing ({error.strerror}): its file system has no "
                "working locks; copy the index to a local disk, change it there and copy it back"
            ) from error
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 2**30  # beyond the text, which others may read

    def _lock(handle: int) -> None:
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        os.lseek(handle, 0, os.SEEK_SET)

    def _unlock(handle: int, path: Path) -> None:
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
        os.close(handle)
        with contextlib.suppress(OSError):  # the next writer has it open already
            path.unlink()

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)  # ends the lock


def _owner_message(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        who = f"process {int(owner['pid'])} on host {str(owner['host'])[:100]!r}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return f"index is being written by {who}: wait until it is done and try again"
