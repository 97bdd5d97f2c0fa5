"""What an open index tells: search, items, thumbnails, patients, prevalence, description."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ildsdk.explain import LocationCodes
from ildsdk.index.by_case import CaseScores, case_scores, rows_with, whole_cases
from ildsdk.index.columns import Field
from ildsdk.index.items import ItemRecord, patient_key
from ildsdk.index.manifest import MapsFormat
from ildsdk.index.searching import Mode, SearchResult, checked_queries, search
from ildsdk.index.snapshot import Snapshot
from ildsdk.index.summary import IndexInfo, counted, summarize

if TYPE_CHECKING:
    from native_hash import Engine


class IndexReader:
    """Reading half of :class:`ildsdk.index.Index`; safe from many threads.

    A row number stands for the same item as long as the index is not compacted or repaired;
    numbers of removed items stay unused.
    """

    def __init__(self, snapshot: Snapshot, engine: Engine) -> None:
        self._snapshot = snapshot
        self._engine: Engine = engine

    # ------------------------------------------------------------------ facts

    def __len__(self) -> int:
        return self._snapshot.manifest.n_live

    def __repr__(self) -> str:
        return f"<Index {self.name!r}: {len(self)} items>"

    @property
    def n_rows(self) -> int:
        """Row numbers in use, those of removed items too: the length of masks of rows.

        ``len(index)`` counts items, which are fewer once some were removed.
        """
        return self._snapshot.n_items

    @property
    def name(self) -> str:
        """Name for people."""
        return self._snapshot.manifest.name

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of what search results depend on: bundle, hyperplanes, segments."""
        return self._snapshot.manifest.content_hash()

    @property
    def bundle_hash(self) -> str:
        """Hash of the bundle that made the embeddings."""
        return self._snapshot.manifest.bundle_hash

    @property
    def salt(self) -> bytes:
        """Key of the patient keys; who has it can recognize patients whose PatientID he knows."""
        return self._snapshot.manifest.salt

    @property
    def embedding_size(self) -> int:
        """Dimension d of the embeddings."""
        return self._snapshot.manifest.embedding_size

    @property
    def hyperplanes(self) -> npt.NDArray[np.float32]:
        """Normal vectors of the hash tables, float32 ``(n_tables, n_bits, d)``, read-only."""
        return self._snapshot.hyperplanes

    @property
    def is_synthetic(self) -> bool:
        """Whether the items are phantom CT."""
        return self._snapshot.manifest.is_synthetic

    @property
    def no_match_threshold(self) -> float | None:
        """Best score below which nothing in the index counts as similar; None: not calibrated."""
        return self._snapshot.manifest.calibration.no_match_threshold

    @property
    def maps_format(self) -> MapsFormat | None:
        """What the index's activation maps have in common; None: it has none."""
        return self._snapshot.manifest.maps

    def info(self) -> IndexInfo:
        """Count what the index holds."""
        snapshot = self._snapshot
        return snapshot.remembered("info", lambda: summarize(snapshot))

    def verify(self) -> list[str]:
        """Problems found by reading every byte of the index on disk; empty when intact.

        See :func:`verify_index` for indexes too damaged to open.
        """
        from ildsdk.index.verification import verify_index

        return list(verify_index(self._snapshot.folder, engine=self._engine).problems)

    # ------------------------------------------------------------------ search

    def search(
        self,
        queries: npt.NDArray[np.float32],
        top_n: int,
        *,
        mode: Mode = "exact",
        recall: float = 0.99,
        n_probes: int = 1,
        excluded_rows: npt.NDArray[np.bool_] | None = None,
    ) -> SearchResult:
        """Find the most similar rows by cosine.

        Parameters
        ----------
        queries : ndarray
            float32 ``(m, d)`` or ``(d,)``, unit norm within 1e-3.
        top_n : int
            Answers per query, at least 1.
        mode : {"exact", "fast", "paper"}
            ``"exact"``: the answer of comparing with every row, always; stored codes with error
            bounds spare most of the work. ``"fast"``: stored sketches find most of that answer, in
            large indexes sooner. ``"paper"``: rows that share a hash bucket with the query
            (method section 5: k = 3 random hyperplanes, one table, one probe).
        recall : float
            ``mode="fast"``: share of the true answer to be found, above 0 to 1. Where no setting of
            a segment reached it when the index was written, that segment is searched exactly.
        n_probes : int
            ``mode="paper"``: buckets to visit over all tables, nearest first; at least the own
            bucket of every table is visited.
        excluded_rows : ndarray, optional
            bool ``(n_rows,)``, True for rows to leave out; removed rows are left out anyway.

        Raises
        ------
        ValueError
            Queries, ``top_n``, ``mode``, ``recall``, ``n_probes`` or ``excluded_rows`` do not fit.
        IndexFileError
            A file of the index is damaged.

        References
        ----------
        Chen et al. 2025, eqs. 6-10.
        """
        return search(
            self._snapshot,
            queries,
            top_n,
            mode=mode,
            recall=recall,
            n_probes=n_probes,
            excluded_rows=self._snapshot.left_out(excluded_rows),
            engine=self._engine,
        )

    def case_scores(
        self,
        queries: npt.NDArray[np.float32],
        excluded_rows: npt.NDArray[np.bool_] | None = None,
    ) -> CaseScores:
        """Best cosine of every case to every query, exact, whatever the search mode.

        Parameters
        ----------
        queries : ndarray
            float32 ``(m, d)``, unit norm.
        excluded_rows : ndarray, optional
            bool ``(n_rows,)``, True where a row does not count.
        """
        snapshot = self._snapshot
        return case_scores(
            snapshot, checked_queries(queries, snapshot.manifest.embedding_size), excluded_rows
        )

    # ------------------------------------------------------------------ rows

    def rows(self) -> npt.NDArray[np.int64]:
        """Row numbers of all items, ascending, int64 ``(len(index),)``."""
        return np.flatnonzero(self._snapshot.live)

    def coded(self, field: Field) -> tuple[list[str | None], npt.NDArray[np.int32]]:
        """One text of all rows as distinct values and numbers.

        Parameters
        ----------
        field : {"case_id", "label", "site", "study_instance_uid", "patient_key", "added_on"}

        Returns
        -------
        names : list of str, then None
            Distinct values, sorted; None at the end, where -1 finds it.
        numbers : ndarray
            int32 ``(n_rows,)``, read-only: place of each row's value in ``names``, -1 where a row
            has none. Removed rows keep theirs.
        """
        names, numbers = self._snapshot.column(field)
        return [*names, None], numbers

    def added_on(self) -> npt.NDArray[np.datetime64]:
        """Day (UTC) on which each row was added, ``datetime64[D]`` ``(n_rows,)``; NaT: unknown."""
        names, numbers = self._snapshot.column("added_on")
        return np.array([*names, "NaT"], "datetime64[D]")[numbers]

    def items(self, rows: Iterable[int]) -> list[ItemRecord]:
        """Items of rows, in the order asked for.

        Raises
        ------
        IndexError
            A row is not in the index (-1, the padding of search results, is none), or was
            removed.
        """
        snapshot = self._snapshot
        located = [snapshot.locate(int(row)) for row in rows]
        return [
            item
            for segment, run in itertools.groupby(located, key=lambda place: place[0])
            for item in segment.store.items(row for _, row in run)
        ]

    def thumbnail(self, row: int) -> bytes:
        """Encoded picture of one row."""
        segment, local_row = self._snapshot.locate(int(row))
        return segment.store.thumbnail(local_row)

    def row_of(self, item_id: str) -> int | None:
        """Row of an item, None where the index has no such item."""
        return self._snapshot.row_of(item_id)

    def thumbnail_of_item(self, item_id: str) -> bytes | None:
        """Encoded picture of an item, None where the index has no such item."""
        row = self._snapshot.row_of(item_id)
        return None if row is None else self.thumbnail(row)

    def location_codes(self, row: int) -> LocationCodes | None:
        """Location vectors of one row, from which its activation maps are drawn; None: not kept.

        Raises
        ------
        IndexFileError
            The file of maps is damaged; all else of the index may be intact.
        """
        segment, local_row = self._snapshot.locate(int(row))
        return None if segment.maps is None else segment.maps.codes_of(local_row)

    def embeddings(
        self, rows: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None
    ) -> npt.NDArray[np.float32]:
        """Copy of embeddings, float32 ``(n, d)``: of some rows, or of :meth:`rows`."""
        snapshot = self._snapshot
        if rows is not None:
            located = [snapshot.locate(int(row)) for row in rows]
            parts: list[Any] = [segment.array("embeddings")[[row]] for segment, row in located]
        elif snapshot.removed is None:
            parts = [segment.array("embeddings") for segment in snapshot.segments]
        else:
            parts = [
                segment.array("embeddings")[
                    ~snapshot.removed[first_row : first_row + segment.n_items]
                ]
                for first_row, segment in snapshot.placed()
            ]
        empty = np.empty((0, self.embedding_size), np.float32)
        return np.concatenate([empty, *parts])

    def rows_of_patient(
        self, patient_hash: str | None, study_instance_uid: str | None
    ) -> npt.NDArray[np.bool_]:
        """Which rows belong to a patient or a study, bool ``(n_rows,)``; None matches nothing.

        A case is one patient: where one of its rows matches, all of them do, also those of a
        study whose PatientID was missing or written otherwise.

        Parameters
        ----------
        patient_hash : str or None
            Hash of the PatientID as handed to :meth:`Index.add`.
        """
        snapshot = self._snapshot
        mask = np.zeros(snapshot.n_items, np.bool_)
        if patient_hash:
            key = patient_key(snapshot.manifest.salt, patient_hash)
            mask |= rows_with(snapshot, "patient_key", [key])
        if study_instance_uid:
            mask |= rows_with(snapshot, "study_instance_uid", [study_instance_uid])
        return whole_cases(snapshot, mask)

    def prevalence(self, excluded_rows: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Share of each label among the rows that are not excluded, by label name.

        Every label of the index is there; all shares are 0 where no row is left.
        """
        snapshot = self._snapshot
        left_out = snapshot.left_out(excluded_rows)
        names, numbers = snapshot.column("label")
        known = counted(numbers[snapshot.live], len(names)) > 0
        counts = counted(numbers if left_out is None else numbers[~left_out], len(names))
        n_rows = max(1, int(counts.sum()))
        return {
            name: int(n) / n_rows
            for name, n, is_known in zip(names, counts, known, strict=True)
            if is_known
        }
