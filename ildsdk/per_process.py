"""What a process has opened and its forked children must open anew."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class _Slot(Generic[ValueT]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: list[ValueT] = []


class PerProcess(Generic[ValueT]):
    """A value each process makes for itself; safe to share between threads and across forks.

    A forked child inherits the memory of its parent, not its threads: networks that run on
    several threads, and locks that a thread held at that moment, are dead there. A child
    therefore never touches what its parent opened.

    Parameters
    ----------
    value
        That of the process that makes this object.
    reopen : callable
        Makes that of a child, given its parent's, when the child first asks.
    """

    def __init__(self, value: ValueT, reopen: Callable[[ValueT], ValueT]) -> None:
        self._reopen = reopen
        self._first = value
        slot: _Slot[ValueT] = _Slot()
        slot.values.append(value)
        self._slots: dict[int, _Slot[ValueT]] = {os.getpid(): slot}

    def opened(self) -> ValueT | None:
        """Value of this process if it has one already; opens nothing."""
        slot = self._slots.get(os.getpid())
        return slot.values[0] if slot is not None and slot.values else None

    def get(self) -> ValueT:
        """Value of this process; after an error of ``reopen`` the next call tries again."""
        # By process number: a lock of the parent's could be held for ever in a child.
        slot = self._slots.get(os.getpid()) or self._slots.setdefault(os.getpid(), _Slot())
        if not slot.values:
            with slot.lock:
                if not slot.values:
                    slot.values.append(self._reopen(self._first))
        return slot.values[0]
