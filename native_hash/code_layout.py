"""How int8 codes lie in memory, shared by kernels, their numpy twin and the builder."""

from __future__ import annotations

BLOCK_ROWS = 16
"""Rows whose codes are interleaved: one vector instruction works on all of them."""

DIMENSION_STEP = 8
"""The dimension is padded with zeros to a multiple of this."""


def padded_dimension(d: int) -> int:
    """Smallest multiple of the step that holds d values."""
    return -(-d // DIMENSION_STEP) * DIMENSION_STEP


def query_code_limit(d: int) -> int:
    """Largest int16 code of a query for which no dot product leaves int32."""
    return min(32_767, (2**31 - 1) // (127 * padded_dimension(d)))
