"""SIGTERM and SIGINT as a wish to end, from the first moment on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


class EndWish:
    """Remembers that the process was told to end, and tells whoever asks to be told."""

    def __init__(self) -> None:
        self.is_told = False
        self._tell: Callable[[], None] | None = None

    def then(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` at the wish, or now where it was told already."""
        self._tell = tell
        if self.is_told:
            tell()

    def note(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.is_told = True
        if self._tell is not None:
            self._tell()


@contextlib.contextmanager
def end_signals() -> Iterator[EndWish]:
    """Keep SIGTERM and SIGINT from killing the process inside the block.

    uvicorn raises the signal that ended it again once it is done: that finds this handler too.
    """
    wish = EndWish()
    kept = {sig: signal.signal(sig, wish.note) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield wish
    finally:
        for sig, handler in kept.items():
            signal.signal(sig, handler)
