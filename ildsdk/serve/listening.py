"""Where the server listens: a Unix socket of this user, or a port of the loopback interface."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ildsdk.errors import ConfigError
from ildsdk.runtime.private_folder import is_private_folder, own_account

LOOPBACK = "127.0.0.1"
BACKLOG = 64
_OWNER_ONLY = 0o177  # umask: the socket is made with mode 0600
_LOCK_S = 2.0  # a server that starts holds its lock for milliseconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A bound socket.

    Attributes
    ----------
    bound : socket.socket
        Bound and listening; nobody accepts yet.
    address : str
        For people: ``/run/x.sock`` or ``http://127.0.0.1:8000``.
    is_private : bool
        Only this user can connect (a Unix socket), so a request may name a path.
    hosts : tuple of str
        Values of the Host header that are accepted; empty: any.
    """

    bound: socket.socket
    address: str
    is_private: bool
    hosts: tuple[str, ...] = ()


@contextlib.contextmanager
def listen_on_port(port: int) -> Iterator[Listener]:
    """Bind a port of 127.0.0.1; 0 takes a free one.

    Raises
    ------
    ConfigError
        The port is taken, or may not be bound by this user.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with contextlib.closing(bound):
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((LOOPBACK, port))
            bound.listen(BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"port {port} of {LOOPBACK} cannot be bound ({error.strerror}): choose another "
                "with --port, or 0 for a free one"
            ) from error
        port = bound.getsockname()[1]
        yield Listener(
            bound=bound,
            address=f"http://{LOOPBACK}:{port}",
            is_private=False,
            hosts=(f"{LOOPBACK}:{port}", f"localhost:{port}"),
        )


@contextlib.contextmanager
def listen_on_socket(path: Path) -> Iterator[Listener]:
    """Bind a Unix socket that only this user can use; its file is removed at the end.

    A socket file that a dead server left behind is replaced.

    Raises
    ------
    ConfigError
        Another server listens there, something else lies there, the folder is missing or other
        users may replace it or what is in it, another program keeps it locked, or the path is too
        long for a socket.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("this system has no Unix sockets for Python: listen on a port (--port)")
    path = path.absolute()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(bound):
        with _only_one_starts(path.parent):
            check_socket_folder(path.parent, own_account() | {0})
            _make_room(path)
            _bind(bound, path)
        ours = _identity(path)
        try:
            yield Listener(bound=bound, address=str(path), is_private=True)
        finally:
            # Another server may have replaced the file since: that one stays.
            with contextlib.suppress(OSError):
                if _identity(path) == ours:
                    path.unlink()


def _identity(path: Path) -> tuple[int, ...]:
    """What tells our socket file from one made later, which may get the same inode number."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _bind(bound: socket.socket, path: Path) -> None:
    before = os.umask(_OWNER_ONLY)
    try:
        bound.bind(str(path))
        bound.listen(BACKLOG)  # under the lock: a socket nobody listens on counts as left behind
    except OSError as error:
        # Too long comes without errno.
        why = error.strerror or f"{len(os.fsencode(path))} bytes are too long for a socket's path"
        raise ConfigError(f"socket {path.name} cannot be made ({why}): choose another path") from (
            error
        )
    finally:
        os.umask(before)


@contextlib.contextmanager
def _only_one_starts(folder: Path) -> Iterator[None]:
    """Let one server at a time look for, remove and make a socket in a folder."""
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"the folder for the socket cannot be opened ({error.strerror}): make it first, for "
            "this user alone (mode 0700)"
        ) from error
    try:
        # Whoever may read the folder can hold the lock for as long as he likes.
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        "another program keeps the folder for the socket locked: take a folder "
                        "of this user alone (mode 0700)"
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def check_socket_folder(folder: Path, owners: frozenset[int]) -> None:
    """Refuse a folder in which another user could put a socket of his own in place of one there.

    Parameters
    ----------
    owners : frozenset of int
        Accounts that are trusted with it.

    Raises
    ------
    ConfigError
        It, or a folder above it, belongs to another account or may be changed by others.
    """
    folder = folder.resolve()
    status = folder.stat()
    if status.st_uid not in owners:
        raise ConfigError(
            "the folder for the socket belongs to another user, who could replace the socket: "
            "take a folder of this user (mode 0700)"
        )
    others_write = stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    is_sticky = bool(status.st_mode & stat.S_ISVTX)  # as /tmp: nobody can replace another's file
    if others_write and not is_sticky:
        raise ConfigError(
            "other users may write to the folder for the socket "
            f"(mode {stat.S_IMODE(status.st_mode):04o}), so they could replace the socket: take a "
            "folder of this user (mode 0700)"
        )
    if not is_private_folder(folder.parent if others_write else folder, owners):
        raise ConfigError(
            "other users may write to a folder above that for the socket, so they could replace "
            "both: take a folder of which no other user can write to any folder above it"
        )


def _make_room(path: Path) -> None:
    """Remove the socket of a dead server; refuse anything else that lies there."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigError(f"{path.name} exists and is no socket: remove it, or choose another path")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"socket {path.name} belongs to another user: choose another path")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                path.unlink()
                return
    raise ConfigError(
        f"a server listens on {path.name} already: end it first, or choose another path"
    )
