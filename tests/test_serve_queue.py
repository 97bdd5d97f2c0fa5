"""The bounded queue alone."""

from __future__ import annotations

import threading

import pytest

from ildsdk.errors import QueryCancelledError, ServerBusyError
from ildsdk.serve.queueing import QueryQueue


def test_what_does_not_fit_is_refused_until_a_place_is_free() -> None:
    queue = QueryQueue(n_workers=1, max_waiting=1)
    go_on, runs = threading.Event(), threading.Event()

    def work() -> str:
        runs.set()
        assert go_on.wait(10)
        return "done"

    first = queue.start(queue.admit(), work)
    assert runs.wait(10)
    waiting = queue.admit()  # counts before it is handed to a worker: its upload may be large
    assert (queue.n_running, queue.n_waiting) == (1, 1)
    with pytest.raises(ServerBusyError, match="2 queries run or wait") as caught:
        queue.admit()
    assert caught.value.retry_after_s >= 1
    go_on.set()
    assert first.result(10) == "done"
    assert queue.start(waiting, work).result(10) == "done"
    assert (queue.n_running, queue.n_waiting) == (0, 0)
    queue.admit().leave()
    queue.close()


def test_resources_stay_until_the_work_is_over_also_after_it_failed() -> None:
    queue = QueryQueue(n_workers=1, max_waiting=0)
    place = queue.admit()
    closed = threading.Event()
    place.resources.callback(closed.set)

    def fail() -> None:
        assert not closed.is_set()
        raise KeyError("x")

    with pytest.raises(KeyError):
        queue.start(place, fail).result(10)
    assert closed.wait(10)
    queue.admit().leave()
    queue.close()


def test_cancelled_before_it_began_never_begins() -> None:
    queue = QueryQueue(n_workers=1, max_waiting=1)
    place = queue.admit()
    queue.end()
    with pytest.raises(ServerBusyError, match="ending"):
        queue.admit()
    queue.cancel_all()
    with pytest.raises(QueryCancelledError):
        queue.start(place, lambda: pytest.fail("it began")).result(10)
    assert queue.wait_idle(1)
    queue.close()


def test_a_query_that_hangs_is_known() -> None:
    queue = QueryQueue(n_workers=1, max_waiting=0)
    go_on, runs = threading.Event(), threading.Event()

    def hang() -> None:
        runs.set()
        go_on.wait(10)

    future = queue.start(queue.admit(), hang)
    assert runs.wait(10)
    assert not queue.wait_idle(0.05)
    go_on.set()
    future.result(10)
    queue.close()
