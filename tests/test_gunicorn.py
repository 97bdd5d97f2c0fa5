"""Real gunicorn: workers forked from a parent that has queried answer as it does, and all end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from tests.gunicorn_app import answers_of, opened

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

N_WORKERS, N_CLIENTS, N_QUERIES = 2, 4, 16
START_LIMIT_S, QUERY_LIMIT_S, END_LIMIT_S = 120, 60, 10


class Gunicorn:
    """A running server and the processes that it may have."""

    def __init__(self, world: Path, folder: Path, repo: Path, *options: str) -> None:
        self.address = folder / "http.sock"
        self.log = folder / "log.txt"
        command = [
            sys.executable, "-m", "gunicorn", f"--bind=unix:{self.address}",
            f"--workers={N_WORKERS}", "--threads=2", f"--control-socket={folder / 'control.sock'}",
            # Longer than the test waits: a worker that must be killed is seen as one that hangs.
            "--graceful-timeout=60", "--timeout=60", *options,
            f"tests.gunicorn_app:make_application({str(world)!r})",
        ]  # fmt: skip
        with self.log.open("w") as log:
            self.popen = subprocess.Popen(command, cwd=repo, stdout=log, stderr=log)
        self.processes: set[psutil.Process] = {psutil.Process(self.popen.pid)}

    def watch(self) -> None:
        """Remember the processes that there are now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.processes |= set(psutil.Process(self.popen.pid).children(recursive=True))

    def ask(self, study: Path) -> dict[str, Any]:
        """One query on a connection of its own."""
        connection = http.client.HTTPConnection("localhost")
        with contextlib.closing(connection):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(QUERY_LIMIT_S)
            connection.sock.connect(str(self.address))
            connection.request("GET", f"/?{urlencode({'path': study})}")
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            answer: dict[str, Any] = json.loads(body)
            return answer

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while self.log.read_text().count("Booting worker") < N_WORKERS:
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.popen.poll() is None, self.log.read_text()
            time.sleep(0.02)
        self.watch()

    def end(self) -> set[psutil.Process]:
        """Ask it to end; processes that are left after the limit."""
        self.watch()
        self.popen.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(END_LIMIT_S)
        return set(psutil.wait_procs(self.processes, timeout=0.5)[1])

    def kill(self) -> None:
        self.watch()
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.popen.wait()


@contextlib.contextmanager
def running(world: Path, folder: Path, repo: Path, *options: str) -> Iterator[Gunicorn]:
    server = Gunicorn(world, folder, repo, *options)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def expected(serve_world: Path) -> dict[Path, list[object]]:
    """What this process answers to the study and to each of its files."""
    files = sorted(path for path in (serve_world / "study").rglob("*") if path.is_file())
    with opened(serve_world) as retriever:
        found = {path: answers_of(retriever, path) for path in (serve_world / "study", *files)}
    assert len({json.dumps(answers) for answers in found.values()}) == len(found) > 2
    return found


@pytest.mark.parametrize("options", [("--preload",), ()], ids=["preloaded", "opened-by-workers"])
def test_workers_answer_and_end(
    serve_world: Path,
    expected: dict[Path, list[object]],
    tmp_path: Path,
    repo: Path,
    options: tuple[str, ...],
) -> None:
    studies = list(expected)
    with running(serve_world, tmp_path, repo, *options) as server:
        parent = server.popen.pid
        workers: set[int] = set()
        deadline = time.monotonic() + START_LIMIT_S
        # Which worker takes a connection is the system's choice.
        with ThreadPoolExecutor(N_CLIENTS) as clients:
            while len(workers) < N_WORKERS:
                assert time.monotonic() < deadline, workers
                asked = [studies[number % len(studies)] for number in range(N_QUERIES)]
                for study, found in zip(asked, clients.map(server.ask, asked), strict=True):
                    assert found["answers"] == expected[study]
                    assert found["opened_by"] == (parent if options else found["worker"])
                    assert found["has_own"] == bool(options)
                    workers.add(found["worker"])
        assert workers == {process.pid for process in server.processes} - {parent}
        assert server.end() == set(), server.log.read_text()
        assert server.popen.returncode == 0
    for sign_of_trouble in ("Traceback", "SIGKILL", "SIGABRT", "TIMEOUT"):
        assert sign_of_trouble not in server.log.read_text()
