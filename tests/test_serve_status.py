"""What the resident server tells of itself: info, health, metrics, log, connections."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ildsdk import Retriever
from ildsdk.serve.log import NoForeignText
from tests.archive_factory import PLANTED_ID, PLANTED_NAME
from tests.serve_factory import DICOM, Running, one_file, running_server, wait_for


@pytest.fixture(scope="module")
def served(serve_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(serve_world, tmp_path_factory.mktemp("s") / "s.sock") as running:
        yield running


@pytest.fixture(scope="module")
def on_port(serve_world: Path) -> Iterator[Running]:
    with running_server(serve_world, None, max_upload_bytes=1 << 20) as running:
        yield running


@pytest.fixture(scope="module")
def retriever(serve_world: Path) -> Iterator[Retriever]:
    with Retriever.open(serve_world / "bundle", serve_world / "index", provider="cpu") as opened:
        yield opened


def test_info_health_and_metrics(served: Running, serve_world: Path, retriever: Retriever) -> None:
    served.ask_path(serve_world / "study", "?every_mm=0")
    assert served.ask("POST", "/v1/query", b"x", DICOM)[0] == 422
    info = json.loads(served.ask("GET", "/v1/info")[2])
    assert info["schema"] == "ildsdk.server-info/1"
    assert info["bundle_hash"] == retriever.bundle.bundle_hash
    assert info["index_hash"] == retriever.index.hash
    assert info["provider"] == "CPUExecutionProvider" or info["provider"] == "cpu"
    assert info["takes_paths"] is True
    assert info["max_waiting"] == 8
    assert "SYNTHETIC" in info["notice"]
    assert json.loads(served.ask("GET", "/health/live")[2]) == {"status": "alive"}
    assert json.loads(served.ask("GET", "/health/ready")[2]) == {"status": "ready"}
    status, headers, text = served.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    for name in (
        'ildsdk_requests_total{method="POST",route="/v1/query",status="200"}',
        'ildsdk_queries_total{outcome="answered"}',
        "ildsdk_query_seconds_count",
        "ildsdk_queue_wait_seconds_count",
        'ildsdk_request_seconds_count{route="/v1/query"}',
        "ildsdk_slices_answered_total",
        "process_resident_memory_bytes",
        "ildsdk_ready",
    ):
        assert served.metric(name) > 0, name
    assert served.metric("ildsdk_index_items") == len(retriever.index)
    assert 'ildsdk_slices_skipped_total{reason="not-dicom"}' in text.decode()
    open_metrics = served.ask("GET", "/metrics", None, {"Accept": "application/openmetrics-text"})
    assert open_metrics[2].rstrip().endswith(b"# EOF")


def test_metrics_keep_a_bounded_number_of_series(served: Running) -> None:
    before = served.ask("GET", "/metrics")[2].count(b"\n")
    for number in range(20):
        served.ask("GET", f"/{PLANTED_ID}/{number}")
        served.ask(f"M{number}", "/v1/info")
    text = served.ask("GET", "/metrics")[2]
    assert text.count(b"\n") < before + 30
    assert PLANTED_ID.encode() not in text


def test_the_log_tells_route_and_time_and_no_patient(
    served: Running, serve_world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        served.ask_path(serve_world / "study", f"?series_uid={PLANTED_ID}")
        served.ask_path(serve_world / PLANTED_ID)
        served.ask("GET", f"/v1/{PLANTED_ID}?name={PLANTED_NAME}")
        served.ask_path(serve_world / "study")
        deadline = time.monotonic() + 10  # the line follows the answer
        while "POST /v1/query 200" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "POST /v1/query 200" in caplog.text
    assert "GET other 404" in caplog.text
    for secret in (PLANTED_ID, PLANTED_NAME, PLANTED_NAME.split("^")[0], str(serve_world)):
        assert secret not in caplog.text


def test_the_log_takes_an_exception_that_was_never_raised() -> None:
    error = KeyError(PLANTED_NAME)
    about = (KeyError, error, None)
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "late", None, about)
    assert NoForeignText().filter(record)
    assert record.getMessage() == "unexpected KeyError"
    assert record.exc_info is None


def test_no_answer_is_cached_or_sniffed(served: Running) -> None:
    for target in ("/docs", "/v1/info", "/nowhere"):
        headers = served.ask("GET", target)[1]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_the_port_says_where_it_listens(on_port: Running, served: Running) -> None:
    assert on_port.ready_line == f"ready on {on_port.listener.address}"
    assert served.ready_line == f"ready on {served.listener.address}"


def test_connections_are_kept(served: Running, serve_world: Path) -> None:
    with contextlib.closing(served.connection()) as connection:
        first = connection.sock
        for _ in range(3):
            connection.request("GET", "/health/live")
            assert connection.getresponse().read()
        assert connection.sock is first


@pytest.mark.slow
def test_many_queries_leave_no_file_and_no_thread(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = psutil.Process()
    file = one_file(serve_world)
    data = file.read_bytes()
    lines = {**DICOM, "Accept": "application/x-ndjson"}
    with running_server(serve_world, tmp_path / "s") as running:

        def ask_in_every_way(n_times: int) -> tuple[int, int]:
            for _ in range(n_times):
                assert running.ask_path(file)[0] == 200
                assert running.ask("POST", "/v1/query", data, DICOM)[0] == 200
                assert running.ask("POST", "/v1/query", data, lines)[0] == 200
                assert running.ask("POST", "/v1/query", b"x", DICOM)[0] == 422
                running.server.service.refresh_index(force=True)
            wait_for(lambda: running.server.service.queue.n_admitted == 0)
            return process.num_fds(), process.num_threads()

        before = ask_in_every_way(20)
        after = ask_in_every_way(100)
        assert after[0] <= before[0] + 2
        assert after[1] <= before[1]
