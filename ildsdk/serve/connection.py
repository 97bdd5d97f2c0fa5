"""An HTTP connection that a silent client cannot hold for ever."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

# There are a few hundred connections at most (server.py): silent ones would shut out all others.
_REQUEST_S = 20.0
_UNREAD_S = 60.0


class Connection(H11Protocol):
    """uvicorn's connection with the time limits that it has no options for.

    uvicorn itself only closes what is silent between two requests, and no longer once a byte came.
    Here a connection is cut that brings no whole request head within 20 s of its beginning (or of
    the end of the time between two requests), or whose client takes nothing of what is written for
    60 s. The body of a query has the query's own time limit.
    """

    _for_request: asyncio.TimerHandle | None = None
    _for_reader: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._await_request(_REQUEST_S)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        super().data_received(data)
        if not self._is_idle():
            _stop(self._for_request)

    def on_response_complete(self) -> None:
        """Go on to the next request, which may have come already."""
        super().on_response_complete()
        if self._is_idle():
            self._await_request(self.timeout_keep_alive + _REQUEST_S)

    def pause_writing(self) -> None:
        """Note that the client reads more slowly than the server writes."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Note that it caught up."""
        super().resume_writing()
        _stop(self._for_reader)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        _stop(self._for_request)
        _stop(self._for_reader)
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_request(self, seconds: float) -> None:
        _stop(self._for_request)
        # Not closed: that would wait for the client to read what is left.
        self._for_request = self.loop.call_later(seconds, self.transport.abort)

    def _await_reader(self, n_unread: int | None = None) -> None:
        """Cut the connection where as much is unread as the last time."""
        n_now = self.transport.get_write_buffer_size()
        if n_unread is not None and n_now >= n_unread:
            self.transport.abort()
            return
        self._for_reader = self.loop.call_later(_UNREAD_S, self._await_reader, n_now)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
