"""The N rows with the largest dot product (for unit vectors: cosine) to each query.

The score of a row is its dot product in float64 in one fixed order, rounded to float32;
answers are ordered by score descending, then row ascending. That fixes every bit: one
query or a batch, one matrix or several, candidates in any order, either engine.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from native_hash.engine import Engine, checked, implementation

if TYPE_CHECKING:
    from native_hash.codes import Codes
    from native_hash.sketch import Sketch, SketchSetting

_NOTHING = checked(np.empty(0, np.uint8), np.uint8, 1, "excluded")
_LEAST_NORM = 2.0**-60  # of queries for codes: shorter ones underflow float32, and are scanned
_LARGEST_NORM = 2.0**60  # products of two such rows stay far inside float32


@dataclasses.dataclass(frozen=True, slots=True)
class CheckedRows:
    """A matrix whose values were looked at once, so that searches need not.

    Attributes
    ----------
    values : ndarray
        float32 ``(n, d)``, read-only, C-contiguous, finite.
    max_norm : float
        Largest Euclidean norm of a row (0 where there is none).
    """

    values: npt.NDArray[np.float32]
    max_norm: float


def checked_rows(matrix: npt.NDArray[np.float32]) -> CheckedRows:
    """Check a matrix for searching; it must not be written to afterward.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype, shape or layout, NaN or infinity, or a norm above 2**60.
    """
    values = checked(matrix, np.float32, 2, "matrix")
    return CheckedRows(
        values, float(_checked_norms(values, "matrix", implementation("numpy")).max(initial=0.0))
    )


def _checked_norms(
    values: npt.NDArray[np.float32], name: str, functions: ModuleType
) -> npt.NDArray[np.float64]:
    norms = np.empty(values.shape[0], np.float64)
    largest = functions.row_norms(values, norms)
    if not largest <= _LARGEST_NORM:  # also where it is NaN
        if np.isfinite(largest):
            raise ValueError(f"a row of {name} has norm {largest:.3g}, expected at most 2**60")
        raise ValueError(f"{name} holds a value that is not finite")
    return norms


def unit_rows(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Copy with rows scaled to unit norm, so that dot products are cosines (eq. 9).

    A zero row stays zero and scores 0 against everything.
    """
    wide = np.asarray(matrix, np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.ascontiguousarray(wide / np.where(norms == 0, 1, norms), np.float32)


class NeighborHeap:
    """The N best rows of each query while rows are offered to it.

    Made for one search, used by one thread; rows of one index may come in several
    matrices. A row must be offered at most once.

    Parameters
    ----------
    queries : ndarray
        float32 ``(m, d)`` or ``(d,)``, finite.
    n : int
        How many answers, at least 1.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype, shape or layout, NaN or infinity, or n below 1.
    """

    def __init__(
        self, queries: npt.NDArray[np.float32], n: int, *, engine: Engine = "numba"
    ) -> None:
        if n < 1:
            raise ValueError(f"n is {n}, expected at least 1")
        if isinstance(queries, np.ndarray) and queries.ndim == 1:
            queries = queries[np.newaxis]
        self._functions = implementation(engine)
        self._engine = engine
        self._queries = checked(queries, np.float32, 2, "queries")
        self._norms = _checked_norms(self._queries, "queries", self._functions)
        n_queries = self._queries.shape[0]
        self._least_norm = float(self._norms[0]) if n_queries == 1 else min(self._norms, default=0)
        self._scores = np.empty((n_queries, n), np.float32)
        self._rows = np.empty((n_queries, n), np.int64)
        self._n_filled = np.zeros(n_queries, np.int64)
        self._n_scored = np.zeros(n_queries, np.int64)

    def offer(
        self,
        rows: CheckedRows,
        *,
        codes: Codes | None = None,
        depth: float = 1.0,
        first_row: int = 0,
        excluded: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Offer every row of a matrix.

        Parameters
        ----------
        codes : Codes, optional
            Codes of this matrix: the same answer sooner. The numpy engine has no use for them,
            nor have queries of a norm below 2**-60.
        depth : float
            Of a :class:`TreeSetting`; below 1 rows may be missed where the codes have a tree.
        first_row : int
            Number under which row 0 of this matrix appears in the answer.
        excluded : ndarray, optional
            bool ``(n,)``, True for rows of this matrix to leave out.
        """
        flags = self._checked_excluded(rows, excluded)
        if codes is not None and self._engine == "numba" and self._least_norm >= _LEAST_NORM:
            self._search_codes(rows, codes, depth, first_row, flags)
            return
        self._functions.scan(
            rows.values,
            self._queries,
            first_row,
            self._slacks(rows),
            flags,
            self._scores,
            self._rows,
            self._n_filled,
        )
        self._n_scored += rows.values.shape[0] - int(np.count_nonzero(flags))

    def _search_codes(
        self,
        rows: CheckedRows,
        codes: Codes,
        depth: float,
        first_row: int,
        flags: npt.NDArray[np.uint8],
    ) -> None:
        search_codes, search_tree = _search_functions()
        before = (rows.values, self._queries, first_row, flags)
        after = (self._scores, self._rows, self._n_filled, self._n_scored)
        if codes.tree is None:
            search_codes(*before, *codes.search_parts, *after)
        else:
            search_tree(*before, depth, *codes.search_parts, *after)

    def offer_candidates(
        self,
        query_number: int,
        rows: CheckedRows,
        candidates: npt.NDArray[np.int64],
        *,
        first_row: int = 0,
        excluded: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Offer some rows of a matrix to one query.

        Parameters
        ----------
        candidates : ndarray
            int64 ``(c,)``, distinct rows of this matrix, in any order.

        Raises
        ------
        TypeError, ValueError
            Wrong dtype or layout, or a candidate that is no row of the matrix.
        """
        flags = self._checked_excluded(rows, excluded)
        candidates = checked(candidates, np.int64, 1, "candidates")
        n = rows.values.shape[0]
        if candidates.size and (int(candidates.min()) < 0 or int(candidates.max()) >= n):
            raise ValueError(f"a candidate is no row of the matrix (0 to {n - 1})")
        self._n_scored[query_number] += self._functions.scan_candidates(
            rows.values,
            self._queries,
            query_number,
            candidates,
            first_row,
            self._slacks(rows),
            flags,
            self._scores,
            self._rows,
            self._n_filled,
        )

    def offer_sketch(
        self,
        sketch: Sketch,
        setting: SketchSetting,
        *,
        first_row: int = 0,
        excluded: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Offer the rows a sketch takes for the best: most of them, not certainly all.

        Parameters
        ----------
        setting : SketchSetting
            From :meth:`Sketch.setting`.
        """
        flags = self._checked_excluded(sketch.vectors, excluded)
        for query_number, slack in enumerate(self._slacks(sketch.vectors)):
            counts = sketch.search(
                self._queries,
                query_number,
                setting,
                best_scores=self._scores,
                best_rows=self._rows,
                n_filled=self._n_filled,
                slack=float(slack),
                excluded=flags,
                first_row=first_row,
            )
            self._n_scored[query_number] += counts[1]

    def result(
        self,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Answers so far, best first.

        Returns
        -------
        rows : ndarray
            int64 ``(m, n)``; -1 where fewer than n rows were offered.
        scores : ndarray
            float32 ``(m, n)``, never NaN; -inf where rows is -1.
        n_scored : ndarray
            int64 ``(m,)``: rows offered and not excluded; with codes the codes read, padding
            and excluded rows among them.
        """
        rows, scores = self._rows.copy(), self._scores.copy()
        self._functions.sort_answers(scores, rows, self._n_filled)
        return rows, scores, self._n_scored.copy()

    def _checked_excluded(
        self, rows: CheckedRows, excluded: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.uint8]:
        n, d = rows.values.shape
        if d != self._queries.shape[1]:
            raise ValueError(f"queries have {self._queries.shape[1]} dimensions, the matrix {d}")
        if excluded is None:
            return _NOTHING
        flags = checked(excluded, np.bool_, 1, "excluded")
        if flags.size != n:
            raise ValueError(f"excluded has {flags.size} entries, the matrix {n} rows")
        return flags.view(np.uint8)

    def _slacks(self, rows: CheckedRows) -> npt.NDArray[np.float64]:
        """Rounding bound of a float32 dot product of each query and any row."""
        relative, least = slack_of(self._queries.shape[1], rows.max_norm)
        slacks: npt.NDArray[np.float64] = relative * self._norms + least
        slacks.flags.writeable = False
        return slacks


def slack_of(d: int, max_norm: float) -> tuple[float, float]:
    """Rounding bound of a float32 dot product in any order: by the query's norm, and at least.

    |computed - exact| <= d u / (1 - d u) * |q| |x| with u = 2**-24 (Higham, "Accuracy and
    Stability of Numerical Algorithms", section 3.1); twice that, a few u more for
    rounding the score and the threshold, and the underflow of d products.
    """
    return (d + 8) * 2.0**-23 * max_norm, d * 2.0**-126


@functools.cache  # an import statement costs as much as half a hundred rows
def _search_functions() -> tuple[Callable[..., None], Callable[..., None]]:
    from native_hash.code_kernels import search_codes
    from native_hash.tree_kernels import search_tree

    return search_codes, search_tree


def top_n(
    matrix: npt.NDArray[np.float32] | CheckedRows,
    queries: npt.NDArray[np.float32],
    n: int,
    *,
    candidates: npt.NDArray[np.int64] | None = None,
    excluded: npt.NDArray[np.bool_] | None = None,
    engine: Engine = "numba",
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The n best rows of one matrix: all of it, or the same candidates for each query.

    Returns
    -------
    rows, scores, n_scored : ndarray
        As :meth:`NeighborHeap.result`.
    """
    rows = matrix if isinstance(matrix, CheckedRows) else checked_rows(matrix)
    heap = NeighborHeap(queries, n, engine=engine)
    if candidates is None:
        heap.offer(rows, excluded=excluded)
        return heap.result()
    n_queries = 1 if queries.ndim == 1 else queries.shape[0]
    for query_number in range(n_queries):
        heap.offer_candidates(query_number, rows, candidates, excluded=excluded)
    return heap.result()
