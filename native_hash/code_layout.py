"""How codes lie in memory, shared by kernels, their numpy twins and the builders."""

from __future__ import annotations

import functools

BLOCK_ROWS = 16
"""Rows whose codes are interleaved: one vector instruction works on all of them."""

DIMENSION_STEP = 8
"""The dimension is padded with zeros to a multiple of this."""

WIDE_STEP = 64
"""The same where the codes of a row lie together (trees)."""

TOP_BLOCKS = 16
"""The highest level of a tree that is read from end to end has at most so many blocks."""

HEAD_LIMIT = 32_000
"""Integer that stands for 1 in the heads of a tree: products of two unit vectors fit int32."""

AXES_ERROR = 4e-6
"""Share of a square norm that the axes of a tree may be off from a right-angled set."""


def padded_dimension(d: int, step: int = DIMENSION_STEP) -> int:
    """Smallest multiple of the step that holds d values."""
    return -(-d // step) * step


@functools.cache
def query_code_limit(d: int) -> int:
    """Largest int16 code of a query for which no dot product leaves int32."""
    return min(32_767, (2**31 - 1) // (127 * padded_dimension(d)))


def level_sizes(n: int) -> list[int]:
    """Entries of each level of a tree of n rows: rows, blocks of 16 rows, 16 of those, ..."""
    sizes = [n, -(-n // BLOCK_ROWS)]
    while sizes[-1] > TOP_BLOCKS * BLOCK_ROWS:
        sizes.append(-(-sizes[-1] // BLOCK_ROWS))
    return sizes
