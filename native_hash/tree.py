"""A tree of balls in the few dimensions in which most of a matrix lies.

Embeddings of a trained network lie near a subspace of few dimensions. With the axes P of it,
``w = P q``, ``z = P x`` and what is left of both, Cauchy-Schwarz gives for every row

    q . x  <=  w . z + sqrt(|q|^2 - |w|^2) sqrt(|x|^2 - |z|^2),

a dot product of the *heads* ``(z, sqrt(|x|^2 - |z|^2))``: 16 numbers in place of hundreds. Heads
are as long as their rows, so rows near in score are near in space: sixteen neighbors make a ball,
sixteen balls a larger one, and what lies in a ball that is too far from the query is not looked at.
``tree_reference.py`` has the bounds in numpy.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.code_layout import (
    AXES_ERROR,
    BLOCK_ROWS,
    HEAD_LIMIT,
    level_sizes,
    padded_dimension,
)
from native_hash.engine import checked
from native_hash.sample_queries import MEASURED_N, RECALLS
from native_hash.tasks import in_threads

TREE_ARRAYS = ("axes", "unit", "heads", "balls", "radii", "shifts", "ladder")
"""Names of the arrays of a :class:`Tree`."""

HEAD_SIZES = (16, 32, 64)
"""Lengths of heads among which a builder chooses."""

_SAMPLE_ROWS = 4096
_FEW_ROWS = 1024
_ROWS_AT_ONCE = 2**14  # a multiple of the rows of a ball of three levels
_SQUARE_ERROR = 1e-6  # allowed in the products of axes; AXES_ERROR has room for it
_MARGIN = 1e-6
_RECALL_WITH_FILTER = 0.99

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int16 = npt.NDArray[np.int16]
Arrays = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class TreeSetting:
    """How much of its certainty a search gives up, and what it found when that was measured.

    Attributes
    ----------
    depth : float
        In [0, 1]: share of two doubts that bounds allow for, what lies outside the axes and where
        in its ball a row lies; 1 is exact.
    measured_recall : float
        Lower of the recalls of the two kinds of sample queries; never above 1.
    """

    depth: float
    measured_recall: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Bounds of a matrix whose rows stand in the order of ``Codes.rows``.

    Attributes
    ----------
    axes : ndarray
        float32 ``(k, d)``, orthonormal to 1e-6.
    unit : ndarray
        float32 ``(1,)``: heads are stored over this; no row is longer.
    heads : ndarray
        int16 ``(n_blocks, h / 2, 16, 2)``: heads of the rows, ``HEAD_LIMIT`` stands for 1.
    balls : ndarray
        int16, as ``heads``: centers of balls; first those of blocks of 16 rows, then those of 16
        such balls, and so on (``code_layout.level_sizes``), each level begun in a new block.
    radii, shifts : ndarray
        float32, one for each center c, 0 for padding: r and ``(1 + r^2 - |c|^2) / 2``.
    ladder : ndarray
        float32 ``(3, n_recalls, 3)``, as of ``tree_tuning.measure_depths``.
    """

    axes: Float32
    unit: Float32
    heads: Int16
    balls: Int16
    radii: Float32
    shifts: Float32
    ladder: Float32
    _settings: dict[tuple[int, float, bool], TreeSetting | None] = dataclasses.field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def from_arrays(cls, n: int, d: int, max_norm: float, arrays: Arrays) -> Tree:
        """Check that arrays are a tree of n rows (not that its bounds hold).

        Raises
        ------
        TypeError, ValueError
            An array of wrong dtype, shape or range.
        """
        kinds = {
            "axes": (np.float32, 2),
            "heads": (np.int16, 4),
            "balls": (np.int16, 4),
            "ladder": (np.float32, 3),
        }
        found = cls(
            **{
                name: checked(arrays[name], *kinds.get(name, (np.float32, 1)), name)
                for name in TREE_ARRAYS
            }
        )
        size = padded_dimension(found.axes.shape[0] + 1)
        n_balls = sum(-(-entries // BLOCK_ROWS) for entries in level_sizes(n)[1:])
        shapes = {
            "axes": (found.axes.shape[0], d),
            "unit": (1,),
            "heads": (-(-n // BLOCK_ROWS), size // 2, BLOCK_ROWS, 2),
            "balls": (n_balls, size // 2, BLOCK_ROWS, 2),
            "radii": (n_balls * BLOCK_ROWS,),
            "shifts": (n_balls * BLOCK_ROWS,),
            "ladder": (len(MEASURED_N), found.ladder.shape[1], 3),
        }
        for name, shape in shapes.items():
            if getattr(found, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(found, name).shape}, not {shape}")
        for name in ("radii", "shifts", "ladder"):
            if not np.isfinite(getattr(found, name)).all():
                raise ValueError(f"{name} holds a value that is not finite")
        wide = found.axes.astype(np.float64)
        if not np.linalg.norm(wide @ wide.T - np.eye(len(wide))) <= _SQUARE_ERROR:
            raise ValueError("axes are not orthonormal")
        if not max_norm * (1 + AXES_ERROR / 4) <= found.unit[0] <= 2.0**60:
            raise ValueError(f"unit is {found.unit[0]}, below the norm of a row")
        return found

    def setting(self, n: int, recall: float, *, n_excluded: int = 0) -> TreeSetting | None:
        """Least depth whose measured recall reaches the asked one.

        None where only 1 does, or more is asked than a sample can show (0.999).
        As in :meth:`Sketch.setting`: recalls below the least measured one, 0.95, get that; between
        measured lengths of answer the deeper of both is taken; where rows are left out, the
        deepest of all lengths, for a recall of at least 0.99.
        """
        asked = (n, recall, n_excluded > 0)
        if asked not in self._settings:  # a search of microseconds should not look it up anew
            self._settings[asked] = self._least(*asked)
        return self._settings[asked]

    def _least(self, n: int, recall: float, is_filtered: bool) -> TreeSetting | None:
        if n > MEASURED_N[-1] or recall > RECALLS[-1]:
            return None
        if is_filtered:
            recall = max(recall, _RECALL_WITH_FILTER)
        after = int(np.searchsorted(MEASURED_N, n))
        needed = {after if MEASURED_N[after] == n else after - 1, after}
        found = []
        for number, steps in enumerate(self.ladder):
            reached = steps[steps[:, 2] >= recall]
            if reached.shape[0] and (is_filtered or number in needed):
                found.append(reached[0])
            elif number in needed:
                return None
        return TreeSetting(
            depth=float(max(entry[0] for entry in found)),
            measured_recall=float(min(entry[1] for entry in found)),
        )


def principal_axes(values: Float32, n_axes: int, generator: np.random.Generator) -> Float32:
    """Axes float32 ``(k, d)`` along which a sample of rows is largest, ``k <= n_axes, d``."""
    n, d = values.shape
    size = min(n, _SAMPLE_ROWS if d <= _FEW_ROWS else _FEW_ROWS)
    sample = values[np.sort(generator.choice(n, size, replace=False))].astype(np.float64)
    if d <= size:
        found = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]
    else:
        found = sample.T @ np.linalg.eigh(sample @ sample.T)[1][:, ::-1]
    axes = np.linalg.qr(found[:, : min(n_axes, d)])[0]
    return np.ascontiguousarray(axes.T, np.float32)


def heads_of(values: Float32, axes: Float32, unit: np.float32, n_threads: int = 1) -> Float32:
    """Heads of rows, float32 ``(n, k + 1)``, of norm at most 1."""
    heads = np.empty((len(values), len(axes) + 1), np.float32)
    wide_axes = axes.astype(np.float64).T

    def project(start: int) -> None:
        part = slice(start, start + _ROWS_AT_ONCE)
        wide = values[part].astype(np.float64) / np.float64(unit)
        squares = np.einsum("ij,ij->i", wide, wide)
        along = wide @ wide_axes
        left = np.maximum(squares - np.einsum("ij,ij->i", along, along), 0)
        heads[part, :-1] = along
        heads[part, -1] = np.sqrt(left + AXES_ERROR * squares)

    in_threads(project, range(0, len(values), _ROWS_AT_ONCE), n_threads)
    return heads


def unit_of(max_norm: float) -> np.float32:
    """Number over which heads are stored: a little more than the longest one."""
    return np.float32(max_norm * (1 + AXES_ERROR))


def build_order(heads: Float32) -> npt.NDArray[np.int32]:
    """Order of rows in which balls are small, int32 ``(n,)``."""
    from native_hash.tree_ordering import order_rows

    order = np.arange(len(heads), dtype=np.int32)
    order_rows(heads, order, np.empty(len(heads), np.float32))
    return order


def build_tree(heads: Float32, axes: Float32, unit: np.float32) -> Arrays:
    """Arrays of :class:`Tree`, without measured depths; ``heads`` in the order of the tree."""
    n, size = len(heads), padded_dimension(heads.shape[1])
    rows = np.zeros((n, size), np.float32)
    rows[:, : heads.shape[1]] = heads
    balls: list[Int16] = []
    radii: list[Float32] = []
    shifts: list[Float32] = []
    for n_balls in level_sizes(n)[1:]:
        rows_each = BLOCK_ROWS ** (len(balls) + 1)
        starts = np.arange(n_balls) * rows_each
        counts = np.diff(np.append(starts, n))
        sums = np.add.reduceat(rows, starts, axis=0, dtype=np.float64)
        centers = np.rint(sums / counts[:, np.newaxis] * HEAD_LIMIT)
        codes = _in_blocks(centers)
        centers /= HEAD_LIMIT
        farthest = np.empty(n_balls)
        step = max(1, _ROWS_AT_ONCE // rows_each)
        for first in range(0, n_balls, step):
            part = slice(first * rows_each, (first + step) * rows_each)
            of_ball = np.repeat(centers[first : first + step], counts[first : first + step], axis=0)
            squares = np.square(rows[part] - of_ball).sum(axis=1)
            farthest[first : first + step] = np.maximum.reduceat(
                squares, starts[first : first + step] - starts[first]
            )
        radius = np.zeros(len(codes) * BLOCK_ROWS, np.float32)
        radius[:n_balls] = np.sqrt(farthest) * (1 + _MARGIN) + _MARGIN
        shift = np.zeros_like(radius)
        squares = np.square(centers).sum(axis=1)
        shift[:n_balls] = (1 + np.square(radius[:n_balls].astype(np.float64)) - squares) / 2
        balls.append(codes)
        radii.append(radius)
        shifts.append(shift)
    return {
        "axes": axes,
        "unit": np.array([unit], np.float32),
        "heads": _in_blocks(np.rint(rows * HEAD_LIMIT)),
        "balls": np.concatenate(balls),
        "radii": np.concatenate(radii),
        "shifts": np.concatenate(shifts),
        "ladder": np.zeros((len(MEASURED_N), 0, 3), np.float32),
    }


def _in_blocks(entries: Float32 | Float64) -> Int16:
    """Integers ``(n, h)`` as int16 ``(n_blocks, h / 2, 16, 2)``."""
    n, size = entries.shape
    padded = np.zeros((-(-n // BLOCK_ROWS) * BLOCK_ROWS, size), np.int16)
    padded[:n] = entries
    blocks = padded.reshape(-1, BLOCK_ROWS, size // 2, 2).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks)


def tree_problems(tree: Tree, heads: Float32) -> list[str]:
    """What is wrong with a tree of heads in its order; empty where every bound holds."""
    n, size = heads.shape
    rows = np.zeros((n, 2 * tree.heads.shape[1]), np.float32)
    rows[:, :size] = heads
    problems = []
    if not (np.abs(_by_entry(tree.heads)[:n] - rows * HEAD_LIMIT) <= 0.51).all():
        problems.append("heads are not those of their rows")
    first = 0
    for level, n_balls in enumerate(level_sizes(n)[1:], 1):
        n_blocks = -(-n_balls // BLOCK_ROWS)
        places = slice(first * BLOCK_ROWS, first * BLOCK_ROWS + n_balls)
        centers = _by_entry(tree.balls[first : first + n_blocks])[:n_balls] / HEAD_LIMIT
        radii = tree.radii[places].astype(np.float64)
        balls = np.arange(n) // BLOCK_ROWS**level
        for start in range(0, n, _ROWS_AT_ONCE):
            part = balls[start : start + _ROWS_AT_ONCE]
            rest = rows[start : start + _ROWS_AT_ONCE] - centers[part]
            if not (np.sqrt(np.square(rest).sum(axis=1)) <= radii[part]).all():
                problems.append(f"balls of level {level} do not hold their rows")
                break
        shifts = (1 + np.square(radii) - np.square(centers).sum(axis=1)) / 2
        if not np.abs(tree.shifts[places] - shifts).max(initial=0) <= _MARGIN:
            problems.append(f"shifts of level {level} are not those of their balls")
        first += n_blocks
    return problems


def _by_entry(blocks: Int16) -> Float64:
    """Undo :func:`_in_blocks`, with padding."""
    return blocks.transpose(0, 2, 1, 3).reshape(-1, 2 * blocks.shape[1]).astype(np.float64)
