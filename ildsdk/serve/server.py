"""The process: listens, warms up, serves, follows its index, ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import uvicorn

from ildsdk.serve.app import make_app
from ildsdk.serve.connection import Connection
from ildsdk.serve.listening import BACKLOG, Listener
from ildsdk.serve.live_retriever import LiveRetriever
from ildsdk.serve.log import LOGGER
from ildsdk.serve.notify import notify, reloading
from ildsdk.serve.service import Service
from ildsdk.serve.settings import ServeSettings
from ildsdk.serve.uploads import check_upload_folder
from ildsdk.settings import RuntimeSettings

# After its grace time a query still needs to reach the end of the slice in hand.
_LAST_SLICE_S = 10
_MAX_CONNECTIONS = 256
_KEEP_ALIVE_S = 60


class Server:
    """One resident server.

    Parameters
    ----------
    listener : Listener
    bundle, index : Path or None
        None takes the embedded one.
    runtime : RuntimeSettings
    settings : ServeSettings
    on_ready : callable
        Called with one line for people, once queries are taken.
    notify_socket : str or None
        Where a service manager listens, see :func:`~ildsdk.serve.notify.notify`.

    Raises
    ------
    ConfigError
        Uploads cannot be kept.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        bundle: Path | None,
        index: Path | None,
        runtime: RuntimeSettings,
        settings: ServeSettings,
        on_ready: Callable[[str], None],
        notify_socket: str | None = None,
    ) -> None:
        check_upload_folder(settings.upload_folder)
        self._listener = listener
        self._bundle = bundle
        self._index = index
        self._runtime = runtime
        self._settings = settings
        self._on_ready = on_ready
        self._notify_socket = notify_socket
        self.service = Service(settings, takes_paths=listener.is_private)
        self._http = _Http(
            uvicorn.Config(
                make_app(self.service, listener.hosts),
                loop="asyncio",
                http=Connection,
                ws="none",
                lifespan="off",
                # Requests are written down by the guard, without what was sent.
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(settings.grace_s) + _LAST_SLICE_S,
            ),
            self._begin_to_end,
        )
        self._failure: BaseException | None = None

    def run(self) -> bool:
        """Serve until told to end (SIGTERM, SIGINT or :meth:`stop`).

        Returns
        -------
        bool
            False where a query still works although its grace time is over.

        Raises
        ------
        IldError
            Bundle, index, execution provider or self-test refused at the start.
        """
        try:
            asyncio.run(self._serve())
        finally:
            self.service.queue.cancel_all()
            is_quiet = self._http.force_exit or self.service.queue.wait_idle(_LAST_SLICE_S)
            self.service.close()
        if self._failure is not None:
            raise self._failure
        return is_quiet and self.service.queue.n_running == 0

    def stop(self) -> None:
        """Begin to end, from any thread; before :meth:`run` too."""
        self._http.stop()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._http.loop = loop
        with _reload_signal(loop, self._reload):
            chores = asyncio.create_task(self._start_then_watch())
            try:
                await self._http.serve(sockets=[self._listener.bound])
            finally:
                chores.cancel()
                await asyncio.gather(chores, return_exceptions=True)

    async def _start_then_watch(self) -> None:
        if self._http.should_exit:
            return
        try:
            live = await asyncio.to_thread(
                LiveRetriever,
                self._bundle,
                self._index,
                self._runtime,
                self._settings.remembered_slices,
            )
            self.service.begin(live)
            line = f"ready on {self._listener.address}"
            self._on_ready(line)
        except Exception as error:
            self._failure = error
            self._http.stop()
            return
        notify(self._notify_socket, "READY=1", f"STATUS={line}")
        while self._settings.reload_s:
            await asyncio.sleep(self._settings.reload_s)
            await asyncio.to_thread(self.service.refresh_index)

    def _reload(self) -> None:
        async def reload() -> None:
            notify(self._notify_socket, *reloading())
            await asyncio.to_thread(self.service.refresh_index, force=True)
            notify(self._notify_socket, "READY=1")

        self._reload_task = asyncio.create_task(reload())  # held, or it may be collected

    def _begin_to_end(self) -> None:
        """Run on the loop when the server was told to end."""
        self.service.end()
        notify(self._notify_socket, "STOPPING=1")
        LOGGER.info("ending: %d queries to finish", self.service.queue.n_admitted)
        asyncio.get_running_loop().call_later(self._settings.grace_s, self.service.queue.cancel_all)


class _Http(uvicorn.Server):
    """uvicorn that says when it begins to end, and after which SIGTERM is a good end."""

    def __init__(self, config: uvicorn.Config, on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._on_end = on_end
        self._is_ending = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal; a second SIGINT does not wait for queries."""
        super().handle_exit(sig, frame)
        self._tell()

    def stop(self) -> None:
        """Begin to end, from any thread."""
        self.should_exit = True
        self._tell()

    def _tell(self) -> None:
        if not self._is_ending and self.loop is not None and not self.loop.is_closed():
            self._is_ending = True
            self.loop.call_soon_threadsafe(self._on_end)


@contextlib.contextmanager
def _reload_signal(loop: asyncio.AbstractEventLoop, reload: Callable[[], None]) -> Iterator[None]:
    if not _is_main_thread() or not hasattr(signal, "SIGHUP"):
        yield
        return
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
