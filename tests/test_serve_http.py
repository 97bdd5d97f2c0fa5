"""The HTTP interface on a Unix socket and on a port, in this process."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ildsdk import QuerySettings, Retriever
from ildsdk.errors import QueryCancelledError
from ildsdk.serve import service
from tests.archive_factory import PLANTED_NAME
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


def untimed(answer: Any) -> Any:
    """An answer without what differs from run to run."""
    if isinstance(answer, dict):
        return {key: untimed(value) for key, value in answer.items() if key != "timings_ms"}
    return [untimed(value) for value in answer] if isinstance(answer, list) else answer


def zip_of(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return content.getvalue()


@contextlib.contextmanager
def blocked_queries(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Queries wait for the event, as a long one would, and stop where theirs is cancelled."""
    go_on = threading.Event()

    def slow(retriever: Retriever, study: Path, settings: QuerySettings, cancelled: Any) -> Any:
        while not go_on.wait(0.005):
            if cancelled.is_set():
                raise QueryCancelledError("cancelled")
        return retriever.query(study, settings)

    with monkeypatch.context() as patched:
        patched.setattr(service, "_query", slow)
        try:
            yield go_on
        finally:
            go_on.set()


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("parameters", "settings"),
    [
        ("", QuerySettings()),
        (
            "?top_n=3&every_mm=0&search_mode=paper&exclude_same_patient=false",
            QuerySettings(top_n=3, every_mm=0, search_mode="paper", exclude_same_patient=False),
        ),
    ],
)
def test_the_answer_is_that_of_a_query_in_process(
    served: Running, serve_world: Path, retriever: Retriever, parameters: str,
    settings: QuerySettings,
) -> None:  # fmt: skip
    expected = json.loads(retriever.query(serve_world / "study", settings).to_json())
    status, headers, answer = served.ask_path(serve_world / "study", parameters)
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert untimed(answer) == untimed(expected)
    assert "Not a medical device" in answer["provenance"]["notice"]
    assert list(answer) == list(expected)  # also in the same order


def test_uploads_answer_as_paths_do_under_a_name_of_their_own(
    served: Running, on_port: Running, serve_world: Path, retriever: Retriever
) -> None:
    file = one_file(serve_world)
    expected = json.loads(retriever.query(file, QuerySettings()).to_json())
    for place in expected["studies"][0]["slices"]:
        place["source"] = "upload.dcm"
    for running in (served, on_port):
        status, _, body = running.ask("POST", "/v1/query", file.read_bytes(), DICOM)
        assert status == 200, body
        assert untimed(json.loads(body)) == untimed(expected)
    archive = zip_of(serve_world / "study")
    status, _, body = on_port.ask(
        "POST", "/v1/query?every_mm=0", archive, {"Content-Type": "application/zip"}
    )
    assert status == 200, body
    assert len(json.loads(body)["studies"][0]["slices"]) == 4


def test_chunked_uploads_too(on_port: Running, serve_world: Path) -> None:
    data = one_file(serve_world).read_bytes()
    pieces = (data[start : start + 10_000] for start in range(0, len(data), 10_000))
    status, _, body = on_port.ask("POST", "/v1/query", pieces, DICOM)
    assert status == 200, body


def test_uploads_leave_nothing(serve_world: Path, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    data = one_file(serve_world).read_bytes()
    with running_server(serve_world, tmp_path / "s", upload_folder=uploads) as running:
        assert running.ask("POST", "/v1/query", data, DICOM)[0] == 200
        assert running.ask("POST", "/v1/query", data[:5000], DICOM)[0] == 422
        assert running.ask("POST", "/v1/query", b"", DICOM)[0] == 422
        wait_for(lambda: not list(uploads.iterdir()))


def test_many_clients_at_once_get_their_own_answers(
    serve_world: Path, tmp_path: Path, retriever: Retriever
) -> None:
    files = sorted(path for path in (serve_world / "study").rglob("*") if path.is_file())
    expected = [untimed(json.loads(retriever.query(file).to_json())) for file in files]
    found: list[Any] = [None] * 3 * len(files)

    with running_server(serve_world, tmp_path / "s", n_workers=2, max_waiting=20) as running:

        def ask(number: int) -> None:
            found[number] = running.ask_path(files[number % len(files)])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for number, (status, _, answer) in enumerate(found):
        assert status == 200
        assert untimed(answer) == expected[number % len(files)]


# ---------------------------------------------------------------- problems


def test_problems_carry_code_text_and_exit_status(
    served: Running, serve_world: Path, tmp_path: Path, retriever: Retriever
) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    status, headers, problem = served.ask_path(tmp_path)
    assert status == 422
    assert headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["exit_code"]) == ("no-usable-slice", 3)
    assert problem["status"] == 422
    assert [item["reason"] for item in problem["answer"]["skipped"]] == ["not-dicom"]
    with pytest.raises(Exception, match="no usable slice") as caught:
        retriever.query(tmp_path)
    assert problem["detail"] == str(caught.value)

    status, _, problem = served.ask_path(tmp_path / "absent")
    assert (status, problem["code"], problem["exit_code"]) == (400, "config", 2)
    assert problem["detail"] == "the study path does not exist"
    status, _, problem = served.ask_path(serve_world / "study", "?series_uid=1.2.3")
    assert (status, problem["code"]) == (400, "config")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ("?top_m=3", "did you mean 'top_n'"),
        ("?top_n=many", "expected a whole number"),
        ("?top_n=0", "expected a whole number from 1 to 1000"),
        ("?every_mm=nan", "expected 0 or more"),
        ("?exclude_same_patient=perhaps", "expected true or false"),
        ("?search_mode=best", "expected one of exact, fast, paper"),
        ("?top_n=3&top_n=4", "given twice"),
    ],
)
def test_parameters_are_checked_as_settings_are(
    served: Running, serve_world: Path, parameters: str, text: str
) -> None:
    status, _, problem = served.ask_path(serve_world / "study", parameters)
    assert (status, problem["code"]) == (400, "config")
    assert text in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"path": 3}', b'{"path": "relative"}', b'{"path": "/a\\u0000b"}',
     b'{"path": "/a", "top_n": 3}', b"\xff", b"[" * 60_000],
)  # fmt: skip
def test_bodies_that_name_no_path(served: Running, body: bytes) -> None:
    status, _, answer = served.ask("POST", "/v1/query", body, {"Content-Type": "application/json"})
    assert (status, json.loads(answer)["code"]) == (400, "config")


