"""Keeps what must not be destroyed in a forked child."""

from __future__ import annotations

import ctypes
import os


class LeftInChildren:
    """Holds an object that only the process that made it may destroy.

    A session of ONNX Runtime joins its threads when it is destroyed. In a forked child
    these threads do not exist, and the join waits without end or crashes: there the object is
    left alone, as the pages it shares with the parent cost nothing.

    Parameters
    ----------
    held : object
        Keep this holder beside the only other reference to it.
    """

    def __init__(self, held: object) -> None:
        self._held = held
        self._pid = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self._pid:
            # One reference that nobody gives back, so that not even the end of the
            # interpreter destroys the object.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._held))
