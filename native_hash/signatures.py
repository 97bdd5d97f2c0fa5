"""Random hyperplanes and the signatures they give."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from native_hash.engine import Engine, checked, implementation

MAX_BITS = 64


def draw_hyperplanes(
    n_tables: int, n_bits: int, dimension: int, *, seed: int
) -> npt.NDArray[np.float32]:
    """Normal vectors of random hyperplanes, standard normal (method section 5).

    Store the values, not only the seed: numpy may change its generators' streams.

    Returns
    -------
    ndarray
        float32 ``(n_tables, n_bits, dimension)``.

    Raises
    ------
    ValueError
        A count is below 1, or more than 64 bits are asked for.
    """
    if n_tables < 1 or dimension < 1 or not 1 <= n_bits <= MAX_BITS:
        raise ValueError(
            f"{n_tables} tables of {n_bits} bits in {dimension} dimensions, "
            f"expected at least 1 of each and at most {MAX_BITS} bits"
        )
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n_tables, n_bits, dimension), dtype=np.float32)


def checked_hyperplanes(
    hyperplanes: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Read-only view of hyperplanes, refused unless they can give signatures.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype, shape or layout, or a value that is not finite.
    """
    hyperplanes = checked(hyperplanes, np.float32, 3, "hyperplanes")
    if hyperplanes.shape[0] < 1 or not 1 <= hyperplanes.shape[1] <= MAX_BITS:
        raise ValueError(
            f"hyperplanes have shape {hyperplanes.shape}, expected (n_tables >= 1, "
            f"1 to {MAX_BITS} bits, dimension)"
        )
    if not np.isfinite(hyperplanes).all():
        raise ValueError("hyperplanes hold a value that is not finite")
    return hyperplanes


def signatures(
    vectors: npt.NDArray[np.float32],
    hyperplanes: npt.NDArray[np.float32],
    *,
    engine: Engine = "numba",
) -> npt.NDArray[np.uint64]:
    """Packed sign bits, bit i of table t being 1 where ``hyperplanes[t, i] . x > 0``.

    Parameters
    ----------
    vectors : ndarray
        float32 ``(n, d)``, or one vector ``(d,)``; finite.
    hyperplanes : ndarray
        float32 ``(n_tables, k, d)``, finite, k from 1 to 64.

    Returns
    -------
    ndarray
        uint64 ``(n, n_tables)``; ``(1, n_tables)`` for one vector. The same bits for one
        vector and for a batch, on every machine and engine.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype, shape, layout, or a value that is not finite.

    References
    ----------
    Chen et al. 2025, eqs. 6 and 7.
    """
    if isinstance(vectors, np.ndarray) and vectors.ndim == 1:
        vectors = vectors[np.newaxis]
    vectors = checked(vectors, np.float32, 2, "vectors")
    hyperplanes = checked_hyperplanes(hyperplanes)
    if vectors.shape[1] != hyperplanes.shape[2]:
        raise ValueError(
            f"vectors have {vectors.shape[1]} dimensions, hyperplanes {hyperplanes.shape[2]}"
        )
    if not np.isfinite(vectors).all():
        raise ValueError("vectors hold a value that is not finite")
    packed = np.empty((vectors.shape[0], hyperplanes.shape[0]), np.uint64)
    implementation(engine).sign_bits(vectors, hyperplanes, packed)
    return packed
