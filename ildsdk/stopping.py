"""A caller's wish to end work early: a token he sets, or a time limit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final, Protocol, TypeAlias, TypeVar

from ildsdk.errors import ConfigError, QueryCancelledError, QueryTimeoutError

ResultT = TypeVar("ResultT")
StopCheck: TypeAlias = Callable[[], None]

# How often a waiting thread looks at the token: no token wakes it.
LOOK_EVERY_S: Final = 0.02


class CancelToken(Protocol):
    """Anything with ``is_set``, as :class:`threading.Event` has."""

    def is_set(self) -> bool:
        """Whether the work should end."""
        ...


Cancel: TypeAlias = CancelToken | Callable[[], bool]


def never_stop() -> None:
    """A check that lets all work go on."""


class StopSignal:
    """Tells work to end once its token is set or its time is over.

    Made where the work begins: from then on the time counts.

    Parameters
    ----------
    cancel : CancelToken or callable, optional
        Asked between stages of the work, from every thread that does it.
    timeout_s : float, optional
        Seconds of wall clock from now, the caller's own time between two results included.

    Attributes
    ----------
    progress : str
        How far the work is, for the message.

    Raises
    ------
    ConfigError
        ``timeout_s`` is not a positive, finite number.
    TypeError
        ``cancel`` is neither a token nor callable.
    """

    def __init__(self, cancel: Cancel | None = None, timeout_s: float | None = None) -> None:
        if timeout_s is not None and not (math.isfinite(timeout_s) and timeout_s > 0):
            raise ConfigError(
                f"timeout_s is {timeout_s!r}, expected a finite number above 0 (seconds)"
            )
        is_set = getattr(cancel, "is_set", cancel)
        if is_set is not None and not callable(is_set):
            raise TypeError("cancel is neither callable nor has it is_set()")
        self._is_cancelled: Callable[[], bool] | None = is_set
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.progress = "before the first slice"

    def check(self) -> None:
        """Return where the work may go on.

        Raises
        ------
        QueryCancelledError
            The token is set.
        QueryTimeoutError
            The time is over.
        """
        if self._is_cancelled is not None and self._is_cancelled():
            raise QueryCancelledError(
                f"cancelled by the caller {self.progress}; nothing of the work goes on"
            )
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise QueryTimeoutError(
                f"the time limit of {self._timeout_s:g} s was reached {self.progress}: allow more "
                "time, or take fewer slices (--every-mm)"
            )

    def result_of(self, future: Future[ResultT]) -> ResultT:
        """Wait for a result, but no longer than the caller wants.

        Raises
        ------
        QueryCancelledError, QueryTimeoutError
            As :meth:`check`; the work behind the future is not touched.
        """
        self.check()
        while not future.done():
            wait([future], timeout=self._patience_s())
            self.check()
        return future.result()

    def _patience_s(self) -> float | None:
        """How long to wait before the next look; None: until woken."""
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0)
        if self._is_cancelled is None:
            return left
        return LOOK_EVERY_S if left is None else min(left, LOOK_EVERY_S)
