"""``Index``: the database of diagnosed slices, opened, searched and added to."""

from __future__ import annotations

import dataclasses
import itertools
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.index.adding import NewItems, add_segment
from ildsdk.index.by_case import CaseScores, case_scores, whole_cases
from ildsdk.index.creating import checked_calibration, create_folder
from ildsdk.index.items import ItemRecord, patient_key
from ildsdk.index.manifest import read_manifest
from ildsdk.index.searching import Mode, SearchResult, checked_queries, search
from ildsdk.index.snapshot import Snapshot
from ildsdk.index.summary import IndexInfo, summarize
from ildsdk.index.verification import verify_index
from ildsdk.index.writing import (
    all_or_nothing,
    delete_leftovers,
    write_manifest,
    writer_lock,
)

if TYPE_CHECKING:
    from native_hash import Engine


class Index:
    """Embeddings, items and thumbnails of diagnosed slices in one folder.

    Made by :meth:`open` or :meth:`create`. Reading is safe from many threads. An object
    sees the state it opened; :meth:`add` and :meth:`set_calibration` change the folder and bring
    this object to the new state, other objects and processes are not disturbed (they see
    it when they open anew). Rows keep their numbers. Arrays of one entry per row made
    before an ``add`` do not fit after it: let threads that query keep an object of their own.
    """

    def __init__(self, snapshot: Snapshot, engine: Engine) -> None:
        self._snapshot = snapshot
        self._engine: Engine = engine

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        expected_bundle_hash: str | None = None,
        engine: Engine = "numba",
    ) -> Index:
        """Open an index for reading and adding; reads only its manifest.

        Parameters
        ----------
        expected_bundle_hash : str, optional
            Refuse an index whose embeddings were made with another bundle.
        engine : {"numba", "numpy"}
            Compiled kernels, or their slower numpy definition; the answers are the same bits.

        Raises
        ------
        IndexFileError
            Missing, damaged, written by a newer ildsdk, or made with another bundle.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        if expected_bundle_hash is not None and manifest.bundle_hash != expected_bundle_hash:
            raise IndexFileError(
                f"index {manifest.name!r} was built with bundle {manifest.bundle_hash[:12]}, this "
                f"is bundle {expected_bundle_hash[:12]}: their embeddings cannot be compared; "
                "use the index's bundle or build the index anew"
            )
        return cls(Snapshot(folder, manifest), engine)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str,
        bundle_hash: str,
        embedding_size: int,
        is_synthetic: bool,
        no_match_threshold: float | None = None,
        threshold_how: str = "",
        n_tables: int = 1,
        n_bits: int = 3,
        seed: int = 0,
        salt: bytes | None = None,
        engine: Engine = "numba",
    ) -> Index:
        """Create an empty index in a new or empty folder.

        Parameters
        ----------
        no_match_threshold, threshold_how
            See :meth:`set_calibration`.
        n_tables, n_bits, seed : int
            Hash tables of ``mode="paper"``; the defaults are the paper's preset.
        salt : bytes, optional
            32 bytes, key of the patient keys; random by default. Given only where
            an index must come out the same each time.

        Raises
        ------
        ConfigError
            The folder holds something already.
        IndexFileError
            It cannot be written, or another writer works in it.
        ValueError
            A size, count, threshold or salt is out of range.
        """
        folder = Path(path)
        manifest = create_folder(
            folder,
            name=name,
            bundle_hash=bundle_hash,
            embedding_size=embedding_size,
            is_synthetic=is_synthetic,
            calibration=checked_calibration(no_match_threshold, threshold_how),
            n_tables=n_tables,
            n_bits=n_bits,
            seed=seed,
            salt=secrets.token_bytes(32) if salt is None else salt,
        )
        return cls(Snapshot(folder, manifest), engine)

    # ------------------------------------------------------------------ facts

    def __len__(self) -> int:
        return self._snapshot.n_items

    def __repr__(self) -> str:
        return f"<Index {self.name!r}: {len(self)} items>"

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
    def embedding_size(self) -> int:
        """Dimension d of the embeddings."""
        return self._snapshot.manifest.embedding_size

    @property
    def is_synthetic(self) -> bool:
        """Whether the items are phantom CT."""
        return self._snapshot.manifest.is_synthetic

    @property
    def no_match_threshold(self) -> float | None:
        """Best score below which nothing in the index counts as similar; None: not calibrated."""
        return self._snapshot.manifest.calibration.no_match_threshold

    def info(self) -> IndexInfo:
        """Count what the index holds."""
        snapshot = self._snapshot
        return snapshot.remembered("info", lambda: summarize(snapshot))

    def verify(self) -> list[str]:
        """Problems found by reading every byte of the index on disk; empty when intact.

        See :func:`verify_index` for indexes too damaged to open.
        """
        return list(verify_index(self._snapshot.folder, engine=self._engine).problems)

    # ------------------------------------------------------------------ reading

    def search(
        self,
        queries: npt.NDArray[np.float32],
        top_n: int,
        *,
        mode: Mode = "exact",
        excluded_rows: npt.NDArray[np.bool_] | None = None,
    ) -> SearchResult:
        """Find the most similar rows by cosine.

        Parameters
        ----------
        queries : ndarray
            float32 ``(m, d)`` or ``(d,)``, unit norm within 1e-3.
        top_n : int
            Answers per query, at least 1.
        mode : {"exact", "paper"}
            Compare with every row, or with the query's own hash bucket (method section 5:
            k = 3 random hyperplanes, one table, one probe).
        excluded_rows : ndarray, optional
            bool ``(n,)``, True for rows to leave out.

        Raises
        ------
        ValueError
            Queries, ``top_n``, ``mode`` or ``excluded_rows`` do not fit.
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
            excluded_rows=excluded_rows,
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
            bool ``(n,)``, True where a row does not count.
        """
        snapshot = self._snapshot
        return case_scores(
            snapshot, checked_queries(queries, snapshot.manifest.embedding_size), excluded_rows
        )

    def items(self, rows: Iterable[int]) -> list[ItemRecord]:
        """Items of rows, in the order asked for.

        Raises
        ------
        IndexError
            A row is not in the index (-1, the padding of search results, is none).
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

    def thumbnail_of_item(self, item_id: str) -> bytes | None:
        """Encoded picture of an item, None where the index has no such item."""
        for segment in self._snapshot.segments:
            row = segment.store.row_of(item_id)
            if row is not None:
                return segment.store.thumbnail(row)
        return None

    def embeddings(
        self, rows: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None
    ) -> npt.NDArray[np.float32]:
        """Copy of embeddings, float32 ``(n, d)``: of some rows, or of all."""
        snapshot = self._snapshot
        if rows is not None:
            located = [snapshot.locate(int(row)) for row in rows]
            parts: list[Any] = [segment.array("embeddings")[[row]] for segment, row in located]
        else:
            parts = [segment.array("embeddings") for segment in snapshot.segments]
        empty = np.empty((0, self.embedding_size), np.float32)
        return np.concatenate([empty, *parts])

    def rows_of_patient(
        self, patient_hash: str | None, study_instance_uid: str | None
    ) -> npt.NDArray[np.bool_]:
        """Which rows belong to a patient or a study, bool ``(n,)``; None matches nothing.

        A case is one patient: where one of its rows matches, all of them do, also those of a
        study whose PatientID was missing or written otherwise.

        Parameters
        ----------
        patient_hash : str or None
            Hash of the PatientID as handed to :meth:`add`.
        """
        snapshot = self._snapshot
        key = patient_key(snapshot.manifest.salt, patient_hash) if patient_hash else None
        mask = np.zeros(snapshot.n_items, np.bool_)
        for first_row, segment in snapshot.placed():
            rows = segment.store.rows_of_patient(key, study_instance_uid or None)
            in_range = [row for row in rows if 0 <= row < segment.n_items]
            mask[np.array(in_range, np.int64) + first_row] = True
        return whole_cases(snapshot, mask)

    def prevalence(self, excluded_rows: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Share of each label among the rows that are not excluded, by label name.

        Every label of the index is there; all shares are 0 where no row is left.
        """
        counts: Counter[str] = Counter()
        snapshot = self._snapshot
        if excluded_rows is not None and np.shape(excluded_rows) != (snapshot.n_items,):
            raise ValueError(f"excluded_rows is not a bool array of {snapshot.n_items} rows")
        for first_row, segment in snapshot.placed():
            names, codes = segment.coded("label")
            if excluded_rows is not None:
                codes = codes[~excluded_rows[first_row : first_row + segment.n_items]]
            found = np.bincount(codes, minlength=len(names))
            counts.update(dict(zip(names, map(int, found), strict=True)))
        n_rows = max(1, counts.total())
        return {label: n / n_rows for label, n in sorted(counts.items())}

    # ------------------------------------------------------------------ writing

    def add(
        self,
        embeddings: npt.NDArray[np.float32],
        items: Sequence[ItemRecord],
        thumbnails: Sequence[bytes],
        *,
        patient_hashes: Sequence[str | None] | None = None,
    ) -> Index:
        """Add slices as one new segment, all or none; what is there is not rewritten.

        Parameters
        ----------
        embeddings : ndarray
            float32 ``(n, d)``, unit norm.
        items : sequence of ItemRecord
            One per embedding, ``patient_key`` None.
        thumbnails : sequence of bytes
            One encoded picture per embedding, 1 MiB at most.
        patient_hashes : sequence of str or None, optional
            Hash of each item's PatientID; stored as a salted key only.

        Returns
        -------
        Index
            This object, at the new state (with what other writers added before).

        Raises
        ------
        TypeError, ValueError
            Arguments do not fit together or to the index.
        InputError
            A slice is there already or twice in the list, or a case would have two labels.
        IndexFileError
            Another writer works, the index is damaged, or the disk is full.
        """
        new = NewItems(
            embeddings=embeddings, items=items, thumbnails=thumbnails, patient_hashes=patient_hashes
        )
        with writer_lock(self._snapshot.folder):
            latest = self._latest_for_writing()
            manifest = add_segment(latest, new, self._engine)
            self._snapshot = Snapshot(latest.folder, manifest, latest)
        return self

    def set_calibration(self, no_match_threshold: float | None, how: str) -> None:
        """Store the best score below which an answer is "no similar case".

        Parameters
        ----------
        no_match_threshold : float or None
            Cosine in [-1, 1]; None: not calibrated.
        how : str
            How it was found, for people.
        """
        calibration = checked_calibration(no_match_threshold, how)
        with writer_lock(self._snapshot.folder):
            latest = self._latest_for_writing()
            manifest = dataclasses.replace(
                latest.manifest, revision=latest.manifest.revision + 1, calibration=calibration
            )
            with all_or_nothing(latest.folder, []):
                write_manifest(latest.folder, manifest)
            self._snapshot = Snapshot(latest.folder, manifest, latest)

    def _latest_for_writing(self) -> Snapshot:
        """State on disk, leftovers deleted; the caller has the lock."""
        folder = self._snapshot.folder
        latest = Snapshot(folder, read_manifest(folder), self._snapshot)
        delete_leftovers(folder, latest.manifest)
        return latest

    # ------------------------------------------------------------------ closing

    def close(self) -> None:
        """Let go of the index's files; reading afterward raises ValueError."""
        for segment in self._snapshot.segments:
            segment.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
