"""Work on many things at once, results in order, never far ahead of who takes them."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ildsdk.errors import QueryCancelledError
from ildsdk.stopping import StopCheck, StopSignal

SourceT = TypeVar("SourceT")
ResultT = TypeVar("ResultT")


def ordered_work(
    work: Callable[[SourceT, StopCheck], ResultT],
    sources: Iterable[SourceT],
    *,
    n_threads: int,
    n_ahead: int,
    stop: StopSignal,
) -> Generator[tuple[SourceT, ResultT], None, None]:
    """Run ``work`` on each source on threads of its own; give the results in order.

    Parameters
    ----------
    work : callable
        Of the source and a check to call between its stages: it raises once nobody waits for
        the result any more. What ``work`` raises ends the stream, at the source's turn.
    sources : iterable
        Taken one by one, ``n_ahead`` at most beyond the last one given back.
    n_threads : int
        Sources worked on at once; 1 works on the caller's own thread.
    n_ahead : int
        Bound of results that are made or being made and not yet taken.
    stop : StopSignal
        Looked at while waiting, and by the check.

    Yields
    ------
    (source, result)

    Notes
    -----
    However the stream ends (at its end, by an error, closed or dropped by the consumer), its
    threads are gone before control is back: what they have in hand ends at its next check.
    """
    if n_threads == 1:
        for source in sources:
            stop.check()
            yield source, work(source, stop.check)
        return
    is_abandoned = threading.Event()

    def check() -> None:
        if is_abandoned.is_set():
            raise QueryCancelledError("nobody waits for this result any more")
        stop.check()

    pending: collections.deque[tuple[SourceT, Future[ResultT]]] = collections.deque()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="ildsdk-slice")
    try:
        for source in sources:
            pending.append((source, pool.submit(work, source, check)))
            if len(pending) >= n_ahead:
                yield pending[0][0], stop.result_of(pending.popleft()[1])
        while pending:
            yield pending[0][0], stop.result_of(pending.popleft()[1])
    finally:
        is_abandoned.set()
        pool.shutdown(wait=True, cancel_futures=True)
