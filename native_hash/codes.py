"""Codes of a matrix for certified exact search: made once, stored as plain arrays.

Rows lie in buckets around learned centers, ordered by their angle to the center, as int8
codes with an error bound (``code_reference``). A search reads the codes and scores in full
precision only the rows that the bounds leave in doubt: its answer is that of a scan of
every row, bit for bit. Where buckets do not pay there is one bucket, read from end to end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.clustering import mean_directions, two_level_buckets
from native_hash.code_layout import BLOCK_ROWS, padded_dimension
from native_hash.engine import checked
from native_hash.neighbors import CheckedRows, NeighborHeap, checked_rows

MAX_DIMENSION = 65_536
_MIN_ROWS_FOR_BUCKETS = 2048
_N_PROBES = 64  # queries of either kind that decide whether buckets pay
_CENTER_COST = 6.0  # a center costs as much as reading this many codes (measured at d = 128;
# both grow with d)
_WORTH_IT = 0.8
_SAMPLE_ROWS = 16_384
_HOPELESS = 0.95
_ENCODED_ROWS_PER_TASK = 2**14
_COSINE_MARGIN = 2e-6  # float64 cosines stored as float32, rounded outward

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Codes that belong to one matrix; made by :meth:`from_arrays`.

    Attributes
    ----------
    codes : ndarray
        int8 ``(n_blocks, padded d / 2, 16, 2)``.
    scales, errors : ndarray
        float32 ``(16 n_blocks,)``.
    rows : ndarray
        int32 ``(16 n_blocks,)``: row of the matrix at each place, -1 for padding.
    centers, cosines : ndarray
        float32 ``(n_buckets, d)`` and ``(n_buckets,)``: unit vectors, cosine of each radius.
    block_cosines : ndarray
        float32 ``(n_blocks, 2)``: largest and smallest cosine of a block's rows to the center.
    starts : ndarray
        int32 ``(n_buckets + 1,)``: bucket b is blocks ``starts[b]`` to ``starts[b + 1]``.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    errors: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int32]
    centers: npt.NDArray[np.float32]
    cosines: npt.NDArray[np.float32]
    block_cosines: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int32]

    @classmethod
    def from_arrays(cls, vectors: CheckedRows, arrays: Arrays) -> Codes:
        """Check that arrays are codes of a matrix of this shape (not that they are its codes).

        Raises
        ------
        TypeError, ValueError
            A missing array, or one of wrong dtype, shape or range.
        """
        n, d = vectors.values.shape
        names = {field.name for field in dataclasses.fields(cls)}
        if set(arrays) != names:
            raise ValueError(f"codes hold {sorted(arrays)}, expected {sorted(names)}")
        dimensions = {"codes": 4, "centers": 2, "block_cosines": 2}
        dtypes = {"codes": np.int8, "rows": np.int32, "starts": np.int32}
        found = cls(
            **{
                name: checked(
                    arrays[name], dtypes.get(name, np.float32), dimensions.get(name, 1), name
                )
                for name in names
            }
        )
        n_blocks, n_buckets = found.codes.shape[0], found.centers.shape[0]
        shapes = {
            "codes": (n_blocks, padded_dimension(d) // 2, BLOCK_ROWS, 2),
            "scales": (n_blocks * BLOCK_ROWS,),
            "errors": (n_blocks * BLOCK_ROWS,),
            "rows": (n_blocks * BLOCK_ROWS,),
            "centers": (n_buckets, d),
            "cosines": (n_buckets,),
            "block_cosines": (n_blocks, 2),
            "starts": (n_buckets + 1,),
        }
        for name, shape in shapes.items():
            if getattr(found, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(found, name).shape}, not {shape}")
        starts, rows = found.starts, found.rows
        if starts[0] != 0 or starts[-1] != n_blocks or (np.diff(starts) < 0).any():
            raise ValueError("starts of buckets do not ascend from 0 to the number of blocks")
        kept = rows[rows >= 0]
        if kept.size != n or (n and (rows.min() < -1 or kept.max() >= n)):
            raise ValueError(f"rows do not name each of the {n} rows of the matrix once")
        is_named = np.zeros(n, np.bool_)
        is_named[kept] = True
        if not is_named.all():
            raise ValueError(f"rows do not name each of the {n} rows of the matrix once")
        return found

    @property
    def n_buckets(self) -> int:
        """Learned buckets; 1 where they do not pay and every code is read."""
        return int(self.centers.shape[0])


def build_codes(
    vectors: CheckedRows, *, seed: int = 0, n_threads: int = 1
) -> dict[str, npt.NDArray[Any]]:
    """Codes of a matrix, with buckets where they pay on the matrix's own sample.

    Parameters
    ----------
    seed : int
        Of the sample and of the first centers.
    n_threads : int
        Threads that encode; the products of the clustering use the threads of numpy's BLAS.

    Returns
    -------
    dict
        The arrays of :class:`Codes`, to be stored or handed to :meth:`Codes.from_arrays`.

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
    if n >= _MIN_ROWS_FOR_BUCKETS and vectors.max_norm > 0:
        if n > 4 * _SAMPLE_ROWS:  # spare the work of buckets that prune nothing at all
            chosen = np.sort(np.random.default_rng(seed).choice(n, _SAMPLE_ROWS, replace=False))
            sample = checked_rows(vectors.values[chosen])
            if _read_share(sample, _bucketed(sample, seed, n_threads), seed) > _HOPELESS:
                return _encoded(vectors.values, None, n_threads)
        arrays = _bucketed(vectors, seed, n_threads)
        cost = _read_share(vectors, arrays, seed) * n + _CENTER_COST * arrays["centers"].shape[0]
        if cost < _WORTH_IT * n:
            return arrays
    return _encoded(vectors.values, None, n_threads)


