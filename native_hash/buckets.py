"""Bucket tables: the rows that share a signature."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from native_hash.engine import Engine, checked, implementation
from native_hash.signatures import MAX_BITS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """One hash table in compressed form; empty buckets are not kept.

    Attributes
    ----------
    keys : ndarray
        uint64 ``(n_buckets,)``, the signatures that occur, ascending.
    starts : ndarray
        int64 ``(n_buckets + 1,)``; bucket b holds ``rows[starts[b]:starts[b + 1]]``.
    rows : ndarray
        int64 ``(n,)``, ascending inside each bucket.
    """

    keys: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]

    def rows_of(self, signature: np.uint64) -> npt.NDArray[np.int64]:
        """Rows with this signature, ascending (a view); empty where there are none."""
        bucket = int(np.searchsorted(self.keys, signature))
        if bucket == self.keys.size or self.keys[bucket] != signature:
            return self.rows[:0]
        return self.rows[self.starts[bucket] : self.starts[bucket + 1]]


def bucket_table(
    signatures: npt.NDArray[np.uint64], n_bits: int, *, engine: Engine = "numba"
) -> Buckets:
    """Group rows by signature.

    Parameters
    ----------
    signatures : ndarray
        uint64 ``(n,)``, one table's signatures.
    n_bits : int
        Bits in use, 1 to 64.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype, shape or layout, or a signature with bits beyond ``n_bits``.
    """
    signatures = checked(signatures, np.uint64, 1, "signatures")
    if not 1 <= n_bits <= MAX_BITS:
        raise ValueError(f"n_bits is {n_bits}, expected 1 to {MAX_BITS}")
    if signatures.size and int(signatures.max()) >> n_bits:
        raise ValueError(f"a signature has bits beyond the {n_bits} in use")
    n = signatures.size
    rows, scratch = np.empty(n, np.int64), np.empty(n, np.int64)
    keys, starts = np.empty(n, np.uint64), np.empty(n + 1, np.int64)
    functions = implementation(engine)
    functions.sort_by_signature(signatures, n_bits, rows, scratch, np.empty(256, np.int64))
    n_buckets = int(functions.mark_buckets(signatures, rows, keys, starts))
    return Buckets(
        keys=checked(keys[:n_buckets].copy(), np.uint64, 1, "keys"),
        starts=checked(starts[: n_buckets + 1].copy(), np.int64, 1, "starts"),
        rows=checked(rows, np.int64, 1, "rows"),
    )
