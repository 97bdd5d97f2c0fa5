"""A server in a thread of this process, and a plain HTTP client."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ildsdk.serve.client import Client
from ildsdk.serve.listening import Listener, listen_on_port, listen_on_socket
from ildsdk.serve.server import Server
from ildsdk.serve.settings import ServeSettings
from ildsdk.settings import RuntimeSettings

CPU = RuntimeSettings(provider="cpu")
DICOM = {"Content-Type": "application/dicom"}


def one_file(world: Path) -> Path:
    """A slice in the middle of the study."""
    files = sorted(path for path in (world / "study").rglob("*") if path.is_file())
    return files[len(files) // 2]


@dataclasses.dataclass
class Running:
    """A server that runs, and where."""

    server: Server
    listener: Listener
    ready_line: str

    def client(self) -> Client:
        return Client(Path(self.listener.address))

    def connection(self) -> http.client.HTTPConnection:
        """A plain connection, so that tests see status and headers."""
        if not self.listener.is_private:
            return http.client.HTTPConnection(self.listener.address.removeprefix("http://"))
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(self.listener.address)
        return connection

    def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of one request."""
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return response.status, names, response.read()

    def ask_path(
        self, path: object, parameters: str = ""
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        """The answer to a query that names a path, as a mapping."""
        status, headers, body = self.ask(
            "POST", f"/v1/query{parameters}", json.dumps({"path": str(path)}),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        return status, headers, json.loads(body)

    def metric(self, name: str) -> float:
        """Value of one line of /metrics, 0 where there is no such line."""
        text = self.ask("GET", "/metrics")[2].decode()
        values = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return next((float(value) for label, value in values if label == name), 0.0)


@contextlib.contextmanager
def running_server(world: Path, socket_path: Path | None, **settings: Any) -> Iterator[Running]:
    """Serve on a Unix socket, or on a free port where the path is None."""
    logging.getLogger("ildsdk.serve").setLevel(logging.INFO)
    listening = listen_on_port(0) if socket_path is None else listen_on_socket(socket_path)
    with listening as listener:
        lines: list[str] = []
        told = threading.Event()

        def on_ready(line: str) -> None:
            lines.append(line)
            told.set()

        server = Server(
            listener,
            bundle=world / "bundle",
            index=world / "index",
            runtime=CPU,
            settings=ServeSettings(**{"reload_s": 0, **settings}),
            on_ready=on_ready,
        )
        problems: list[BaseException] = []

        def run() -> None:
            try:
                server.run()
            except BaseException as error:
                problems.append(error)
            told.set()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert told.wait(120)
            if problems:
                raise problems[0]
            yield Running(server, listener, lines[0])
        finally:
            server.stop()
            thread.join(60)
            assert not thread.is_alive()


def wait_for(condition: Any) -> None:
    """Until it is true, at most 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
