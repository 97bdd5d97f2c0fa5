"""A bounded queue before the query threads: what does not fit is refused at once.

Runs on the server's event loop but for the queries themselves. A query has a place from before
its upload is read until nothing works on it any more; the number of places is the bound.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ildsdk.errors import QueryCancelledError, ServerBusyError

ResultT = TypeVar("ResultT")

_REMEMBERED = 20  # query times that the advice when to come again is made of


class Place:
    """One admitted query.

    Attributes
    ----------
    cancelled : threading.Event
        Set once nobody waits for the answer.
    resources : contextlib.ExitStack
        Closed when nothing uses the query any more, its worker included.
    """

    def __init__(self, leave: Callable[[Place], None]) -> None:
        self.cancelled = threading.Event()
        self.resources = contextlib.ExitStack()
        self.is_running = False
        self.admitted_at = time.perf_counter()
        self.waited_s: float | None = None
        self._leave = leave

    def leave(self) -> None:
        """Give the place back and drop its resources; again is harmless."""
        try:
            self.resources.close()
        finally:
            self._leave(self)


class QueryQueue:
    """Admits queries, and runs them on threads of its own.

    Parameters
    ----------
    n_workers : int
        Queries that run at the same time.
    max_waiting : int
        Queries that may have a place without running.
    """

    def __init__(self, n_workers: int, max_waiting: int) -> None:
        self._n_workers = n_workers
        self._max_waiting = max_waiting
        self._pool = ThreadPoolExecutor(n_workers, thread_name_prefix="ildsdk-query")
        self._lock = threading.Lock()
        self._places: set[Place] = set()
        self._recent_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._is_ending = False

    @property
    def n_running(self) -> int:
        """Queries that a worker has in hand."""
        with self._lock:
            return sum(place.is_running for place in self._places)

    @property
    def n_waiting(self) -> int:
        """Queries admitted and not begun, their uploads included."""
        with self._lock:
            return sum(not place.is_running for place in self._places)

    @property
    def n_admitted(self) -> int:
        """Queries that run or wait."""
        with self._lock:
            return len(self._places)

    @property
    def is_ending(self) -> bool:
        """Whether no further query is admitted."""
        return self._is_ending

    def admit(self) -> Place:
        """Take a place for a query.

        Raises
        ------
        ServerBusyError
            All places are taken, or the server is ending.
        """
        with self._lock:
            if self._is_ending:
                raise ServerBusyError("the server is ending: ask the one that follows it")
            if len(self._places) >= self._n_workers + self._max_waiting:
                after_s = self._advice_s()
                raise ServerBusyError(
                    f"{len(self._places)} queries run or wait already (--workers "
                    f"{self._n_workers}, --max-waiting {self._max_waiting}): try again in about "
                    f"{after_s} s",
                    after_s,
                )
            place = Place(self._left)
            self._places.add(place)
            return place

    def start(self, place: Place, work: Callable[[], ResultT]) -> Future[ResultT]:
        """Hand a query to the workers; its place is left when the work is over.

        The future raises QueryCancelledError where the place was cancelled before the work began.
        """

        def run() -> ResultT:
            started = time.perf_counter()
            place.waited_s = started - place.admitted_at
            if place.cancelled.is_set():
                raise QueryCancelledError("cancelled before it began")
            place.is_running = True
            try:
                return work()
            finally:
                with self._lock:
                    self._recent_s.append(time.perf_counter() - started)

        future = self._pool.submit(run)
        future.add_done_callback(lambda _: place.leave())
        return future

    def end(self) -> None:
        """Admit no further query; those with a place go on."""
        self._is_ending = True

    def cancel_all(self) -> None:
        """Tell every query to stop; one that runs does so after the slices it has in hand."""
        with self._lock:
            for place in self._places:
                place.cancelled.set()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no query runs; False where one still does after so many seconds."""
        deadline = time.perf_counter() + timeout_s
        while self.n_running and time.perf_counter() < deadline:
            time.sleep(0.01)
        return self.n_running == 0

    def close(self) -> None:
        """End the threads; waits for none that still works."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _left(self, place: Place) -> None:
        with self._lock:
            self._places.discard(place)

    def _advice_s(self) -> int:
        """Seconds until about one place is free, 1 at least."""
        if not self._recent_s:
            return 1
        mean_s = sum(self._recent_s) / len(self._recent_s)
        return max(1, math.ceil(mean_s / self._n_workers))
