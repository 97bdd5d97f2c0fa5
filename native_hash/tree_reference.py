"""The bounds of a tree, in plain numpy; kernels compute the same up to float32 rounding.

With heads of norm at most 1 and a cutoff over the norms of both sides, a row can reach the cutoff c
only where ``q . x >= c``, and lies in a ball of center b and radius r only where

    |q - b| <= r + |q - x|,  |q - x|^2 <= 2 - 2 c   (q of norm 1),

which squared is ``q . b + (1 + r^2 - |b|^2) / 2 + r sqrt(2 - 2 c) >= c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from native_hash.code_layout import (
    AXES_ERROR,
    BLOCK_ROWS,
    HEAD_LIMIT,
    level_sizes,
    padded_dimension,
)

if TYPE_CHECKING:
    from native_hash.tree import Tree

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int16 = npt.NDArray[np.int16]


def encode_head(query: Float32, axes: Float32, depth: float = 1.0) -> tuple[Int16, float]:
    """Head of a query ``(d,)`` that is not zero: unit vector int16 ``(h,)``, and its norm."""
    wide = query.astype(np.float64)
    along = axes.astype(np.float64) @ wide
    total = float(wide @ wide)
    left = max(total - float(along @ along), 0.0) + AXES_ERROR * total
    head = np.zeros(padded_dimension(len(along) + 1))
    head[: len(along)], head[len(along)] = along, depth * np.sqrt(left)
    norm = float(np.linalg.norm(head))
    return np.rint(head / norm * HEAD_LIMIT).astype(np.int16), norm


def upper_bounds(tree: Tree, query: Float32, cutoff: float) -> tuple[Float64, Float64]:
    """Bounds of rows and of balls, for a cutoff.

    Parameters
    ----------
    query : ndarray
        float32 ``(d,)``, not zero.
    cutoff : float
        Score that a row must reach.

    Returns
    -------
    rows, balls : ndarray
        float64, as ``tree.heads`` and ``tree.radii`` have places: at least ``cutoff`` where a row
        that reaches it may be. Padding among them.
    """
    codes, norm = encode_head(query, tree.axes)
    scale = norm * float(tree.unit[0])
    head = codes / HEAD_LIMIT
    margin = 1.01 * np.sqrt(head.size) / HEAD_LIMIT + 1e-5
    least = np.clip(cutoff / scale, -1.1, 1.1) - margin
    reach = np.sqrt(max(2 - 2 * least, 0) + 1e-5)
    rows = _dots(tree.heads, head)
    balls = _dots(tree.balls, head) + tree.shifts + reach * tree.radii
    return (rows - least) * scale + cutoff, (balls - least) * scale + cutoff


def passing_shares(tree: Tree, n: int, query: Float32, cutoff: float) -> tuple[float, float]:
    """Shares of n rows whose ball of 16, and who themselves, may hold a row of this score."""
    rows, balls = upper_bounds(tree, query, cutoff)
    n_balls = level_sizes(n)[1]
    is_near = balls[:n_balls] >= cutoff
    is_passing = (rows[:n] >= cutoff) & is_near.repeat(BLOCK_ROWS)[:n]
    return float(is_near.mean()), float(is_passing.mean())


def _dots(blocks: Int16, head: Float64) -> Float64:
    entries = blocks.transpose(0, 2, 1, 3).reshape(-1, head.size)
    dots: Float64 = entries @ (head / HEAD_LIMIT)
    return dots
