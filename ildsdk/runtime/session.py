"""The little that the rest of the library asks of a loaded network.

An engine is one file with a class of this shape and a function that opens it, like
:mod:`ildsdk.runtime.ort_session`; :mod:`ildsdk.runtime.networks` is the only caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Axes: TypeAlias = Sequence[int | str | None]
"""Axes of a tensor, batch first; a name or None where a model leaves one free."""


class Session(Protocol):
    """A loaded network that runs on a known provider; safe to share between threads."""

    @property
    def provider(self) -> str:
        """The provider that really runs: ``"cpu"``, ``"cuda"`` or ``"tensorrt"``."""

    @property
    def input_shapes(self) -> Mapping[str, Axes]:
        """Axes of each input by name."""

    @property
    def output_shapes(self) -> Mapping[str, Axes]:
        """Axes of each output by name."""

    def run_all(
        self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[np.float32]]
    ) -> list[npt.NDArray[np.float32]]:
        """Compute the named outputs (float32) from named float32 inputs, in one run.

        Raises
        ------
        ModelError
            The engine refused the inputs or failed while running.
        """
