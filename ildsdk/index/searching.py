"""Cosine search over the segments of a snapshot."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from ildsdk.index.segment import NORM_TOLERANCE
from ildsdk.index.snapshot import Snapshot

if TYPE_CHECKING:
    from native_hash import Engine, NeighborHeap

Mode = Literal["exact", "paper"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Answers to m queries, best first; of equal scores the lower row first.

    Attributes
    ----------
    rows : ndarray
        int64 ``(m, top_n)``; -1 where fewer rows than ``top_n`` could be compared.
    scores : ndarray
        float32 ``(m, top_n)``, cosine similarity in [-1, 1], never NaN; -inf where
        ``rows`` is -1.
    n_candidates : ndarray
        int64 ``(m,)``, rows compared with each query.
    """

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    n_candidates: npt.NDArray[np.int64]


def search(
    snapshot: Snapshot,
    queries: npt.NDArray[np.float32],
    top_n: int,
    *,
    mode: Mode,
    excluded_rows: npt.NDArray[np.bool_] | None,
    engine: Engine,
) -> SearchResult:
    """Find the ``top_n`` most similar rows; see ``Index.search``."""
    queries = checked_queries(queries, snapshot.manifest.embedding_size)
    if mode not in get_args(Mode):
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(get_args(Mode))}")
    if excluded_rows is not None and (
        not isinstance(excluded_rows, np.ndarray)
        or excluded_rows.dtype != np.bool_
        or excluded_rows.shape != (snapshot.n_items,)
    ):
        raise ValueError(f"excluded_rows is not a bool array of {snapshot.n_items} rows")
    import native_hash

    heap = native_hash.NeighborHeap(queries, top_n, engine=engine)
    if mode == "paper":
        _offer_buckets(snapshot, queries, heap, excluded_rows, engine)
    else:
        for first_row, segment in snapshot.placed():
            heap.offer(
                segment.rows,
                first_row=first_row,
                excluded=_part(excluded_rows, first_row, segment.n_items),
            )
    rows, scores, n_candidates = heap.result()
    # Two float32 unit vectors may reach 1 + 1e-7; the order above was made before clipping.
    is_answer = rows >= 0
    scores[is_answer] = np.clip(scores[is_answer], -1, 1)
    return SearchResult(rows=rows, scores=scores, n_candidates=n_candidates)


def _offer_buckets(
    snapshot: Snapshot,
    queries: npt.NDArray[np.float32],
    heap: NeighborHeap,
    excluded_rows: npt.NDArray[np.bool_] | None,
    engine: Engine,
) -> None:
    """Compare each query with its own bucket of every table (Chen et al. 2025, eqs. 6-10)."""
    from native_hash import signatures

    query_signatures = signatures(queries, snapshot.hyperplanes, engine=engine)
    for first_row, segment in snapshot.placed():
        tables = segment.buckets(engine)
        excluded = _part(excluded_rows, first_row, segment.n_items)
        for query_number, bits in enumerate(query_signatures):
            found = [table.rows_of(key) for table, key in zip(tables, bits, strict=True)]
            candidates = found[0] if len(found) == 1 else np.unique(np.concatenate(found))
            heap.offer_candidates(
                query_number, segment.rows, candidates, first_row=first_row, excluded=excluded
            )


def _part(
    excluded_rows: npt.NDArray[np.bool_] | None, first_row: int, n_items: int
) -> npt.NDArray[np.bool_] | None:
    if excluded_rows is None:
        return None
    return np.ascontiguousarray(excluded_rows[first_row : first_row + n_items])


def checked_queries(
    queries: npt.NDArray[np.float32], embedding_size: int
) -> npt.NDArray[np.float32]:
    """Queries as float32 ``(m, d)``, refused where they are not unit vectors of this index."""
    queries = np.atleast_2d(np.asarray(queries))
    if queries.dtype != np.float32 or queries.ndim != 2 or queries.shape[1] != embedding_size:
        raise ValueError(
            f"queries are {queries.dtype} {queries.shape}, expected float32 (m, {embedding_size})"
        )
    check_unit_norm(queries, "query")
    return np.ascontiguousarray(queries)


def check_unit_norm(vectors: npt.NDArray[np.float32], what: str) -> None:
    """Refuse vectors that are not finite or not of unit norm within 1e-3.

    Raises
    ------
    ValueError
        Naming how many are at fault.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    n_bad = int(np.count_nonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE)))
    if n_bad:
        raise ValueError(
            f"{n_bad} of {len(vectors)} {what} vectors are not of unit norm within {NORM_TOLERANCE}"
        )
