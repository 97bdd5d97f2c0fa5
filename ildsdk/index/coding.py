"""Codes for faster search: made and checked by ``native_hash``, kept by the index unread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def segment_codes(
    embeddings: npt.NDArray[np.float32], n_threads: int
) -> dict[str, npt.NDArray[Any]]:
    """Codes of one segment's embeddings ``(n, d)``; empty where none are of use. Needs numba."""
    import native_hash

    return native_hash.segment_codes(embeddings, n_threads=n_threads)


def codes_problems(
    embeddings: npt.NDArray[np.float32], codes: Mapping[str, npt.NDArray[Any]]
) -> list[str]:
    """What is wrong with stored codes of these embeddings; empty when they are right.

    Needs numba.
    """
    import native_hash

    return native_hash.segment_codes_problems(embeddings, codes)
