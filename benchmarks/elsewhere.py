"""How busy the machine was with other work while something was measured (Linux).

Threads that wait for each other suffer from a neighbor far more than one thread does, so on a busy
machine not even ratios hold, and rounds that were all disturbed do not tell of it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

MOST = 0.05  # share of the processors; a machine that rests shows about a hundredth

_STAT = Path("/proc/stat")


class Elsewhere:
    """Starts to watch when made; :meth:`share` tells of the time since.

    The processor time of this process and of all processes below it counts as its own, stolen
    time of a virtual machine as elsewhere.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._started = self._now()

    def share(self) -> float | None:
        """Share of all processors taken by others, 0 to 1; None where it cannot be told."""
        wall, busy, own = (
            now - before for now, before in zip(self._now(), self._started, strict=True)
        )
        if not _STAT.exists() or wall <= 0:
            return None
        return min(1.0, max(0.0, (busy - own) / (wall * (os.cpu_count() or 1))))

    def _now(self) -> tuple[float, float, float]:
        """Wall, busy and own seconds."""
        return time.perf_counter(), _busy_seconds(), self._own_seconds()

    def _own_seconds(self) -> float:
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:  # ended meanwhile: its parent has its time now
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total


def _busy_seconds() -> float:
    """Processor seconds since the start of the machine that were not idle."""
    if not _STAT.exists():
        return 0.0
    words = _STAT.read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _waiting, irq, soft_irq, steal = map(int, words)
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