def _bucketed(vectors: CheckedRows, seed: int, n_threads: int) -> dict[str, npt.NDArray[Any]]:
    rows_per_bucket = max(64, round(vectors.values.shape[0] ** 0.5 / 2))
    buckets = two_level_buckets(vectors.values, rows_per_bucket, seed=seed)
    return _encoded(vectors.values, buckets, n_threads)


def _read_share(vectors: CheckedRows, arrays: Arrays, seed: int) -> float:
    """Share of the codes read for queries that are rows, or means of two rows."""
    n = len(vectors.values)
    rows, others = np.random.default_rng(seed).integers(0, n, (2, _N_PROBES))
    between = np.float32(0.5) * vectors.values[rows] + np.float32(0.5) * vectors.values[others]
    heap = NeighborHeap(np.concatenate([vectors.values[rows], between]), 10)
    heap.offer(vectors, codes=Codes.from_arrays(vectors, arrays))
    return float(heap.result()[2].mean()) / n


def codes_problems(vectors: CheckedRows, arrays: Arrays) -> list[str]:
    """What makes these arrays unfit to certify answers on this matrix; empty where nothing does.

    Encodes every row anew and compares; checks that each bucket's and block's cosines hold for
    all of their rows.
    """
    try:
        found = Codes.from_arrays(vectors, arrays)
    except (TypeError, ValueError) as error:
        return [str(error)]
    problems = []
    again = {name: np.empty_like(arrays[name]) for name in ("codes", "scales", "errors")}
    _encode(vectors.values, found.rows, again, 1)
    if not np.array_equal(again["codes"], found.codes):
        problems.append("codes are not those of their rows")
    for name in ("scales", "errors"):
        if not np.allclose(again[name], getattr(found, name), rtol=1e-6, atol=0):
            problems.append(f"{name} are not those of their rows")
    if found.n_buckets > 1:
        buckets = np.repeat(np.arange(found.n_buckets), np.diff(found.starts)).repeat(BLOCK_ROWS)
        is_row = found.rows >= 0
        cosines = _cosines(vectors.values, found.rows[is_row], found.centers, buckets[is_row])
        blocks = np.flatnonzero(is_row) // BLOCK_ROWS
        inside = (cosines <= found.block_cosines[blocks, 0]) & (
            cosines >= found.block_cosines[blocks, 1]
        )
        if not inside.all() or (cosines < found.cosines[buckets[is_row]]).any():
            problems.append("cosines do not bound the angles of their rows")
    return problems


