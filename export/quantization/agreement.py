"""Do answers change: two forms of a network, the same queries, the same index.

What is compared is the answers of one form with those of the other; whether they are right is
another question (:mod:`export.measures`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ildsdk.index import Index

ALL = "all"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far the answers of a form agree with those of the reference form.

    Attributes
    ----------
    n_queries : int
    cosine_min, cosine_median : float
        Of a query's two embeddings.
    mean_squared_distance : float
        Of a query's two embeddings; finer than any of the shares, so what is chosen is chosen
        by it.
    top1_label : float
        Share of queries whose best neighbor has the same diagnosis in both.
    top1_item : float
        Share of queries with the same best neighbor.
    top_n_overlap : float
        Mean share of the reference's first n neighbors that are among the other's.
    """

    n_queries: int
    cosine_min: float
    cosine_median: float
    mean_squared_distance: float
    top1_label: float
    top1_item: float
    top_n_overlap: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuerySet:
    """Queries that both forms answer.

    Attributes
    ----------
    images : sequence of ndarray
        float32 ``(1, 1, S, S)`` each.
    radiomics : ndarray
        float32 ``(n, p)``, standardised.
    labels, case_ids : tuple of str
    """

    images: Sequence[npt.NDArray[np.float32]]
    radiomics: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    case_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


class Answers:
    """What an index answers to embeddings; a query's own case is left out.

    Parameters
    ----------
    index : Index
    queries : QuerySet
    top_n : int
    """

    def __init__(self, index: Index, queries: QuerySet, top_n: int) -> None:
        self._index, self._queries, self._top_n = index, queries, top_n
        self._items = index.items(range(index.n_rows))

    def neighbors(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Rows of the first n neighbors, int64 ``(m, n)``."""
        rows = np.empty((len(embeddings), self._top_n), np.int64)
        for case_id in set(self._queries.case_ids):
            mine = [i for i, case in enumerate(self._queries.case_ids) if case == case_id]
            own = np.array([item.case_id == case_id for item in self._items])
            found = self._index.search(
                embeddings[mine], self._top_n, excluded_rows=own if own.any() else None
            )
            rows[mine] = found.rows
        return rows

    def labels_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
        """Diagnoses of rows."""
        return np.array([self._items[row].label for row in rows])


def agreement(
    answers: Answers,
    queries: QuerySet,
    reference: npt.NDArray[np.float32],
    other: npt.NDArray[np.float32],
) -> dict[str, Agreement]:
    """Agreement over all queries (``"all"``) and for each class of query.

    Parameters
    ----------
    reference, other : ndarray
        float32 ``(n, d)`` unit vectors of the queries by the two forms.
    """
    cosine = (reference.astype(np.float64) * other).sum(axis=1)
    expected, found = answers.neighbors(reference), answers.neighbors(other)
    same_item = expected[:, 0] == found[:, 0]
    same_label = answers.labels_of(expected[:, 0]) == answers.labels_of(found[:, 0])
    overlap = np.array(
        [np.intersect1d(a, b).size / a.size for a, b in zip(expected, found, strict=True)]
    )
    labels = np.array(queries.labels)
    groups = {ALL: np.full(len(queries), True)}
    groups |= {label: labels == label for label in sorted(set(queries.labels))}
    return {
        name: Agreement(
            n_queries=int(group.sum()),
            cosine_min=float(cosine[group].min()),
            cosine_median=float(np.median(cosine[group])),
            mean_squared_distance=float((2 - 2 * cosine[group]).mean()),
            top1_label=float(same_label[group].mean()),
            top1_item=float(same_item[group].mean()),
            top_n_overlap=float(overlap[group].mean()),
        )
        for name, group in groups.items()
    }
