"""What the index loses, apart from what the model loses.

The same vectors are searched three ways: brute force (every row), the certified exact search of
``native_hash`` (must agree, or the report fails), and the paper's preset: k = 3 hyperplanes,
one table, one probe (eqs. 6-10).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

import native_hash
from native_hash.codes import Codes, build_codes

PAPER_BITS = 3
N_LSH_SEEDS = 20
_ULP = 2.0**-23


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """Answers of one search of a fold, per query.

    Attributes
    ----------
    predicted : ndarray
        int64 ``(q,)``, class of the top-1 neighbor, -1 where the bucket is empty.
    precision, recall : ndarray
        float64 ``(q,)``: share of the top_n places with a neighbor of the query's class (an
        empty place is wrong), and share of the exact top_n that was found (ties by score).
    selectivity : ndarray
        float64 ``(q,)``, rows compared / rows indexed.
    """

    predicted: npt.NDArray[np.int64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    selectivity: npt.NDArray[np.float64]


def assert_exact_search(
    queries: npt.NDArray[np.float32],
    stored: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    order: npt.NDArray[np.int64],
    top_n: int,
) -> None:
    """Compare the certified exact search with brute force.

    Parameters
    ----------
    scores, order : ndarray
        ``(q, n)``: brute-force cosines, and rows by descending score, then ascending row.

    Raises
    ------
    RuntimeError
        A different answer. Rows may only be exchanged where their scores agree to the last
        bit of float32: matrix products sum in another order than native_hash does.
    """
    rows = native_hash.checked_rows(np.ascontiguousarray(stored))
    heap = native_hash.NeighborHeap(np.ascontiguousarray(queries), top_n)
    heap.offer(rows, codes=Codes.from_arrays(rows, build_codes(rows)))
    found, found_scores, _ = heap.result()
    n = min(top_n, stored.shape[0])
    found, found_scores = found[:, :n], found_scores[:, :n]
    expected = order[:, :n]
    expected_scores = np.take_along_axis(scores, expected, axis=1)
    same_row = found == expected
    near = np.abs(found_scores - expected_scores) <= _ULP
    # The score that brute force gave the row found, where it is another one.
    near &= same_row | (
        np.abs(np.take_along_axis(scores, np.maximum(found, 0), axis=1) - expected_scores) <= _ULP
    )
    if (found < 0).any() or not near.all():
        n_bad = int(np.count_nonzero(~near.all(axis=1)))
        raise RuntimeError(
            f"the certified exact search and brute force differ for {n_bad} of {len(queries)} "
            "queries: a defect of native_hash, no figure of this report can be trusted"
        )


def paper_searches(
    queries: npt.NDArray[np.float32],
    stored: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    order: npt.NDArray[np.int64],
    hits: npt.NDArray[np.bool_],
    stored_classes: npt.NDArray[np.int64],
    *,
    top_n: int,
    seeds: range,
) -> tuple[SearchOutcome, ...]:
    """Answers of the paper's preset (eqs. 6-10), once for the hyperplanes of each seed.

    Its neighbors are the exact ranking less the rows of other buckets, so nothing is scored again;
    the buckets are native_hash's. That a search through ``native_hash.Tables`` gives the same
    is tested.

    Parameters
    ----------
    scores, order, hits : ndarray
        ``(q, n)``: cosines by row; rows ranked; whether the row at a rank has the query's class.
    stored_classes : ndarray
        int64 ``(n,)``.
    """
    planes = np.concatenate(
        [native_hash.draw_hyperplanes(1, PAPER_BITS, stored.shape[1], seed=s) for s in seeds]
    )
    row_keys = native_hash.signatures(np.ascontiguousarray(stored), planes)
    query_keys = native_hash.signatures(np.ascontiguousarray(queries), planes)
    n_exact = min(top_n, stored.shape[0])
    ranked_scores = np.take_along_axis(scores, order, axis=1)
    is_as_good = ranked_scores >= ranked_scores[:, n_exact - 1 : n_exact]
    ranked_classes = stored_classes[order]
    outcomes = []
    for table in range(len(seeds)):
        in_bucket = row_keys[order, table] == query_keys[:, table, None]  # (q, n), ranked
        is_answer = in_bucket & (np.cumsum(in_bucket, axis=1) <= top_n)
        first = np.argmax(in_bucket, axis=1)[:, None]
        best = np.take_along_axis(ranked_classes, first, axis=1)[:, 0]
        outcomes.append(
            SearchOutcome(
                predicted=np.where(in_bucket.any(axis=1), best, -1),
                precision=(hits & is_answer).sum(axis=1) / top_n,
                recall=np.minimum((is_answer & is_as_good).sum(axis=1), n_exact) / n_exact,
                selectivity=in_bucket.mean(axis=1),
            )
        )
    return tuple(outcomes)
