"""When the server sees that the index changed."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from pathlib import Path

import pytest

from ildsdk import Index, Retriever
from ildsdk.errors import IndexFileError, NoUsableSliceError
from ildsdk.serve.live_retriever import LiveRetriever
from tests.bundle_factory import write_tiny_bundle
from tests.serve_factory import CPU, Running, running_server


@pytest.fixture
def world(serve_world: Path, tmp_path: Path) -> Path:
    """A copy whose index may be changed."""
    copy = tmp_path / "w"
    copy.mkdir()
    (copy / "bundle").symlink_to(serve_world / "bundle")
    shutil.copytree(serve_world / "index", copy / "index")
    return copy


def n_items(running: Running) -> int:
    return int(json.loads(running.ask("GET", "/v1/info")[2])["n_items"])


def remove_a_case(folder: Path) -> None:
    with Index.open(folder) as index:
        index.remove(case_ids=[index.items(index.rows()[:1])[0].case_id])


def test_a_commit_of_a_writer_is_seen_by_later_queries(world: Path, serve_world: Path) -> None:
    with running_server(world, world / "s", reload_s=0.05) as running:
        before = n_items(running)
        remove_a_case(world / "index")
        deadline = time.monotonic() + 20
        while n_items(running) == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert n_items(running) == before - 4
        status, _, answer = running.ask_path(serve_world / "study")
        assert status == 200
        with Retriever.open(world / "bundle", world / "index", provider="cpu") as fresh:
            expected = json.loads(fresh.query(serve_world / "study").to_json())
        assert answer["provenance"] == expected["provenance"]
        assert answer["studies"][0]["cases"] == expected["studies"][0]["cases"]
        assert running.metric("ildsdk_index_items") == before - 4
        assert running.metric('ildsdk_index_reloads_total{outcome="done"}') == 1


def test_a_damaged_state_leaves_the_one_in_use_and_is_told_once(
    world: Path, serve_world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_server(world, world / "s", reload_s=0.02) as running:
        before = n_items(running)
        text = (world / "index" / "manifest.json").read_text()
        (world / "index" / "new").write_text("{")
        with caplog.at_level(logging.INFO):
            (world / "index" / "new").replace(world / "index" / "manifest.json")
            deadline = time.monotonic() + 20
            while running.metric('ildsdk_index_reloads_total{outcome="failed"}') == 0:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.2)
        assert running.metric('ildsdk_index_reloads_total{outcome="failed"}') == 1
        assert caplog.text.count("the state before stays") == 1
        assert n_items(running) == before
        assert running.ask_path(serve_world / "study")[0] == 200
        assert running.ask("GET", "/health/ready")[0] == 200
        (world / "index" / "new").write_text(text)
        (world / "index" / "new").replace(world / "index" / "manifest.json")
        while running.metric('ildsdk_index_reloads_total{outcome="done"}') == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_query_keeps_the_state_it_began_with(world: Path, serve_world: Path) -> None:
    live = LiveRetriever(world / "bundle", world / "index", CPU)
    with live.borrow() as retriever:
        before = retriever.index.hash
        remove_a_case(world / "index")
        assert live.refresh()
        assert not live.refresh()
        with live.borrow() as later:
            assert later.index.hash != before
        result = retriever.query(serve_world / "study")  # its files are still open
        assert result.provenance.index_hash == before
    with pytest.raises(ValueError, match="closed"):
        retriever.query(serve_world / "study")  # the last user is gone
    with live.borrow() as later:
        assert len(later.query(serve_world / "study").studies) == 1
    live.close()


def test_slices_are_still_remembered_after_the_index_changed(
    world: Path, serve_world: Path
) -> None:
    live = LiveRetriever(world / "bundle", world / "index", CPU)
    with live.borrow() as retriever:
        expected = retriever.query(serve_world / "study").studies[0].slices
    remove_a_case(world / "index")
    assert live.refresh()
    with live.borrow() as retriever:
        slices = retriever.query(serve_world / "study").studies[0].slices
        assert all("reused" in answer.timings_ms for answer in slices)
        assert len(slices) == len(expected)
    live.close()


def test_a_bundle_that_wants_more_lung_than_the_demo_shows_can_be_served(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuses(self: Retriever, study: object, settings: object) -> None:
        asked.append(study)
        raise NoUsableSliceError(())

    with monkeypatch.context() as patched:
        patched.setattr(Retriever, "query", refuses)
        LiveRetriever(world / "bundle", world / "index", CPU).close()
    assert len(asked) == 1


def test_an_index_of_another_bundle_is_refused_at_start_and_later(
    world: Path, tmp_path: Path
) -> None:
    live = LiveRetriever(world / "bundle", world / "index", CPU)
    write_tiny_bundle(tmp_path / "other", seed=1)
    with Index.create(
        tmp_path / "foreign", name="foreign", bundle_hash="0" * 64, embedding_size=16,
        is_synthetic=True,
    ):  # fmt: skip
        pass
    shutil.rmtree(world / "index")
    (tmp_path / "foreign").rename(world / "index")
    with pytest.raises(IndexFileError, match="was built with bundle"):
        live.refresh()
    with live.borrow() as retriever:
        assert len(retriever.index) == 16
    live.close()
    with (
        pytest.raises(IndexFileError, match="was built with bundle"),
        running_server(world, world / "s"),
    ):
        pass


def test_refreshing_under_load_loses_no_query(world: Path, serve_world: Path) -> None:
    with running_server(world, world / "s", n_workers=2, max_waiting=20) as running:
        failures: list[object] = []
        is_over = threading.Event()

        def ask() -> None:
            while not is_over.is_set():
                status, _, answer = running.ask_path(serve_world / "study")
                if status != 200:
                    failures.append(answer)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            running.server.service.refresh_index(force=True)
        is_over.set()
        for thread in threads:
            thread.join(30)
        assert not failures
        assert running.metric('ildsdk_index_reloads_total{outcome="done"}') == 4
