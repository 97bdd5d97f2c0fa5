"""The streamed answer: pieces in order, the same whole, and an end that frees the worker."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ildsdk import QuerySettings, Retriever
from ildsdk.errors import ModelError
from ildsdk.serve import service
from tests.serve_factory import DICOM, Running, one_file, running_server
from tests.test_serve_http import untimed, wait_for

LINES = {"Accept": "application/x-ndjson", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def served(serve_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(serve_world, tmp_path_factory.mktemp("s") / "s.sock") as running:
        yield running


def lines(running: Running, path: Path, parameters: str = "") -> tuple[int, list[Any]]:
    body = json.dumps({"path": str(path)})
    status, headers, text = running.ask("POST", f"/v1/query{parameters}", body, LINES)
    if status == 200:
        assert headers["content-type"] == "application/x-ndjson"
    return status, [json.loads(line) for line in text.decode().splitlines()]


def test_the_pieces_make_the_whole_answer(
    served: Running, serve_world: Path, tmp_path: Path
) -> None:
    study = tmp_path / "both"
    study.mkdir()
    (study / "notes.txt").write_text("no DICOM")
    (study / "ct").symlink_to(serve_world / "study")
    for file in (serve_world / "study").rglob("*"):
        if file.is_file():
            (study / file.name).symlink_to(file)
    status, events = lines(served, study, "?every_mm=0")
    assert status == 200
    whole = served.ask_path(study, "?every_mm=0")[2]
    kinds = [event["event"] for event in events]
    assert kinds[-2:] == ["study", "end"]
    assert kinds.count("slice") == 4
    end = {key: value for key, value in events[-1].items() if key != "event"}
    assert untimed({**end, "studies": [events[-2]["study"]]}) == untimed(whole)
    assert [event["slice"] for event in events if event["event"] == "slice"] == events[-2]["study"][
        "slices"
    ]
    assert events[0] == {"event": "skipped", "skipped": whole["skipped"][0]}
    document = json.loads(served.ask("GET", "/openapi.json")[2])
    check = jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/Event", "components": document["components"]}
    )
    for event in events:
        check.validate(event)


def test_a_failure_before_the_first_line_has_its_own_status(
    served: Running, serve_world: Path, tmp_path: Path
) -> None:
    assert lines(served, tmp_path / "absent")[0] == 400
    status, (problem,) = lines(served, serve_world / "study", "?series_uid=1.2")
    assert (status, problem["code"]) == (400, "config")
    headers = {**DICOM, "Accept": LINES["Accept"]}
    assert served.ask("POST", "/v1/query", b"no DICOM", headers)[0] == 200
    assert served.ask("POST", "/v1/query", b"", headers)[0] == 422
    wait_for(lambda: served.server.service.queue.n_admitted == 0)


def test_a_later_failure_is_the_last_line(
    served: Running, serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    status, events = lines(served, tmp_path)
    assert status == 200
    assert [event["event"] for event in events] == ["skipped", "problem"]
    assert events[1]["problem"]["code"] == "no-usable-slice"
    assert events[1]["problem"]["answer"]["skipped"] == [events[0]["skipped"]]

    def breaks(*args: object) -> Iterator[dict[str, Any]]:
        yield {"event": "slice", "slice": {}}
        raise ModelError("the network failed")

    monkeypatch.setattr(service, "query_events", breaks)
    status, events = lines(served, serve_world / "study")
    assert (status, len(events)) == (200, 2)
    assert events[1]["problem"]["code"] == "model"
    assert served.metric('ildsdk_queries_total{outcome="model"}') == 1


def test_a_client_that_reads_slowly_or_goes_holds_up_nothing_for_ever(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_made = 0
    is_over = threading.Event()

    def endless(
        retriever: Retriever, study: Path, settings: QuerySettings, cancelled: threading.Event
    ) -> Iterator[dict[str, Any]]:
        nonlocal n_made
        try:
            while not cancelled.is_set():
                n_made += 1
                yield {"event": "slice", "slice": {"text": "x" * 100_000}}
        finally:
            is_over.set()

    monkeypatch.setattr(service, "query_events", endless)
    with (
        running_server(serve_world, tmp_path / "s") as running,
        contextlib.closing(running.connection()) as connection,
    ):
        body = json.dumps({"path": str(one_file(serve_world))})
        connection.request("POST", "/v1/query", body, LINES)
        response = connection.getresponse()
        assert response.readline().startswith(b'{"event": "slice"')
        time.sleep(0.5)
        n_before = n_made
        assert n_before < 200  # bounded, though the client takes nothing
        time.sleep(0.3)
        assert n_made == n_before
        response.close()
        connection.close()
        assert is_over.wait(20)
        wait_for(lambda: running.server.service.queue.n_admitted == 0)
        assert running.metric('ildsdk_cancelled_total{reason="client-gone"}') == 1


def test_a_client_that_stays_and_reads_nothing_frees_the_worker_at_the_time_limit(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(
        retriever: Retriever, study: Path, settings: QuerySettings, cancelled: threading.Event
    ) -> Iterator[dict[str, Any]]:
        while not cancelled.is_set():
            yield {"event": "slice", "slice": {"text": "x" * 100_000}}

    with running_server(serve_world, tmp_path / "s", timeout_s=0.5, max_waiting=0) as running:
        with (
            monkeypatch.context() as patched,
            contextlib.closing(running.connection()) as silent,
        ):
            patched.setattr(service, "query_events", endless)
            body = json.dumps({"path": str(one_file(serve_world))})
            silent.request("POST", "/v1/query", body, LINES)
            wait_for(lambda: running.metric("ildsdk_in_flight") == 1)
            wait_for(lambda: running.server.service.queue.n_admitted == 0)
            wait_for(lambda: running.metric('ildsdk_cancelled_total{reason="timeout"}') == 1)
            # Others are answered while it is still connected.
            assert running.ask_path(one_file(serve_world))[0] == 200
        assert running.metric('ildsdk_cancelled_total{reason="client-gone"}') == 0


def test_streams_have_the_same_time_limit(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(
        retriever: Retriever, study: Path, settings: QuerySettings, cancelled: threading.Event
    ) -> Iterator[dict[str, Any]]:
        yield {"event": "slice", "slice": {}}
        cancelled.wait(20)

    monkeypatch.setattr(service, "query_events", hangs)
    with running_server(serve_world, tmp_path / "s", timeout_s=0.4) as running:
        status, events = lines(running, serve_world / "study")
        assert status == 200
        assert events[-1]["problem"]["code"] == "timeout"
        wait_for(lambda: running.server.service.queue.n_admitted == 0)
        assert running.metric('ildsdk_cancelled_total{reason="timeout"}') == 1
