"""What a resident server may use: threads, queue, time, bytes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from ildsdk.errors import ConfigError


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Bounds of one resident server.

    Attributes
    ----------
    n_workers : int
        Queries answered at the same time. One query uses the whole thread budget already: more
        raise the throughput of small studies, and the time of each.
    max_waiting : int
        Queries that may wait for a worker, their uploads included; the next one is refused.
    timeout_s : float
        Time for one query in seconds, upload and waiting included.
    grace_s : float
        How long queries may still run when the server is told to end, in seconds.
    max_upload_bytes : int
        Largest upload.
    upload_folder : Path or None
        Where uploads lie while their query runs; None takes the system's temporary folder.
    remembered_slices : int or None
        Slices whose embedding is kept for when the same pixels come again, see
        :meth:`ildsdk.Retriever.open`; 0: none, None: as many as there.
    reload_s : float
        How often to look whether the index was changed, in seconds; 0: only when told.
    """

    n_workers: int = 1
    max_waiting: int = 8
    timeout_s: float = 300.0
    grace_s: float = 30.0
    max_upload_bytes: int = 512 << 20
    upload_folder: Path | None = None
    remembered_slices: int | None = None
    reload_s: float = 2.0

    def __post_init__(self) -> None:
        _check(self.n_workers >= 1, f"n_workers is {self.n_workers!r}, expected 1 or more")
        _check(self.max_waiting >= 0, f"max_waiting is {self.max_waiting!r}, expected 0 or more")
        _check(
            self.remembered_slices is None or self.remembered_slices >= 0,
            f"remembered_slices is {self.remembered_slices!r}, expected 0 or more",
        )
        for name in ("timeout_s", "grace_s", "reload_s"):
            value = getattr(self, name)
            _check(
                math.isfinite(value) and value >= 0 and (value > 0 or name != "timeout_s"),
                f"{name} is {value!r}, expected {'above 0' if name == 'timeout_s' else '0 or more'}"
                " (seconds)",
            )
        _check(
            self.max_upload_bytes >= 1,
            f"max_upload_bytes is {self.max_upload_bytes!r}, expected 1 or more",
        )
