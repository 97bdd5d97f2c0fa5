"""From a worker thread to the event loop, never far ahead of the client."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from ildsdk.errors import QueryCancelledError

_AHEAD = 16
_LOOK_EVERY_S = 0.05


class Channel:
    """Bounded queue of events; made on the event loop.

    Parameters
    ----------
    cancelled : threading.Event
        Set once nobody takes events any more.
    """

    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(_AHEAD)
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def put(self, event: dict[str, Any]) -> None:
        """Hand over from a worker; waits while the client is slow.

        Raises
        ------
        QueryCancelledError
            Nobody takes it any more.
        """
        while not self._room.acquire(timeout=_LOOK_EVERY_S):
            if self._cancelled.is_set():
                raise QueryCancelledError("nobody takes the answer any more")
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def end(self) -> None:
        """Say, on the event loop, that no further event comes."""
        self._events.put_nowait(None)

    async def get(self, timeout_s: float) -> dict[str, Any] | None:
        """Next event, None after the last.

        Raises
        ------
        TimeoutError
            None came in time.
        """
        event = await asyncio.wait_for(self._events.get(), timeout_s)
        self._room.release()
        return event
