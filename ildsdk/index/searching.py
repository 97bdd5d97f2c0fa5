"""Cosine search over the segments of a snapshot."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from ildsdk.index.segment import NORM_TOLERANCE, Segment
from ildsdk.index.snapshot import Snapshot

if TYPE_CHECKING:
    from native_hash import Engine, NeighborHeap

Mode = Literal["exact", "fast", "paper"]
MAX_TOP_N = 100_000
_MODES: tuple[str, ...] = get_args(Mode)


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
        int64 ``(m,)``, rows looked at for each query, by code or in full.
    measured_recall : float or None
        ``mode="fast"``: share of the true answer that this setting found for sample queries when
        the index was written (1 where the search was exact). ``"exact"``: 1. ``"paper"``: None,
        it was not measured.
    """

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    n_candidates: npt.NDArray[np.int64]
    measured_recall: float | None = 1.0


def search(
    snapshot: Snapshot,
    queries: npt.NDArray[np.float32],
    top_n: int,
    *,
    mode: Mode,
    recall: float,
    n_probes: int,
    excluded_rows: npt.NDArray[np.bool_] | None,
    engine: Engine,
) -> SearchResult:
    """Find the ``top_n`` most similar rows; see ``Index.search``."""
    queries = checked_queries(queries, snapshot.manifest.embedding_size)
    if mode not in _MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(_MODES)}")
    if not isinstance(top_n, int | np.integer) or not 1 <= top_n <= MAX_TOP_N:
        raise ValueError(f"top_n is {top_n!r}, expected a whole number from 1 to {MAX_TOP_N}")
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}, expected above 0 and at most 1")
    if n_probes < 1:
        raise ValueError(f"n_probes is {n_probes}, expected at least 1")
    if excluded_rows is not None and (
        not isinstance(excluded_rows, np.ndarray)
        or excluded_rows.dtype != np.bool_
        or excluded_rows.shape != (snapshot.n_items,)
    ):
        raise ValueError(f"excluded_rows is not a bool array of {snapshot.n_items} rows")
    from native_hash import NeighborHeap
    from native_hash.starting import engine_for

    n_multiply_adds = snapshot.n_items * queries.size
    engine = engine_for(engine, n_multiply_adds)
    heap = NeighborHeap(queries, top_n, engine=engine)
    measured = 1.0
    for first_row, segment in snapshot.placed():
        excluded = _part(excluded_rows, first_row, segment.n_items)
        if mode == "paper":
            _offer_buckets(snapshot, segment, queries, heap, first_row, excluded, n_probes, engine)
        else:
            asked = recall if mode == "fast" else None
            found = _offer_codes(segment, heap, first_row, excluded, top_n, asked, engine)
            measured = min(measured, found)
    rows, scores, n_candidates = heap.result()
    np.minimum(n_candidates, snapshot.n_items, out=n_candidates)  # blocks of codes are padded
    # Two float32 unit vectors may reach 1 + 1e-7; the order above was made before clipping.
    np.minimum(scores, 1, out=scores)
    if not scores[:, -1].min(initial=0) >= -1:  # the last are the least; -inf stands for none
        is_answer = rows >= 0
        scores[is_answer] = np.maximum(scores[is_answer], -1)
    return SearchResult(
        rows=rows,
        scores=scores,
        n_candidates=n_candidates,
        measured_recall=None if mode == "paper" else measured,
    )


def _offer_codes(
    segment: Segment,
    heap: NeighborHeap,
    first_row: int,
    excluded: npt.NDArray[np.bool_] | None,
    top_n: int,
    recall: float | None,
    engine: Engine,
) -> float:
    """Compare with a segment: exactly, or so that the asked recall is reached; returns recall."""
    codes = segment.search_codes(engine) if engine == "numba" else None
    if codes is None:
        heap.offer(segment.rows, first_row=first_row, excluded=excluded)
        return 1.0
    return codes.offer(
        heap, segment.rows, n=top_n, recall=recall, first_row=first_row, excluded=excluded
    )


def _offer_buckets(
    snapshot: Snapshot,
    segment: Segment,
    queries: npt.NDArray[np.float32],
    heap: NeighborHeap,
    first_row: int,
    excluded: npt.NDArray[np.bool_] | None,
    n_probes: int,
    engine: Engine,
) -> None:
    """Compare with the buckets nearest to each query (Chen et al. 2025, eqs. 6-10)."""
    tables = segment.tables(snapshot.hyperplanes, engine)
    n_tables = snapshot.manifest.hashing.n_tables
    for query_number, query in enumerate(queries):
        candidates = tables.candidates(query, max(n_probes, n_tables))
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
    queries = np.asarray(queries)
    if queries.ndim == 1:
        queries = queries[np.newaxis]
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
    if len(vectors) == 1:  # of one query the first lines below cost as much as its search
        square = float(np.dot(vectors[0], vectors[0]))
        if abs(square - 1) <= NORM_TOLERANCE:
            return
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    n_bad = int(np.count_nonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE)))
    if n_bad:
        raise ValueError(
            f"{n_bad} of {len(vectors)} {what} vectors are not of unit norm within {NORM_TOLERANCE}"
        )
