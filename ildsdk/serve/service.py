"""What the server does, without HTTP: its state, and one query from admission to answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator
from pathlib import Path
from typing import Any

from ildsdk.errors import (
    IldError,
    NoUsableSliceError,
    QueryCancelledError,
    QueryTimeoutError,
    ServerBusyError,
)
from ildsdk.records import QueryResult
from ildsdk.retriever import Retriever
from ildsdk.serve.channel import Channel
from ildsdk.serve.events import query_events
from ildsdk.serve.live_retriever import LiveRetriever
from ildsdk.serve.log import LOGGER, unexpected
from ildsdk.serve.metrics import Metrics
from ildsdk.serve.problems import RefusedRequestError
from ildsdk.serve.queueing import Place, QueryQueue
from ildsdk.serve.server_info import server_info
from ildsdk.serve.settings import ServeSettings
from ildsdk.settings import QuerySettings

_CANCELLED = ("client-gone", "timeout", "server-ended")


class ClientGoneError(Exception):
    """The client closed the connection before its answer."""


class Service:
    """One server's retriever, queue and metrics.

    Parameters
    ----------
    settings : ServeSettings
    takes_paths : bool
        Whether a query may name a path.
    """

    def __init__(self, settings: ServeSettings, *, takes_paths: bool) -> None:
        self.settings = settings
        self.takes_paths = takes_paths
        self.queue = QueryQueue(settings.n_workers, settings.max_waiting)
        self.metrics = Metrics(self.queue)
        self._live: LiveRetriever | None = None

    @property
    def state(self) -> str:
        """``"starting"``, ``"ready"`` or ``"ending"``."""
        if self.queue.is_ending:
            return "ending"
        return "starting" if self._live is None else "ready"

    def begin(self, live: LiveRetriever) -> None:
        """Take queries from now on."""
        self._live = live
        self.metrics.is_ready.set(1)
        self._note_index(live)

    def end(self) -> None:
        """Take no further query."""
        self.queue.end()
        self.metrics.is_ready.set(0)

    def close(self) -> None:
        """Let go of threads and index."""
        self.queue.close()
        if self._live is not None:
            self._live.close()

    def refresh_index(self, *, force: bool = False) -> None:
        """Follow a changed index; where that fails, say so and keep the state in use."""
        if self._live is None:
            return
        try:
            if self._live.refresh(force=force):
                self.metrics.reloads.labels("done").inc()
                self._note_index(self._live)
                LOGGER.info("index opened anew")
        except Exception as error:
            self.metrics.reloads.labels("failed").inc()
            why = str(error) if isinstance(error, IldError) else unexpected(error)
            LOGGER.error("index changed and cannot be opened, the state before stays: %s", why)

    def info(self) -> dict[str, Any]:
        """What runs and what it takes, for ``GET /v1/info``.

        Raises
        ------
        ServerBusyError
            Not ready yet.
        """
        with self._ready().borrow() as retriever:
            provenance = retriever.empty_result(QuerySettings(), ()).provenance
        return server_info(provenance, self.settings, takes_paths=self.takes_paths)

    def admit(self) -> Place:
        """Take a place for a query.

        Raises
        ------
        ServerBusyError
            Starting, full or ending.
        """
        self._ready()
        try:
            return self.queue.admit()
        except ServerBusyError:
            self.metrics.rejected.inc()
            raise

    async def answer(
        self,
        place: Place,
        study: Path,
        settings: QuerySettings,
        client_gone: Coroutine[Any, Any, None],
    ) -> str:
        """Answer as JSON text, the same as ``ildsdk query --format json`` prints.

        Parameters
        ----------
        client_gone : coroutine
            Done once nobody waits any more.

        Raises
        ------
        ClientGoneError
            It was.
        QueryTimeoutError
            The time for one query, counted from admission, is over.
        ServerBusyError
            The server ends and its grace time is over.
        RefusedRequestError
            Nothing of the study can be answered; with the answer without a study.
        IldError
            As :meth:`ildsdk.Retriever.query`.
        """
        work = asyncio.wrap_future(
            self.queue.start(place, lambda: self._answer(place, study, settings))
        )
        work.add_done_callback(_look_at)
        gone = asyncio.create_task(client_gone)
        try:
            either: set[asyncio.Future[Any]] = {work, gone}
            await asyncio.wait(
                either, timeout=self.time_left_s(place), return_when=asyncio.FIRST_COMPLETED
            )
            if work.done():
                return work.result()
            if gone.done():
                raise ClientGoneError
            raise self.timeout_error()
        except QueryCancelledError as error:
            raise _ended() from error
        finally:
            place.cancelled.set()
            work.cancel()  # where it still waits for a worker, it leaves its place now
            gone.cancel()

    async def events(
        self, place: Place, study: Path, settings: QuerySettings
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Answer slice by slice, as mappings for JSON (docs/serve.md).

        Closing the generator stops the query; where its time is over then, it counts as that.

        Yields
        ------
        dict
            ``event`` is ``"slice"``, ``"skipped"``, ``"study"``, and at last ``"end"``.

        Raises
        ------
        QueryTimeoutError, ServerBusyError, RefusedRequestError, IldError
            As :meth:`answer`.
        """
        channel = Channel(place.cancelled)
        work = asyncio.wrap_future(
            self.queue.start(place, lambda: self._put_events(place, study, settings, channel))
        )
        work.add_done_callback(_look_at)
        work.add_done_callback(lambda _: channel.end())
        with self.counted():
            try:
                while (event := await channel.get(self.time_left_s(place))) is not None:
                    yield event
                work.result()
            except TimeoutError:
                raise self.timeout_error() from None
            except GeneratorExit:
                if self.time_left_s(place) == 0:
                    raise self.timeout_error() from None
                raise
            except QueryCancelledError as error:
                raise _ended() from error
            finally:
                place.cancelled.set()
                work.cancel()

    def time_left_s(self, place: Place) -> float:
        """Seconds that a query may still take, 0 at least."""
        return max(0.0, self.settings.timeout_s - (time.perf_counter() - place.admitted_at))

    def timeout_error(self) -> QueryTimeoutError:
        """Error of a query whose time is over."""
        return QueryTimeoutError(
            f"no answer within {self.settings.timeout_s:g} s, upload and waiting included "
            "(ildsdk serve --timeout): take fewer slices (--every-mm), or start the server with "
            "more"
        )

    @contextlib.contextmanager
    def counted(self, *, is_answered: bool = True) -> Iterator[None]:
        """Count what becomes of a query.

        Parameters
        ----------
        is_answered : bool
            Whether the end of the block is that of the answer; else only failures count.
        """
        outcome: str | None = "defect"
        try:
            yield
            outcome = "answered" if is_answered else None
        except (ClientGoneError, asyncio.CancelledError, GeneratorExit):
            outcome = "client-gone"
            raise
        except RefusedRequestError as refused:
            outcome = refused.error.code
            raise
        except IldError as error:
            outcome = "server-ended" if isinstance(error, ServerBusyError) else error.code
            raise
        finally:
            if outcome is not None:
                self.metrics.queries.labels(outcome).inc()
            if outcome in _CANCELLED:
                self.metrics.cancelled.labels(outcome).inc()

    def _ready(self) -> LiveRetriever:
        if self._live is None:
            raise ServerBusyError("the server is starting: try again in a few seconds", 2)
        return self._live

    def _answer(self, place: Place, study: Path, settings: QuerySettings) -> str:
        with self._working(place, settings) as retriever:
            result = _query(retriever, study, settings, place.cancelled)
        self.metrics.count_answer(result)
        return result.to_json()

    def _put_events(
        self, place: Place, study: Path, settings: QuerySettings, channel: Channel
    ) -> None:
        with self._working(place, settings) as retriever:
            for event in query_events(retriever, study, settings, place.cancelled):
                channel.put(event)
                self.metrics.count_event(event)

    @contextlib.contextmanager
    def _working(self, place: Place, settings: QuerySettings) -> Iterator[Retriever]:
        """Lend the retriever to a worker, and take its time."""
        started = time.perf_counter()
        if place.waited_s is not None:
            self.metrics.wait_seconds.observe(place.waited_s)
        with self._ready().borrow() as retriever:
            try:
                yield retriever
            except NoUsableSliceError as error:
                self.metrics.count_skipped(error.skipped)
                answer = retriever.empty_result(settings, error.skipped).to_dict()
                raise RefusedRequestError(None, error, answer) from error
        self.metrics.query_seconds.observe(time.perf_counter() - started)

    def _note_index(self, live: LiveRetriever) -> None:
        with live.borrow() as retriever:
            made = retriever.empty_result(QuerySettings(), ()).provenance
        self.metrics.index_items.set(made.n_items)
        self.metrics.build.labels(
            made.ildsdk_version, f"{made.bundle_name} {made.bundle_hash[:12]}", made.provider
        ).set(1)


def _look_at(work: asyncio.Future[Any]) -> None:
    """Else asyncio logs, with its text, an error that came after nobody waited for it."""
    if not work.cancelled():
        work.exception()


def _ended() -> ServerBusyError:
    return ServerBusyError("the server ended before the answer: ask again", 5)


def _query(
    retriever: Retriever, study: Path, settings: QuerySettings, cancelled: threading.Event
) -> QueryResult:
    return retriever.query(study, settings, cancel=cancelled)