def _encoded(
    vectors: npt.NDArray[np.float32], buckets: npt.NDArray[np.int64] | None, n_threads: int
) -> dict[str, npt.NDArray[Any]]:
    n, d = vectors.shape
    order = np.arange(n)
    counts = np.array([n])
    centers = np.zeros((1, d), np.float32)
    if buckets is not None:
        counts = np.bincount(buckets)
        centers = mean_directions(vectors, buckets, counts.size)
        cosines = _cosines(vectors, order, centers, buckets)
        order = np.lexsort((-cosines, buckets))
    n_blocks = -(-counts // BLOCK_ROWS)
    starts = np.concatenate([[0], np.cumsum(n_blocks)]).astype(np.int32)
    firsts = np.concatenate([[0], np.cumsum(counts)])
    shifts = starts[:-1].astype(np.int64) * BLOCK_ROWS - firsts[:-1]
    places = np.repeat(shifts, counts) + np.arange(n)
    rows = np.full(int(starts[-1]) * BLOCK_ROWS, -1, np.int32)
    rows[places] = order
    block_cosines = np.zeros((int(starts[-1]), 2), np.float32)
    limits = np.zeros(counts.size, np.float32)
    if buckets is not None:
        placed = np.full((rows.size, 2), [-np.inf, np.inf])
        placed[places] = cosines[order][:, np.newaxis]
        blocks = placed.reshape(-1, BLOCK_ROWS, 2)
        block_cosines[:, 0] = blocks[:, :, 0].max(axis=1) + _COSINE_MARGIN
        block_cosines[:, 1] = blocks[:, :, 1].min(axis=1) - _COSINE_MARGIN
        limits[:] = np.minimum.reduceat(block_cosines[:, 1], starts[:-1])
    arrays: dict[str, npt.NDArray[Any]] = {
        "codes": np.empty((int(starts[-1]), padded_dimension(d) // 2, BLOCK_ROWS, 2), np.int8),
        "scales": np.empty(rows.size, np.float32),
        "errors": np.empty(rows.size, np.float32),
        "rows": rows,
        "centers": centers,
        "cosines": limits,
        "block_cosines": block_cosines,
        "starts": starts,
    }
    _encode(vectors, rows, arrays, n_threads)
    return arrays


def _encode(
    vectors: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int32],
    arrays: dict[str, npt.NDArray[Any]],
    n_threads: int,
) -> None:
    from native_hash.code_kernels import encode_rows

    def encode(first: int) -> None:
        places = slice(first, first + _ENCODED_ROWS_PER_TASK)
        blocks = slice(first // BLOCK_ROWS, (first + _ENCODED_ROWS_PER_TASK) // BLOCK_ROWS)
        outputs = arrays["codes"][blocks], arrays["scales"][places], arrays["errors"][places]
        part = checked(np.ascontiguousarray(rows[places]), np.int32, 1, "rows")
        encode_rows(checked(vectors, np.float32, 2, "vectors"), part, *outputs)

    in_threads(encode, range(0, rows.size, _ENCODED_ROWS_PER_TASK), n_threads)


def in_threads(work: Callable[[int], None], tasks: range, n_threads: int) -> None:
    """Do work that releases the GIL for each task, in this thread where one is enough."""
    if n_threads == 1 or len(tasks) < 2:
        for task in tasks:
            work(task)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, tasks))


def _cosines(
    vectors: npt.NDArray[np.float32],
    rows: npt.NDArray[Any],
    centers: npt.NDArray[np.float32],
    buckets: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Cosine of each row to its bucket's center; 0 where either is zero."""
    cosines = np.empty(rows.size)
    for start in range(0, rows.size, _ENCODED_ROWS_PER_TASK):
        part = slice(start, start + _ENCODED_ROWS_PER_TASK)
        wide = vectors[rows[part]].astype(np.float64)
        center = centers[buckets[part]].astype(np.float64)
        norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(center, axis=1)
        dots = np.einsum("ij,ij->i", wide, center)
        cosines[part] = dots / np.where(norms > 0, norms, 1)
    return cosines
