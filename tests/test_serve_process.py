"""The server as a process of its own: signals, start, end, and what a kill leaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ildsdk.errors import ServerBusyError
from ildsdk.serve.client import Client, RefusedQueryError
from ildsdk.serve.listening import listen_on_socket
from tests.archive_factory import PLANTED_NAME
from tests.serve_factory import one_file

HEAVY = (
    "numba", "onnxruntime", "pydicom", "numpy", "PIL", "jinja2", "starlette", "uvicorn",
    "prometheus_client", "asyncio", "torch",
)  # fmt: skip


class Process:
    """``ildsdk serve`` with its stderr."""

    def __init__(self, arguments: list[object], **environment: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "ildsdk", "serve", *map(str, arguments)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.popen.stderr or ():
            self.lines.append(line)

    def wait_for(self, text: str) -> str:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if text in line:
                    return line
            assert self.popen.poll() is None, self.lines
            time.sleep(0.01)
        raise AssertionError(f"no {text!r} in {self.lines}")

    def end(self) -> int:
        """Exit code, once it ended by itself."""
        code = self.popen.wait(60)
        self._reader.join(10)
        return code

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(60)
        self._reader.join(10)
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def started(world: Path, *arguments: object, **environment: str) -> Iterator[Process]:
    process = Process(
        ["--bundle", world / "bundle", "--index", world / "index", "--provider", "cpu", *arguments],
        **environment,
    )
    try:
        yield process
    finally:
        process.kill()


def write_long_study(folder: Path, world: Path, n_files: int = 1500) -> Path:
    """A study that takes its time: one slice under many names, each of which is looked at."""
    folder.mkdir()
    file = one_file(world)
    for number in range(n_files):
        (folder / f"{number:05}").symlink_to(file)
    return folder


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def in_flight(path: Path) -> bool:
    text = Client(path)._send("GET", "/metrics", None, {})
    return "ildsdk_in_flight 1.0" in text


def ask_in_thread(path: Path, study: Path) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def ask() -> None:
        try:
            with Client(path) as client:
                outcome.append(json.loads(client.query(study)))
        except RefusedQueryError as refused:
            outcome.append(refused.error)

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 20
    while not in_flight(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return thread, outcome


def test_a_life_from_start_to_sigterm_during_a_query(serve_world: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    told = tmp_path / "notify"
    study = write_long_study(tmp_path / "long", serve_world)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(told))
        manager.settimeout(60)
        with started(serve_world, "--socket", path, NOTIFY_SOCKET=str(told)) as server:
            assert server.wait_for("ready on") == f"ready on {path}\n"
            assert manager.recv(1000).decode().splitlines()[0] == "READY=1"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

            code = (
                "import sys, ildsdk.cli\n"
                "try:\n"
                f"    ildsdk.cli.main(['query', {str(one_file(serve_world))!r}, '--socket', "
                f"{str(path)!r}, '--format', 'json'])\n"
                "except SystemExit as stop: assert not stop.code\n"
                f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert json.loads(done.stdout)["schema"] == "ildsdk.query/1"
            assert done.stderr == "[]\n"

            server.popen.send_signal(signal.SIGHUP)
            server.wait_for("index opened anew")
            assert "RELOADING=1" in manager.recv(1000).decode()
            assert manager.recv(1000) == b"READY=1"

            thread, outcome = ask_in_thread(path, study)
            server.popen.send_signal(signal.SIGTERM)
            server.wait_for("ending: 1 queries to finish")
            # It accepts no more within a tick of its loop.
            while accepts(path):
                time.sleep(0.01)
            thread.join(60)
            assert len(outcome[0]["studies"][0]["slices"]) == 1
            assert server.end() == 0
            assert manager.recv(1000) == b"STOPPING=1"
    assert not path.exists()
    text = "".join(server.lines)
    assert "POST /v1/query 200" in text
    assert PLANTED_NAME.split("^")[0] not in text
    assert str(study) not in text


def test_a_kill_leaves_no_patient_data_and_a_socket_that_is_replaced(
    serve_world: Path, tmp_path: Path
) -> None:
    path, uploads = tmp_path / "s.sock", tmp_path / "uploads"
    uploads.mkdir()
    data = one_file(serve_world).read_bytes()
    with started(serve_world, "--socket", path, "--upload-folder", uploads) as server:
        server.wait_for("ready on")
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        head = (
            f"POST /v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dicom\r\n"
            f"Content-Length: {len(data) + 1}\r\n\r\n"
        )
        connection.sendall(head.encode() + data)
        deadline = time.monotonic() + 20
        while not list(uploads.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.popen.kill()
        connection.close()
        server.popen.wait(20)
    left = [item for item in uploads.rglob("*") if item.is_file()]
    assert left == []
    assert path.is_socket()
    with listen_on_socket(path):
        pass


def test_what_is_refused_at_the_start_ends_it_with_its_exit_code(
    serve_world: Path, tmp_path: Path
) -> None:
    with started(serve_world, "--socket", tmp_path / "s", "--index", tmp_path) as server:
        assert server.end() == 5
    assert any(line.startswith("error (index): ") for line in server.lines)
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_sigterm_before_it_is_ready_is_a_good_end_too(serve_world: Path, tmp_path: Path) -> None:
    for wait_s in (0.0, 0.6):
        with started(serve_world, "--socket", tmp_path / "s") as server:
            deadline = time.monotonic() + 20
            while not (tmp_path / "s").exists():
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(wait_s)
            server.popen.send_signal(signal.SIGTERM)
            assert server.end() == 0
        assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_a_query_longer_than_the_grace_time_is_cut_off(serve_world: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    study = write_long_study(tmp_path / "long", serve_world)
    with started(serve_world, "--socket", path, "--grace", 0.1) as server:
        server.wait_for("ready on")
        thread, outcome = ask_in_thread(path, study)
        server.popen.send_signal(signal.SIGTERM)
        thread.join(60)
        assert isinstance(outcome[0], ServerBusyError)
        assert server.end() == 0


@pytest.mark.slow
def test_a_port_of_the_loopback_interface(serve_world: Path) -> None:
    with started(serve_world, "--port", 0) as server:
        address = server.wait_for("ready on").split()[-1]
        assert address.startswith("http://127.0.0.1:")
        server.popen.send_signal(signal.SIGINT)
        assert server.end() == 0
