"""Making a sketch: rotation, learned centers, codes; and checking one against its matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.clustering import two_level_buckets
from native_hash.code_layout import BLOCK_ROWS, padded_dimension
from native_hash.code_reference import encode_rows
from native_hash.codes import Codes
from native_hash.engine import Engine
from native_hash.neighbors import CheckedRows
from native_hash.sample_queries import MEASURED_N
from native_hash.sketch import Sketch, sketch_functions
from native_hash.sketch_reference import BLOCK
from native_hash.sketch_tuning import measure_ladder
from native_hash.tasks import in_threads

Float32 = npt.NDArray[np.float32]

_FEWEST_ROWS = 512
_BUCKETS_AT_ONCE = 16
_ROWS_AT_ONCE = 4096
_CODE_DOUBT = 0.02  # radius of a bucket of equal rows over the norm of its center


def build_sketch(
    vectors: CheckedRows,
    *,
    codes: Codes | None = None,
    seed: int = 0,
    n_threads: int = 1,
    engine: Engine = "numba",
) -> dict[str, npt.NDArray[Any]]:
    """Sketch a matrix and measure which recall which effort gives on it.

    The vectors are read in blocks, never copied as a whole.

    Parameters
    ----------
    vectors : CheckedRows
        n rows, at most 2**31 - 1; best of equal norm.
    codes : Codes, optional
        Exact codes of this matrix: runs of their tree are the buckets, and the recall is measured
        sooner.
    seed : int
        Of rotation, center sample and tuning queries.
    n_threads : int
        Threads of our own; their number does not change the arrays.

    Returns
    -------
    dict of str to ndarray
        ``rotation``, ``centers``, ``center_codes``, ``shapes``, ``starts``, ``rows``, ``codes``,
        ``factors`` as in ``sketch_reference.search``; ``ladder`` as of
        ``sketch_tuning.measure_ladder``.

    Raises
    ------
    ValueError
        ``n_threads`` is below 1.
    """
    if n_threads < 1:
        raise ValueError(f"n_threads is {n_threads}, expected at least 1")
    functions, generator = sketch_functions(engine), np.random.default_rng(seed)
    values = vectors.values
    arrays: dict[str, npt.NDArray[Any]] = {"rotation": _draw_rotation(values.shape[1], generator)}
    rows, starts = _grouped(_buckets(values, codes, seed))
    arrays["starts"], arrays["rows"] = starts, rows
    arrays.update(_described(values, rows, starts, n_threads))
    arrays["codes"], arrays["factors"] = _encoded(values, arrays, n_threads, functions)
    arrays["ladder"] = np.zeros((len(MEASURED_N), 0, 4), np.float32)
    sketch = Sketch.from_arrays(vectors, arrays, engine=engine)
    arrays["ladder"] = measure_ladder(sketch, codes, generator, n_threads)
    return arrays


def sketch_problems(
    vectors: CheckedRows, arrays: Mapping[str, npt.NDArray[Any]], *, engine: Engine = "numba"
) -> list[str]:
    """What in a sketch does not belong to its matrix, in words; empty where all does.

    Codes and factors are derived anew from the stored rotation and centers.
    """
    try:
        Sketch.from_arrays(vectors, arrays)
    except ValueError as error:
        return [str(error)]
    codes, factors = _encoded(vectors.values, arrays, 1, sketch_functions(engine))
    problems = []
    for name, derived in (("codes", codes), ("factors", factors)):
        differs = (arrays[name] != derived).any(axis=(1, 2))
        if differs.any():
            problems.append(f"{name} of {int(differs.sum())} blocks of {BLOCK} rows do not match")
    return problems


def _draw_rotation(d: int, generator: np.random.Generator) -> Float32:
    """Float32 ``(d, d_pad)``: d rows of a random orthogonal matrix of ``d_pad`` dimensions."""
    d_pad = -(-d // 64) * 64
    q, r = np.linalg.qr(generator.standard_normal((d_pad, d_pad)))
    q *= np.sign(np.diag(r))
    return np.ascontiguousarray(q[:d], np.float32)


def _buckets(values: Float32, codes: Codes | None, seed: int) -> npt.NDArray[np.int64]:
    """Bucket of each row, int64 ``(n,)``."""
    n = values.shape[0]
    if codes is not None and codes.tree is not None:
        buckets = np.empty(n, np.int64)
        size = max(2 * BLOCK, round(n**0.5 / 2 / BLOCK) * BLOCK)
        buckets[codes.rows] = np.arange(n) // size
        return buckets
    if codes is None and n >= _FEWEST_ROWS:
        return two_level_buckets(values, max(64, round(n**0.5 / 3)), seed=seed)
    return np.zeros(n, np.int64)


def _grouped(
    buckets: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Rows by bucket, ascending inside each, in blocks that belong to one bucket."""
    counts = np.bincount(buckets, minlength=1)
    starts = np.concatenate([[0], np.cumsum(-(-counts // BLOCK))]).astype(np.int64)
    rows = np.full((int(starts[-1]), BLOCK), -1, np.int32)
    order = np.argsort(buckets, kind="stable")
    place = np.repeat(starts[:-1] * BLOCK - (np.cumsum(counts) - counts), counts)
    rows.reshape(-1)[place + np.arange(buckets.size)] = order
    return rows, starts


def _described(
    values: Float32,
    rows: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    n_threads: int,
) -> dict[str, npt.NDArray[Any]]:
    """``centers``, ``center_codes`` and ``shapes`` of the buckets."""
    n_buckets, d = starts.size - 1, values.shape[1]
    n_tiles = -(-n_buckets // BLOCK_ROWS)
    centers = np.zeros((n_buckets, d), np.float32)
    shapes = np.zeros((3, n_tiles * BLOCK_ROWS), np.float32)
    shapes[1] = -np.inf

    def describe(bucket: int) -> None:
        mean, square, n_rows = np.zeros(d), 0.0, 0
        for block in range(starts[bucket], starts[bucket + 1], _ROWS_AT_ONCE // BLOCK):
            end = min(block + _ROWS_AT_ONCE // BLOCK, int(starts[bucket + 1]))
            members = rows[block:end].reshape(-1)
            part = values[members[members >= 0]]
            mean += part.sum(axis=0, dtype=np.float64)
            square += float(np.einsum("ij,ij->", part, part, dtype=np.float64))
            n_rows += part.shape[0]
        if n_rows:
            mean /= n_rows
            centers[bucket] = mean
            of_mean = float(np.square(mean).sum())
            spread = max(square / n_rows - of_mean, 0.0)
            shapes[1:, bucket] = (spread + _CODE_DOUBT**2 * of_mean) ** 0.5, of_mean

    in_threads(describe, range(n_buckets), n_threads)
    codes = np.empty((n_tiles, padded_dimension(d) // 2, BLOCK_ROWS, 2), np.int8)
    numbers = np.full(n_tiles * BLOCK_ROWS, -1, np.int32)
    numbers[:n_buckets] = np.arange(n_buckets)
    encode_rows(centers, numbers, codes, shapes[0], np.empty(numbers.size, np.float32))
    return {"centers": centers, "center_codes": codes, "shapes": shapes}


def _encoded(
    values: Float32,
    arrays: Mapping[str, npt.NDArray[Any]],
    n_threads: int,
    functions: Any,
) -> tuple[npt.NDArray[np.uint8], Float32]:
    rotation, rows, starts = arrays["rotation"], arrays["rows"], arrays["starts"]
    d_pad = rotation.shape[1]
    codes = np.empty((rows.shape[0], d_pad // 8, BLOCK), np.uint8)
    factors = np.empty((rows.shape[0], 2, BLOCK), np.float32)
    fixed = []
    for name in ("rotation", "centers", "starts", "rows"):
        fixed.append(arrays[name].view())
        fixed[-1].flags.writeable = False

    def encode(first: int) -> None:
        last = min(first + _BUCKETS_AT_ONCE, starts.size - 1)
        scratch = np.empty((4, d_pad), np.float32)
        functions.encode(values, *fixed, first, last, scratch, codes, factors)

    in_threads(encode, range(0, starts.size - 1, _BUCKETS_AT_ONCE), n_threads)
    return codes, factors
