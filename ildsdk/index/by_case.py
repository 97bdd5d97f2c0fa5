"""Searching and leaving out by case: a case is one patient, however many studies it has."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ildsdk.index.snapshot import Snapshot

_BLOCK_ROWS = 65_536  # bounds the memory of a block of scores


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
        int64 ``(n_cases,)``, lowest row of each case: whose item tells label and site.
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
    case_ids, numbers = _numbered_cases(snapshot)
    best = np.full((queries.shape[0], len(case_ids)), -np.inf, np.float32)
    for first_row, segment in snapshot.placed():
        embeddings = segment.rows.values
        for start in range(0, segment.n_items, _BLOCK_ROWS):
            rows = slice(start, min(start + _BLOCK_ROWS, segment.n_items))
            placed = slice(first_row + rows.start, first_row + rows.stop)
            scores = queries @ embeddings[rows].T
            if excluded_rows is not None:
                scores[:, excluded_rows[placed]] = -np.inf
            order = np.argsort(numbers[placed], kind="stable")
            present, starts = np.unique(numbers[placed][order], return_index=True)
            block_best = np.maximum.reduceat(scores[:, order], starts, axis=1)
            best[:, present] = np.maximum(best[:, present], block_best)
    first_rows = np.unique(numbers, return_index=True)[1].astype(np.int64)
    left = np.flatnonzero(np.isfinite(best).all(axis=0))
    return CaseScores(
        case_ids=tuple(case_ids[number] for number in left),
        scores=best[:, left],
        first_rows=first_rows[left],
    )


def whole_cases(snapshot: Snapshot, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mask ``(n,)`` of all rows of every case that has a row in the given mask ``(n,)``."""
    if not rows.any():
        return rows
    _, numbers = _numbered_cases(snapshot)
    return np.isin(numbers, numbers[rows])


def _numbered_cases(snapshot: Snapshot) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Sorted case ids, and per row of the index the number of its case."""

    def make() -> tuple[list[str], npt.NDArray[np.int64]]:
        coded = [segment.coded("case_id") for segment in snapshot.segments]
        case_ids = sorted({name for names, _ in coded for name in names})
        place = {case: i for i, case in enumerate(case_ids)}
        numbers = [np.array([place[n] for n in names], np.int64)[codes] for names, codes in coded]
        return case_ids, np.concatenate([np.empty(0, np.int64), *numbers])

    return snapshot.remembered("numbered_cases", make)
