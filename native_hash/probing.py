"""Hash tables searched by query-directed probing: which rows a query is compared with.

The own bucket of a query loses neighbors across its nearest hyperplanes. Those are known from
the query alone: ``|w . x|`` is its margin, and flipping the bits of the smallest
margins names the buckets worth looking into next.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType

import numpy as np
import numpy.typing as npt

from native_hash.buckets import Buckets, bucket_table
from native_hash.engine import Engine, checked, implementation
from native_hash.signatures import checked_hyperplanes


def probe_order(
    query: npt.NDArray[np.float32],
    hyperplanes: npt.NDArray[np.float32],
    n_probes: int,
    *,
    engine: Engine = "numba",
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Buckets to look into for one query, the most promising first, over all tables.

    A bucket costs the sum of the query's margins ``|w . x|`` (canonical float64) to the
    hyperplanes it lies beyond. The own buckets of all tables cost nothing and come first, in
    the order of tables. Of equal costs, sets of smaller margins come first, then lower
    tables: see ``probe_reference.probe_order``.

    Parameters
    ----------
    query : ndarray
        float32 ``(d,)``, finite.
    hyperplanes : ndarray
        float32 ``(n_tables, k, d)``, finite, k from 1 to 64.
    n_probes : int
        How many buckets, at least 1.

    Returns
    -------
    tables, signatures : ndarray
        int64 and uint64 ``(p,)``, distinct pairs; p is the smaller of ``n_probes`` and
        the ``n_tables * 2**k`` there are.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype, shape or layout, a value that is not finite, ``n_probes`` below 1.
    """
    return _probe_order(query, checked_hyperplanes(hyperplanes), n_probes, _functions(engine))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Hash tables over the rows of one matrix, made by :meth:`build`; safe between threads.

    Attributes
    ----------
    hyperplanes : ndarray
        float32 ``(n_tables, k, d)``, read-only, finite.
    n_rows : int
        Rows n of the matrix.
    keys, first_key : ndarray
        uint64 and int64 ``(n_tables + 1,)``: the signatures that occur in table t are
        ``keys[first_key[t]:first_key[t + 1]]``, ascending.
    starts, rows : ndarray
        int64; bucket b (a position in ``keys``) holds ``rows[starts[b]:starts[b + 1]]``,
        ascending.
    """

    hyperplanes: npt.NDArray[np.float32]
    n_rows: int
    keys: npt.NDArray[np.uint64]
    first_key: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    engine: Engine = "numba"

    @classmethod
    def build(
        cls,
        row_signatures: npt.NDArray[np.uint64],
        hyperplanes: npt.NDArray[np.float32],
        *,
        engine: Engine = "numba",
    ) -> Tables:
        """Group rows by their signatures in each table.

        Parameters
        ----------
        row_signatures : ndarray
            uint64 ``(n, n_tables)``, from ``signatures`` with these hyperplanes.

        Raises
        ------
        TypeError, ValueError
            Wrong dtype, shape or layout, not finite, or signatures of other tables.
        """
        hyperplanes = checked_hyperplanes(hyperplanes)
        row_signatures = checked(row_signatures, np.uint64, 2, "row_signatures")
        n_tables, n_bits, _ = hyperplanes.shape
        n_rows = row_signatures.shape[0]
        if row_signatures.shape[1] != n_tables:
            raise ValueError(
                f"row_signatures are of {row_signatures.shape[1]} tables, hyperplanes of {n_tables}"
            )
        tables = [
            bucket_table(np.ascontiguousarray(column), n_bits, engine=engine)
            for column in row_signatures.T
        ]
        starts = [table.starts[:-1] + number * n_rows for number, table in enumerate(tables)]
        first_key = np.cumsum([0, *(table.keys.size for table in tables)], dtype=np.int64)
        return cls(
            hyperplanes=hyperplanes,
            n_rows=n_rows,
            keys=checked(np.concatenate([t.keys for t in tables]), np.uint64, 1, "keys"),
            first_key=checked(first_key, np.int64, 1, "first_key"),
            starts=checked(np.concatenate([*starts, [n_tables * n_rows]]), np.int64, 1, "starts"),
            rows=checked(np.concatenate([t.rows for t in tables]), np.int64, 1, "rows"),
            engine=engine,
        )

    def table(self, number: int) -> Buckets:
        """One table on its own (views)."""
        first, end = self.first_key[number], self.first_key[number + 1]
        offset = number * self.n_rows
        return Buckets(
            keys=self.keys[first:end],
            starts=self.starts[first : end + 1] - offset,
            rows=self.rows[offset : offset + self.n_rows],
        )

    def candidates(self, query: npt.NDArray[np.float32], n_probes: int) -> npt.NDArray[np.int64]:
        """Distinct rows of the first probed buckets, ascending.

        With one table of k = 3 and one probe, the bucket of Chen et al. 2025, eqs. 6 to 9.

        Parameters
        ----------
        query : ndarray
            float32 ``(d,)``, finite.
        n_probes : int
            Buckets to look into over all tables, at least 1; ``n_tables`` of them are the
            query's own. See :func:`probe_order`.

        Returns
        -------
        ndarray
            int64 ``(c,)``, read-only.

        Raises
        ------
        TypeError, ValueError
            As :func:`probe_order`.
        """
        functions = _functions(self.engine)
        tables, probed = _probe_order(query, self.hyperplanes, n_probes, functions)
        if probed.size == 1:
            return self.table(int(tables[0])).rows_of(probed[0])
        bitmap = np.zeros(-(-self.n_rows // 64), np.uint64)
        n_found = int(
            functions.mark_rows(
                tables, probed, self.keys, self.first_key, self.starts, self.rows, bitmap
            )
        )
        found = np.empty(n_found + 1, np.int64)
        functions.marked_rows(bitmap, found)
        found = found[:-1]
        found.flags.writeable = False
        return found


def _functions(engine: Engine) -> ModuleType:
    """Kernels of probing, or their definition."""
    implementation(engine)  # refuses an unknown name
    if engine == "numba":
        from native_hash import probe_kernels

        return probe_kernels
    from native_hash import probe_reference

    return probe_reference


def _probe_order(
    query: npt.NDArray[np.float32],
    hyperplanes: npt.NDArray[np.float32],
    n_probes: int,
    functions: ModuleType,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    query = checked(query, np.float32, 1, "query")
    n_tables, n_bits, d = hyperplanes.shape
    if query.size != d:
        raise ValueError(f"query has {query.size} dimensions, hyperplanes {d}")
    if n_probes < 1:
        raise ValueError(f"n_probes is {n_probes}, expected at least 1")
    if not np.isfinite(query).all():
        raise ValueError("query holds a value that is not finite")
    n_probes = min(n_probes, n_tables << n_bits)
    dots = np.empty((n_tables, n_bits))
    functions.plane_dots(query, hyperplanes, dots)
    n_entries = n_tables + n_probes
    tables, probed = np.empty(n_probes, np.int64), np.empty(n_probes, np.uint64)
    functions.probe_order(
        dots,
        np.empty((n_tables, n_bits)),
        np.empty((n_tables, n_bits), np.int64),
        np.empty((2, n_entries)),
        np.empty(n_entries, np.uint64),
        np.empty((2, n_entries), np.int64),
        tables,
        probed,
    )
    return tables, probed