def test_what_http_itself_refuses(served: Running, on_port: Running, serve_world: Path) -> None:
    cases = [
        (served, "POST", "/v1/query", b"x" * 70_000, "application/json", 413),
        (served, "POST", "/v1/query", b"x", "text/plain", 415),
        (on_port, "POST", "/v1/query", b"x", "", 415),
        (on_port, "POST", "/v1/query", b'{"path": "/etc/passwd"}', "application/json", 403),
        (on_port, "POST", "/v1/query", b"x" * ((1 << 20) + 1), "application/zip", 413),
        (served, "GET", "/v1/query", None, "", 405),
        (served, "GET", "/nowhere", None, "", 404),
        (served, "GET", "/docs/", None, "", 404),
    ]
    for running, method, target, body, kind, expected in cases:
        headers = {"Content-Type": kind} if kind else {}
        status, found, answer = running.ask(method, target, body, headers)
        assert status == expected, (target, kind, answer)
        assert found["content-type"] == "application/problem+json"
        assert json.loads(answer)["status"] == expected
    # A size that is not announced is noticed on the way.
    pieces = (b"x" * 100_000 for _ in range(20))
    assert on_port.ask("POST", "/v1/query", pieces, DICOM)[0] == 413
    assert on_port.server.service.queue.n_admitted == 0


def test_pages_of_other_sites_cannot_ask_a_port(on_port: Running, served: Running) -> None:
    host = on_port.listener.address.removeprefix("http://")
    for headers, expected in [
        ({"Host": host}, 200),
        ({"Host": host.replace("127.0.0.1", "localhost")}, 200),
        ({"Host": host, "Origin": f"http://{host}"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": f"evil.example:{host.rsplit(':', 1)[1]}"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Host": host, "Origin": "http://evil.example"}, 403),
        ({"Host": host, "Origin": "null"}, 403),
        ({"Host": host, "Sec-Fetch-Site": "cross-site"}, 403),
    ]:
        status, found, _ = on_port.ask("GET", "/v1/info", None, headers)
        assert status == expected, headers
        assert not any(name.startswith("access-control") for name in found)
    assert on_port.ask("OPTIONS", "/v1/query", None, {"Origin": f"http://{host}"})[0] == 405
    # No browser reaches a Unix socket: its clients say what they like.
    assert served.ask("GET", "/v1/info", None, {"Host": "anything"})[0] == 200


def test_a_defect_tells_its_place_and_not_its_text(
    served: Running, serve_world: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def broken(*args: object) -> None:
        raise KeyError(PLANTED_NAME)

    with monkeypatch.context() as patched, caplog.at_level(logging.DEBUG):
        patched.setattr(service, "_query", broken)
        status, _, problem = served.ask_path(serve_world / "study")
    assert (status, problem["exit_code"]) == (500, 1)
    assert "unexpected KeyError in broken" in problem["detail"]
    assert PLANTED_NAME not in json.dumps(problem) + caplog.text
    assert "KeyError" in caplog.text
    assert served.ask_path(serve_world / "study")[0] == 200  # it serves on


# ---------------------------------------------------------------- queue, time, clients that go


def test_what_does_not_fit_the_queue_is_told_to_come_again(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        running_server(serve_world, tmp_path / "s", max_waiting=1) as running,
        blocked_queries(monkeypatch) as go_on,
    ):
        answers: list[int] = []

        def ask() -> None:
            answers.append(running.ask_path(serve_world / "study")[0])

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: running.server.service.queue.n_admitted == 2)
        wait_for(lambda: running.metric("ildsdk_in_flight") == 1)
        assert running.metric("ildsdk_queue_depth") == 1
        status, headers, problem = running.ask_path(serve_world / "study")
        assert (status, problem["code"], problem["exit_code"]) == (503, "server-busy", 7)
        assert int(headers["retry-after"]) == problem["retry_after_s"] >= 1
        # An upload that does not fit is refused before it is read.
        with contextlib.closing(running.connection()) as connection:
            connection.putrequest("POST", "/v1/query")
            connection.putheader("Content-Type", "application/dicom")
            connection.putheader("Content-Length", "1000000")
            connection.endheaders()
            assert connection.getresponse().status == 503
        assert running.ask("GET", "/health/ready")[0] == 200  # others are not held up
        go_on.set()
        for thread in threads:
            thread.join(20)
        assert answers == [200, 200]
        assert running.metric("ildsdk_rejected_total") == 2


