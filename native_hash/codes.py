"""Codes of a matrix for certified exact search: made once, stored as plain arrays.

Rows are int8 codes with an error bound (``code_reference``). Where most of the matrix lies in few
dimensions a tree of balls (``tree``) says whose codes to read; else all are read from end to end.
Only rows that the bounds leave in doubt are scored in full precision: the answer is that of a scan
of every row, bit for bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash import tree_reference
from native_hash.code_layout import BLOCK_ROWS, WIDE_STEP, padded_dimension, query_code_limit
from native_hash.engine import checked
from native_hash.neighbors import CheckedRows, NeighborHeap, slack_of
from native_hash.tasks import in_threads
from native_hash.tree import (
    HEAD_SIZES,
    TREE_ARRAYS,
    Tree,
    build_order,
    build_tree,
    heads_of,
    principal_axes,
    tree_problems,
    unit_of,
)

MAX_DIMENSION = 65_536
_MIN_ROWS_FOR_TREE = 2048
_TREE_NORMS = (2.0**-60, 2.0**60)
_SAMPLE_ROWS = 16_384
_N_PROBES = 32  # queries of either kind that decide whether a tree pays
# Costs in parts of what reading one code of a scan costs, as measured at d = 128.
_COST_OF_HEAD = 0.02  # of each number of a head
_COST_OF_CODE = 3.0
_WORTH_IT, _CHEAP = 0.7, 0.15
_ENCODED_ROWS_PER_TASK = 2**14
_OLD_ARRAYS = ("centers", "cosines", "block_cosines", "starts")

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Codes that belong to one matrix; made by :meth:`from_arrays`.

    Attributes
    ----------
    codes : ndarray
        int8 ``(n_blocks, padded d / 2, 16, 2)``; with a tree ``(n, d padded to 64)``.
    scales, errors : ndarray
        float32 ``(16 n_blocks,)``; with a tree ``(n,)``.
    rows : ndarray
        int32, as ``scales``: row of the matrix at each place, -1 for padding.
    tree : Tree or None
        Bounds that spare most codes; None where every code is read.
    limits : tuple
        Two slacks of the matrix (``neighbors.slack_of``), the largest code of a query, and a norm
        that no row exceeds.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    errors: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int32]
    tree: Tree | None
    limits: tuple[float, float, int, float]
    search_parts: tuple[Any, ...] = dataclasses.field(init=False, repr=False, compare=False)
    """What the kernels take of all this; put together once, a search takes microseconds."""

    def __post_init__(self) -> None:
        tree = self.tree
        if tree is None:
            parts: tuple[Any, ...] = (self.codes, self.scales, self.errors, self.rows)
        else:
            # Scale and error of a place side by side: one cache line to wait for, not two.
            bounds = np.stack([self.scales, self.errors], axis=1)
            parts = (
                self.codes, checked(bounds, np.float32, 2, "bounds"), self.rows, tree.axes,
                tree.heads, tree.balls, tree.radii, tree.shifts, float(tree.unit[0]),
            )  # fmt: skip
        object.__setattr__(self, "search_parts", (*self.limits[:2], *parts, *self.limits[2:]))

    @classmethod
    def from_arrays(cls, vectors: CheckedRows, arrays: Arrays) -> Codes:
        """Check that arrays are codes of a matrix of this shape (not that they are its codes).

        Arrays of the first version, with buckets, are taken too: their codes are read from end
        to end.

        Raises
        ------
        TypeError, ValueError
            A missing array, or one of wrong dtype, shape or range.
        """
        n, d = vectors.values.shape
        has_tree = "axes" in arrays
        names = {"codes", "scales", "errors", "rows", *(TREE_ARRAYS if has_tree else ())}
        if set(arrays) - set(() if has_tree else _OLD_ARRAYS) != names:
            raise ValueError(f"codes hold {sorted(arrays)}, expected {sorted(names)}")
        codes = checked(arrays["codes"], np.int8, 2 if has_tree else 4, "codes")
        n_places = n if has_tree else codes.shape[0] * BLOCK_ROWS
        wide = (n, padded_dimension(d, WIDE_STEP))
        expected = wide if has_tree else (len(codes), padded_dimension(d) // 2, BLOCK_ROWS, 2)
        if codes.shape != expected:
            raise ValueError(f"codes has shape {codes.shape}, not {expected}")
        parts = {
            name: checked(arrays[name], np.int32 if name == "rows" else np.float32, 1, name)
            for name in ("scales", "errors", "rows")
        }
        for name, array in parts.items():
            if array.shape != (n_places,):
                raise ValueError(f"{name} has shape {array.shape}, not {(n_places,)}")
        rows = parts["rows"]
        kept = rows[rows >= 0]
        if kept.size != n or (n and (rows.min() < -1 or kept.max() >= n)):
            raise ValueError(f"rows do not name each of the {n} rows of the matrix once")
        is_named = np.zeros(n, np.bool_)
        is_named[kept] = True
        if not is_named.all():
            raise ValueError(f"rows do not name each of the {n} rows of the matrix once")
        tree = None
        if has_tree:
            tree = Tree.from_arrays(n, d, vectors.max_norm, {k: arrays[k] for k in TREE_ARRAYS})
        limits = (
            *slack_of(d, vectors.max_norm), query_code_limit(d),
            vectors.max_norm * (1 + 1e-6) + 1e-30,  # float32 rounding, and no norm of zero
        )  # fmt: skip
        return cls(codes=codes, **parts, tree=tree, limits=limits)


def build_codes(
    vectors: CheckedRows, *, seed: int = 0, n_threads: int = 1
) -> dict[str, npt.NDArray[Any]]:
    """Codes of a matrix, with a tree where that pays on the matrix's own sample.

    Parameters
    ----------
    seed : int
        Of the sample.
    n_threads : int
        Threads of our own; numpy's BLAS has its own setting.

    Returns
    -------
    dict
        The arrays of :class:`Codes` and, where there is one, of its :class:`Tree`, to be stored or
        handed to :meth:`Codes.from_arrays`.

    Raises
    ------
    ValueError
        More than 65,536 dimensions or 2**31 - 1 rows: the integers of the codes end there.
    """
    n, d = vectors.values.shape
    if d > MAX_DIMENSION or n >= 2**31:
        raise ValueError(
            f"{n} rows of {d} dimensions, expected fewer than 2**31 of {MAX_DIMENSION}"
        )
    if n >= _MIN_ROWS_FOR_TREE and _TREE_NORMS[0] <= vectors.max_norm <= _TREE_NORMS[1]:
        generator = np.random.default_rng(seed)
        n_axes = _axes_that_pay(vectors, generator)
        if n_axes:
            return codes_with_tree(vectors, n_axes, generator, n_threads=n_threads)
    rows = np.full(padded_dimension(n, BLOCK_ROWS), -1, np.int32)
    rows[:n] = np.arange(n)
    return _encoded(vectors.values, rows, n_threads, has_tree=False)


def codes_with_tree(
    vectors: CheckedRows, n_axes: int, generator: np.random.Generator, *, n_threads: int = 1
) -> dict[str, npt.NDArray[Any]]:
    """As :func:`build_codes`, with a tree of so many axes whether it pays or not."""
    axes = principal_axes(vectors.values, n_axes, generator)
    unit = unit_of(vectors.max_norm)
    heads = heads_of(vectors.values, axes, unit, n_threads)
    rows = build_order(heads)
    arrays = _encoded(vectors.values, rows, n_threads, has_tree=True)
    arrays |= build_tree(heads[rows], axes, unit)
    codes = Codes.from_arrays(vectors, arrays)
    from native_hash.tree_tuning import measure_depths

    return arrays | {"ladder": measure_depths(vectors, codes, generator, n_threads)}


def _axes_that_pay(vectors: CheckedRows, generator: np.random.Generator) -> int:
    """Axes of the cheapest tree on a sample of the rows; 0 where a scan is cheaper.

    Queries are rows, and means of two rows. On a sample less is pruned than on the whole, for
    neighbors are farther apart: trees that hardly pay are not built.
    """
    n, d = vectors.values.shape
    chosen = np.sort(generator.choice(n, min(n, _SAMPLE_ROWS), replace=False))
    sample = vectors.values[chosen]
    rows, others = generator.integers(0, len(sample), (2, _N_PROBES))
    between = np.float32(0.5) * sample[rows] + np.float32(0.5) * sample[others]
    probes = np.concatenate([sample[rows], between])
    heap = NeighborHeap(probes, min(10, len(sample)))
    heap.offer(CheckedRows(sample, vectors.max_norm))
    scores = heap.result()[1][:, -1]
    best = (_WORTH_IT, 0)
    for size in HEAD_SIZES:
        if size // 2 >= d:
            break
        axes = principal_axes(sample, size - 1, generator)
        read, coded = _read_shares(sample, axes, unit_of(vectors.max_norm), probes, scores)
        cost = _COST_OF_HEAD * size * read + _COST_OF_CODE * coded
        best = min(best, (cost, len(axes)))
        if cost < _CHEAP:  # longer heads cannot spare much more
            break
    return best[1]


def _read_shares(
    sample: npt.NDArray[np.float32],
    axes: npt.NDArray[np.float32],
    unit: np.float32,
    probes: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
) -> tuple[float, float]:
    """Shares of heads and codes read by searches that know their last score from the start."""
    heads = heads_of(sample, axes, unit)
    tree = Tree(**build_tree(heads[build_order(heads)], axes, unit))
    shares = []
    for probe, score in zip(probes, scores, strict=True):
        cutoff = float(score) - 1e-6 * float(unit)
        if np.linalg.norm(probe) > _TREE_NORMS[0]:
            shares.append(tree_reference.passing_shares(tree, len(sample), probe, cutoff))
    read, coded = np.mean(shares, axis=0) if shares else (1.0, 1.0)
    return float(read), float(coded)


def codes_problems(vectors: CheckedRows, arrays: Arrays) -> list[str]:
    """What makes these arrays unfit to certify answers on this matrix; empty where nothing does.

    Encodes every row anew and compares; checks that heads and balls hold their rows.
    """
    try:
        found = Codes.from_arrays(vectors, arrays)
    except (TypeError, ValueError) as error:
        return [str(error)]
    problems = []
    again = _encoded(vectors.values, found.rows, 1, has_tree=found.tree is not None)
    if not np.array_equal(again["codes"], found.codes):
        problems.append("codes are not those of their rows")
    for name in ("scales", "errors"):
        if not np.allclose(again[name], getattr(found, name), rtol=1e-6, atol=0):
            problems.append(f"{name} are not those of their rows")
    if found.tree is not None:
        heads = heads_of(vectors.values, found.tree.axes, found.tree.unit[0])[found.rows]
        problems += tree_problems(found.tree, heads)
    return problems


def _encoded(
    vectors: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int32],
    n_threads: int,
    *,
    has_tree: bool,
) -> dict[str, npt.NDArray[Any]]:
    """Codes of rows in the order of their places; in blocks, or each row's together."""
    from native_hash.code_kernels import encode_rows

    d = vectors.shape[1]
    n_blocks = -(-rows.size // BLOCK_ROWS)
    shape = (
        (rows.size, padded_dimension(d, WIDE_STEP))
        if has_tree
        else (n_blocks, padded_dimension(d) // 2, BLOCK_ROWS, 2)
    )
    arrays: dict[str, npt.NDArray[Any]] = {
        "codes": np.zeros(shape, np.int8),
        "scales": np.empty(rows.size, np.float32),
        "errors": np.empty(rows.size, np.float32),
        "rows": rows,
    }
    values = checked(vectors, np.float32, 2, "vectors")

    def encode(first: int) -> None:
        places = slice(first, first + _ENCODED_ROWS_PER_TASK)
        part = rows[places]
        padded = np.full(padded_dimension(part.size, BLOCK_ROWS), -1, np.int32)
        padded[: part.size] = part
        codes = np.empty((padded.size // BLOCK_ROWS, padded_dimension(d) // 2, BLOCK_ROWS, 2), "i1")
        scales, errors = np.empty((2, padded.size), np.float32)
        encode_rows(values, checked(padded, np.int32, 1, "rows"), codes, scales, errors)
        arrays["scales"][places] = scales[: part.size]
        arrays["errors"][places] = errors[: part.size]
        if has_tree:
            wide = codes.transpose(0, 2, 1, 3).reshape(padded.size, -1)
            arrays["codes"][places, : wide.shape[1]] = wide[: part.size]
        else:
            arrays["codes"][first // BLOCK_ROWS :][: len(codes)] = codes

    in_threads(encode, range(0, rows.size, _ENCODED_ROWS_PER_TASK), n_threads)
    return arrays
