"""Searching and leaving out by case: a case is one patient, however many studies it has."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ildsdk.index.columns import Field
from ildsdk.index.snapshot import Snapshot

# They bound the memory of a block of scores (8 MB), however long study and index are.
_BLOCK_ROWS, _BLOCK_QUERIES = 65_536, 32
# A product of so many matrix elements with a block of queries is too small for BLAS to wake its
# own threads, which would wait busily for 30 ms after it and take the cores of the next query.
_TILE_ELEMENTS = 8192


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaseScores:
    """Best cosine of every case to every query, over all of a case's items.

    Attributes
    ----------
    case_ids : tuple of str
        Cases with at least one item that was not excluded, sorted.
    scores : ndarray
        float32 ``(m, n_cases)``.
    first_rows : ndarray
        int64 ``(n_cases,)``, lowest row of each case (removed rows left out): whose item tells
        label and site.
    """

    case_ids: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    first_rows: npt.NDArray[np.int64]


def case_scores(
    snapshot: Snapshot,
    queries: npt.NDArray[np.float32],
    excluded_rows: npt.NDArray[np.bool_] | None,
) -> CaseScores:
    """Compare unit queries ``(m, d)`` with all rows; see ``Index.case_scores``."""
    case_ids, numbers = snapshot.column("case_id")
    left_out = snapshot.left_out(excluded_rows)
    best = np.full((len(case_ids), queries.shape[0]), -np.inf, np.float32)
    for first_row, segment in snapshot.placed():
        for start in range(0, segment.n_items, _BLOCK_ROWS):
            rows = slice(start, min(start + _BLOCK_ROWS, segment.n_items))
            placed = slice(first_row + rows.start, first_row + rows.stop)
            make_runs = functools.partial(_runs, numbers[placed])
            order, starts, cases = snapshot.remembered(f"runs of cases from {placed}", make_runs)
            for first in range(0, len(queries), _BLOCK_QUERIES):
                some = slice(first, first + _BLOCK_QUERIES)
                scores = _products(segment.rows.values[rows], queries[some])
                if left_out is not None:
                    scores[left_out[placed]] = -np.inf
                if order is not None:
                    scores = scores[order]
                run_best = np.maximum.reduceat(scores, starts, axis=0)
                best[cases, some] = np.maximum(best[cases, some], run_best)
    first_rows = snapshot.remembered("first rows of cases", lambda: _first_rows(snapshot))
    left = np.flatnonzero(np.isfinite(best).all(axis=1))
    return CaseScores(
        case_ids=tuple(case_ids[number] for number in left),
        scores=np.ascontiguousarray(best[left].T),
        first_rows=first_rows[left],
    )


def _products(
    values: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Dot products ``(n, m)`` of rows ``(n, d)`` with queries ``(m, d)``, on this thread alone."""
    (n, d), m = values.shape, len(queries)
    if m == 1:
        dots: npt.NDArray[np.float32] = np.einsum("nd,d->n", values, queries[0])  # without BLAS
        return dots[:, np.newaxis]
    n_tile = max(1, _TILE_ELEMENTS // d)
    n_tiled = n - n % n_tile
    transposed = np.ascontiguousarray(queries.T)
    scores = np.empty((n, m), np.float32)
    tiles = values[:n_tiled].reshape(-1, n_tile, d)
    np.matmul(tiles, transposed, out=scores[:n_tiled].reshape(-1, n_tile, m))
    np.matmul(values[n_tiled:], transposed, out=scores[n_tiled:])
    return scores


def _first_rows(snapshot: Snapshot) -> npt.NDArray[np.int64]:
    """Lowest row of each case that was not removed, int64 ``(n_cases,)``."""
    case_ids, numbers = snapshot.column("case_id")
    first_rows = np.full(len(case_ids), snapshot.n_items, np.int64)
    live = np.flatnonzero(snapshot.live)
    np.minimum.at(first_rows, numbers[live], live)
    return first_rows


def _runs(
    cases: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.intp] | None, npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """Order in which the rows of each case follow each other, where runs start, their cases.

    The order is None where they do so already, as in an index that was built case by case.
    """
    order = None
    starts = np.flatnonzero(np.diff(cases, prepend=-1))
    n_cases = np.count_nonzero(np.bincount(cases[starts]))  # np.unique would import numpy.ma
    if len(starts) > n_cases:
        order = np.argsort(cases, kind="stable")
        cases = cases[order]
        starts = np.flatnonzero(np.diff(cases, prepend=-1))
    return order, starts, cases[starts]


def whole_cases(snapshot: Snapshot, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mask ``(n,)`` of all rows of every case that has a row in the given mask ``(n,)``.

    Removed rows are neither taken nor given.
    """
    rows = rows & snapshot.live
    if not rows.any():
        return rows
    case_ids: set[str] = set()
    for first_row, segment in snapshot.placed():
        column = segment.column("case_id")
        found = np.unique(column.numbers[rows[first_row : first_row + segment.n_items]])
        case_ids.update(column.names[int(number)] for number in found)
    return rows_with(snapshot, "case_id", case_ids)


def rows_with(snapshot: Snapshot, field: Field, values: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Mask ``(n,)`` of the rows, not removed, that have one of the values."""
    mask = np.zeros(snapshot.n_items, np.bool_)
    wanted = sorted(set(values))
    for first_row, segment in snapshot.placed():
        column = segment.column(field)
        found = [column.names.find(value) for value in wanted]
        is_wanted = np.zeros(len(column.names) + 1, np.bool_)  # the last is that of null, -1
        is_wanted[[number for number in found if number >= 0]] = True
        mask[first_row : first_row + segment.n_items] = is_wanted[column.numbers]
    return mask if snapshot.removed is None else mask & ~snapshot.removed
