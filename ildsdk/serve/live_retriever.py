"""One warm retriever that follows its index: writers commit, later queries see it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ildsdk import defaults
from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import NoUsableSliceError
from ildsdk.index import Index
from ildsdk.retriever import Retriever
from ildsdk.settings import QuerySettings, RuntimeSettings
from ildsdk.slice_memory import DEFAULT_MAX_SLICES
from ildsdk.warming import warm_up

MANIFEST_NAME = "manifest.json"
# A slice or two of the embedded phantom: every stage runs once, decoding and search included.
_SELF_TEST = QuerySettings(every_mm=100)

_Mark = tuple[int, int, int] | None


class _Opened:
    """A retriever and how many queries hold it; its index is closed after the last one."""

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = retriever
        self.n_users = 0
        self.is_replaced = False


class LiveRetriever:
    """Opens bundle, index and networks and runs them once; takes a changed index when told.

    A query keeps the state it began with. Safe to share between threads.

    Parameters
    ----------
    bundle, index : Path or None
        None takes the embedded one.
    runtime : RuntimeSettings
    remembered_slices : int or None
        As in :meth:`ildsdk.Retriever.open`; None takes its default.

    Raises
    ------
    ModelError, IndexFileError, ConfigError
        As :meth:`ildsdk.Retriever.open`; or the self-test fails.
    """

    def __init__(
        self,
        bundle: Path | None,
        index: Path | None,
        runtime: RuntimeSettings,
        remembered_slices: int | None = None,
    ) -> None:
        self._bundle = Bundle.open(bundle or defaults.bundle_path())
        self._index_path = index or defaults.index_path()
        encoder = Encoder(self._bundle, runtime)
        n_slices = DEFAULT_MAX_SLICES if remembered_slices is None else remembered_slices
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._mark = self._mark_on_disk()
        warm_up()
        self._opened = self._open(lambda index: Retriever(self._bundle, index, encoder, n_slices))

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Retriever]:
        """Give the present retriever; it stays open until the end of the block."""
        with self._lock:
            opened = self._opened
            opened.n_users += 1
        try:
            yield opened.retriever
        finally:
            with self._lock:
                opened.n_users -= 1
                is_over = opened.is_replaced and opened.n_users == 0
            if is_over:
                opened.retriever.close()

    def refresh(self, *, force: bool = False) -> bool:
        """Open the index anew where it changed on disk; True where it was.

        The new state is searched once before the first query gets it.

        Parameters
        ----------
        force : bool
            Also where nothing seems to have changed.

        Raises
        ------
        IndexFileError
            The new state is damaged or made with another bundle: the one before stays in use. Not
            raised again before the index changes again.
        """
        with self._refreshing:
            mark = self._mark_on_disk()
            if mark == self._mark and not force:
                return False
            self._mark = mark
            # The encoder is the same, so what it remembers of slices holds on.
            fresh = self._open(self._opened.retriever.with_index)
            with self._lock:
                before, self._opened = self._opened, fresh
                before.is_replaced = True
                is_over = before.n_users == 0
            if is_over:
                before.retriever.close()
            return True

    def close(self) -> None:
        """Close the index once no query holds it."""
        with self._lock:
            self._opened.is_replaced = True
            is_over = self._opened.n_users == 0
        if is_over:
            self._opened.retriever.close()

    def _open(self, retriever_of: Callable[[Index], Retriever]) -> _Opened:
        index = Index.open(self._index_path, expected_bundle_hash=self._bundle.bundle_hash)
        try:
            retriever = retriever_of(index)
            # A bundle may want more lung than the demo shows: that says nothing against it.
            with contextlib.suppress(NoUsableSliceError):
                retriever.query(defaults.demo_study_path(), _SELF_TEST)
        except BaseException:
            index.close()
            raise
        return _Opened(retriever)

    def _mark_on_disk(self) -> _Mark:
        """What changes with every commit: a writer replaces the manifest by a rename."""
        try:
            status = (self._index_path / MANIFEST_NAME).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
