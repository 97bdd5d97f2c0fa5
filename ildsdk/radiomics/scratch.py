"""Working memory of the fast engine, owned by the caller and used again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt


class RadiomicsScratch:
    """Buffers that grow to the largest region seen and are then used again.

    One scratch serves one thread at a time. Handing one in saves the allocation per
    slice; values do not depend on it.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, npt.NDArray[Any]] = {}
        self._beside: RadiomicsScratch | None = None

    @property
    def beside(self) -> RadiomicsScratch:
        """Scratch of a second thread that works on the same region."""
        if self._beside is None:
            self._beside = RadiomicsScratch()
        return self._beside

    def take(
        self, name: str, shape: int | tuple[int, ...], dtype: npt.DTypeLike
    ) -> npt.NDArray[Any]:
        """Array from the named buffer; contents are whatever was left there."""
        size = shape if isinstance(shape, int) else math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = np.empty(max(size, 1), dtype=dtype)
            self._buffers[name] = buffer
        return buffer[:size] if isinstance(shape, int) else buffer[:size].reshape(shape)

    def zeros(self, name: str, size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Array of zeros from the named buffer, which its user leaves all zero again."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = np.zeros(size, dtype=dtype)
            self._buffers[name] = buffer
        return buffer[:size]

    @property
    def n_bytes(self) -> int:
        """Memory held, in bytes."""
        own = sum(buffer.nbytes for buffer in self._buffers.values())
        return own + (self._beside.n_bytes if self._beside is not None else 0)