def test_a_client_that_goes_frees_the_worker(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        running_server(serve_world, tmp_path / "s", max_waiting=0) as running,
        blocked_queries(monkeypatch),
    ):
        connection = running.connection()
        connection.request(
            "POST", "/v1/query", json.dumps({"path": str(serve_world / "study")}),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        wait_for(lambda: running.metric("ildsdk_in_flight") == 1)
        connection.close()
        wait_for(lambda: running.server.service.queue.n_admitted == 0)
        wait_for(lambda: running.metric('ildsdk_cancelled_total{reason="client-gone"}') == 1)
        # Also one that goes in the middle of its upload.
        connection = running.connection()
        connection.putrequest("POST", "/v1/query")
        connection.putheader("Content-Type", "application/dicom")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders(b"x" * 1000)
        wait_for(lambda: running.server.service.queue.n_admitted == 1)
        connection.close()
        wait_for(lambda: running.server.service.queue.n_admitted == 0)


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_client_that_goes_while_it_waits_leaves_its_place_and_upload(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    bounds = {"max_waiting": 1, "upload_folder": uploads}
    with (
        running_server(serve_world, tmp_path / "s", **bounds) as running,
        blocked_queries(monkeypatch) as go_on,
        contextlib.closing(running.connection()) as first,
        contextlib.closing(running.connection()) as waiting,
    ):
        body = json.dumps({"path": str(serve_world / "study")})
        first.request("POST", "/v1/query", body, {"Content-Type": "application/json"})
        wait_for(lambda: running.server.service.queue.n_running == 1)
        waiting.request(
            "POST", "/v1/query", one_file(serve_world).read_bytes(), {**DICOM, "Accept": accept}
        )
        wait_for(lambda: any(path.is_symlink() for path in uploads.rglob("*")))
        waiting.close()
        wait_for(lambda: running.server.service.queue.n_admitted == 1)
        assert not list(uploads.iterdir())
        go_on.set()
        assert first.getresponse().status == 200


def test_a_query_has_only_so_much_time(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server(serve_world, tmp_path / "s", timeout_s=0.3) as running:
        with blocked_queries(monkeypatch):
            status, _, problem = running.ask_path(serve_world / "study")
            assert (status, problem["code"], problem["exit_code"]) == (504, "timeout", 6)
            assert "0.3 s" in problem["detail"]
            wait_for(lambda: running.server.service.queue.n_admitted == 0)
        # Also where the upload takes it all.
        with contextlib.closing(running.connection()) as connection:
            connection.putrequest("POST", "/v1/query")
            connection.putheader("Content-Type", "application/dicom")
            connection.putheader("Content-Length", "1000000")
            connection.endheaders(b"x" * 1000)
            assert connection.getresponse().status == 504
        assert running.server.service.queue.n_admitted == 0
        assert running.metric('ildsdk_cancelled_total{reason="timeout"}') == 2


def test_the_end_lets_running_queries_finish_and_cuts_off_the_rest(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for grace_s, finishes in ((20.0, True), (0.2, False)):
        with (
            running_server(serve_world, tmp_path / "s", grace_s=grace_s) as running,
            blocked_queries(monkeypatch) as go_on,
        ):
            answers: list[tuple[int, Any, Any]] = []
            thread = threading.Thread(
                target=lambda running=running, answers=answers: answers.append(
                    running.ask_path(serve_world / "study")
                )
            )
            idle = running.connection()
            idle.request("GET", "/health/live")
            idle.getresponse().read()
            thread.start()
            wait_for(lambda running=running: running.server.service.queue.n_running == 1)
            running.server.stop()
            wait_for(lambda running=running: running.server.service.state == "ending")
            if finishes:
                time.sleep(0.2)
                with pytest.raises(OSError):  # noqa: PT011  refused or reset: both are right
                    running.ask("GET", "/health/ready")
                go_on.set()
            thread.join(20)
            status, _, answer = answers[0]
            if finishes:
                assert status == 200
            else:
                assert (status, answer["code"]) == (503, "server-busy")
            idle.close()
