"""Silent clients: each is cut in time, and they shut nobody out."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path

import pytest

from ildsdk.serve import connection, server
from ildsdk.serve.openapi import openapi_document
from tests.serve_factory import Running, running_server, wait_for


def connected(running: Running) -> contextlib.closing[socket.socket]:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(running.listener.address)
    client.settimeout(10)
    return contextlib.closing(client)


def is_alive(running: Running) -> bool:
    return running.ask("GET", "/health/live")[0] == 200


def trickle(client: socket.socket) -> None:
    """Send a head that never ends, until the connection is gone."""
    deadline = time.monotonic() + 10
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(b"GET /health/live HTTP/1.1\r\nX: ")
        while time.monotonic() < deadline:
            client.sendall(b"x")
            time.sleep(0.02)
        pytest.fail("it was never cut")


def test_connections_without_a_request_are_cut(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_REQUEST_S", 0.4)
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 4)
    monkeypatch.setattr(server, "_KEEP_ALIVE_S", 1)
    with running_server(serve_world, tmp_path / "s") as running, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connected(running))
        assert not is_alive(running)
        wait_for(lambda: is_alive(running))
        with connected(running) as client:
            trickle(client)
        with connected(running) as client:  # the same after an answer
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
            trickle(client)


def test_a_client_that_works_is_not_cut(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_REQUEST_S", 0.2)
    monkeypatch.setattr(connection, "_UNREAD_S", 0.2)
    with running_server(serve_world, tmp_path / "s") as running, connected(running) as client:
        head = b"POST /v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dicom\r\n"
        client.sendall(head + b"Content-Length: 8\r\n\r\n")
        for _ in range(8):  # a slow upload has the time limit of its query
            time.sleep(0.1)
            client.sendall(b"x")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 422")
        time.sleep(0.3)  # it is kept for a next request
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_a_client_that_reads_no_answer_is_cut(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_UNREAD_S", 0.2)
    size = len(json.dumps(openapi_document(takes_paths=True)))
    n_asked = 1 + (2 << 20) // size  # more than the system keeps for a reader
    with running_server(serve_world, tmp_path / "s") as running, connected(running) as client:
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * n_asked)
        time.sleep(1)
        n_bytes = 0
        with contextlib.suppress(ConnectionResetError):
            while n_bytes < n_asked * size and (data := client.recv(1 << 16)):
                n_bytes += len(data)
        assert 0 < n_bytes < n_asked * size
