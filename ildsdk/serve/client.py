"""Asks a resident server on a Unix socket; needs the standard library only.

A fresh process that asks should cost what its interpreter costs: ``http.client`` speaks to the
socket in a few lines, and every larger client library costs several times its import.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import socket
import struct
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ildsdk.errors import ConfigError, IldError, QueryTimeoutError, ServerError
from ildsdk.serve.problems import MEDIA_TYPE, error_from_problem
from ildsdk.settings import QuerySettings

_CONNECT_S = 10.0


class RefusedQueryError(IldError):
    """A query that was not answered.

    Attributes
    ----------
    error : IldError
        The same error, with the same text, as in the server; ``code`` and ``exit_code`` are its.
    answer : str or None
        With :class:`~ildsdk.errors.NoUsableSliceError` the answer without a study, as JSON text.
    """

    def __init__(self, error: IldError, answer: str | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.answer = answer
        self.code, self.exit_code = error.code, error.exit_code


class Client:
    """A connection to ``ildsdk serve --socket``; several queries may follow each other on it.

    Parameters
    ----------
    socket_path : Path
    timeout_s : float or None
        How long to wait for an answer, seconds; None leaves that to the server.

    Raises
    ------
    ServerError
        From every method: nobody listens there, somebody else does, or the server went away.
    QueryTimeoutError
        From every method: no answer within ``timeout_s``; the server stops the query.
    """

    def __init__(self, socket_path: Path, timeout_s: float | None = None) -> None:
        self._name = socket_path.name
        self._timeout_s = timeout_s
        self._connection = _UnixConnection(socket_path)

    def query(self, study: Path, settings: QuerySettings | None = None) -> str:
        """Answer to the studies under a path, as ``ildsdk query --format json`` prints it.

        Raises
        ------
        RefusedQueryError
            Not answered; with the error that :meth:`ildsdk.Retriever.query` would raise, or
            :class:`~ildsdk.errors.ServerBusyError`, :class:`~ildsdk.errors.QueryTimeoutError`.
        """
        body = json.dumps({"path": str(study.absolute())}).encode()
        return self._post(settings, body, "application/json")

    def upload(self, study: Path, settings: QuerySettings | None = None) -> str:
        """As :meth:`query`, where the server cannot read the path: sends the file's bytes.

        Raises
        ------
        ConfigError
            The path is no file, or cannot be read.
        """
        try:
            file = study.open("rb")
        except IsADirectoryError:
            raise ConfigError("a folder cannot be uploaded: make a zip of it") from None
        except FileNotFoundError:
            raise ConfigError("the study path does not exist") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ConfigError(f"the study path cannot be read ({why})") from None
        with file:
            return self._post(settings, file, "application/octet-stream")

    def info(self) -> dict[str, Any]:
        """What the server runs and takes."""
        return dict(json.loads(self._send("GET", "/v1/info", None, {})))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _post(self, settings: QuerySettings | None, body: bytes | BinaryIO, kind: str) -> str:
        asked = dataclasses.asdict(settings or QuerySettings())
        parameters = {name: _text(value) for name, value in asked.items() if value is not None}
        target = f"/v1/query?{urllib.parse.urlencode(parameters)}"
        return self._send("POST", target, body, {"Content-Type": kind}).removesuffix("\n")

    def _send(
        self, method: str, target: str, body: bytes | BinaryIO | None, headers: dict[str, str]
    ) -> str:
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        with _as_server_error(self._name):
            is_kept = self._connection.sock is not None
            try:
                response, text = self._exchange(method, target, body, headers, deadline)
            except ConnectionResetError:
                # A server closes a kept connection when it was idle for long, or ended since.
                self.close()
                if not is_kept or not _rewound(body):
                    raise
                response, text = self._exchange(method, target, body, headers, deadline)
        if response.status == 200:
            return text
        if response.getheader("Content-Type", "").split(";")[0] != MEDIA_TYPE:
            raise ServerError(
                f"what listens on {self._name} answered with status {response.status} and no "
                "problem document: it is no ildsdk server, or serves too many connections"
            )
        problem = json.loads(text)
        answer = problem.get("answer")
        raise RefusedQueryError(
            error_from_problem(problem),
            None if answer is None else json.dumps(answer, indent=2, ensure_ascii=False),
        )

    def _exchange(
        self,
        method: str,
        target: str,
        body: bytes | BinaryIO | None,
        headers: dict[str, str],
        deadline: float | None,
    ) -> tuple[http.client.HTTPResponse, str]:
        if self._connection.sock is None:
            self._connection.connect()
        self._connection.sock.deadline = deadline
        with self._in_time():
            # Refused before all of it was read: the answer says why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._connection.request(method, target, body, headers)
            response = self._connection.getresponse()
            return response, response.read().decode()

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            self.close()
            raise QueryTimeoutError(
                f"the time limit of {self._timeout_s:g} s was reached before the server answered: "
                "allow more time, or take fewer slices (--every-mm)"
            ) from None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rewound(body: bytes | BinaryIO | None) -> bool:
    """Whether a body can be sent once more."""
    if body is None or isinstance(body, bytes):
        return True
    if body.seekable():
        body.seek(0)
        return True
    return False


class _DeadlineSocket(socket.socket):
    """A socket whose time limit is that of all its steps together.

    Attributes
    ----------
    deadline : float or None
        On the monotonic clock, seconds; None waits without end.
    """

    deadline: float | None = None

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all bytes before the deadline."""
        self._limit_step()
        super().sendall(data, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        """Receive what is there before the deadline."""
        self._limit_step()
        return super().recv_into(buffer, nbytes, flags)

    def _limit_step(self) -> None:
        left_s = None if self.deadline is None else self.deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise TimeoutError
        self.settimeout(left_s)


class _UnixConnection(http.client.HTTPConnection):
    sock: Any  # a _DeadlineSocket, or None while closed

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = _DeadlineSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT_S)
        self.sock.connect(str(self._path))
        _check_owner(self.sock, self._path)


def _check_owner(connected: socket.socket, path: Path) -> None:
    """Refuse a server of another user: its answers would be anybody's.

    root may ask any user's server, where nobody but that user can have put it there.
    """
    if sys.platform != "linux":
        return
    size = struct.calcsize("3i")
    _, owner, _ = struct.unpack(
        "3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    if owner in (os.geteuid(), 0):
        return
    if os.geteuid() != 0:
        raise ServerError(f"the socket is served by another user (id {owner}): not asked")
    from ildsdk.serve.listening import check_socket_folder

    try:
        check_socket_folder(path.absolute().parent, frozenset({owner, 0}))
        is_theirs = path.stat().st_uid == owner
    except ConfigError:
        is_theirs = False
    if not is_theirs:
        raise ServerError(
            f"the socket is served by user {owner}, and others may have put it there: not asked; "
            "ask as that user"
        )


@contextlib.contextmanager
def _as_server_error(name: str) -> Iterator[None]:
    start = "start one with `ildsdk serve --socket`"
    try:
        yield
    except FileNotFoundError:
        raise ServerError(f"there is no socket {name}: {start}") from None
    except ConnectionRefusedError:
        raise ServerError(f"no server listens on {name} any more: {start}") from None
    except PermissionError:
        raise ServerError(f"socket {name} belongs to another user") from None
    except TimeoutError:
        raise ServerError(f"the server on {name} accepts no connection: it hangs") from None
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, OSError) and "too long" in str(error):
            raise ConfigError(f"the path of socket {name} is too long for a socket") from None
        raise ServerError(
            f"the server on {name} went away before it answered ({type(error).__name__})"
        ) from None
