"""``Index``: the database of diagnosed slices, opened, searched and changed.

What only changes an index is imported where it does: a cold query reads (docs/cold-start.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.explain import LocationCodes
from ildsdk.index.manifest import Calibration, Manifest, read_manifest
from ildsdk.index.reading import IndexReader
from ildsdk.index.snapshot import Snapshot, open_snapshot

if TYPE_CHECKING:
    from ildsdk.index.adding import Days
    from ildsdk.index.compacting import CompactReport
    from ildsdk.index.items import ItemRecord
    from ildsdk.index.segment_writing import WritingOptions
    from native_hash import Engine

Calibrate = Callable[["Index"], tuple[float | None, str]]


class Index(IndexReader):
    """Embeddings, items and thumbnails of diagnosed slices in one folder.

    Made by :meth:`open` or :meth:`create`. Reading is safe from many threads. An object
    sees the state it opened, also after another process compacted the folder; methods that change
    the folder bring this object to the new state, other objects and processes are not disturbed
    (they see it when they open anew). Rows keep their numbers until :meth:`compact`. Arrays of
    one entry per row made before a change do not fit after it: let threads that query keep an
    object of their own.
    """

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        expected_bundle_hash: str | None = None,
        engine: Engine = "numba",
    ) -> Index:
        """Open an index for reading and changing; reads only its manifest and removals.

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
        return cls(open_snapshot(folder, manifest), engine)

    def reopened(self) -> Index:
        """Open the same state with files of its own: what a forked child needs.

        Where a writer has meanwhile replaced that state and removed its files, the newest one.

        Raises
        ------
        IndexFileError
            As :meth:`open`.
        """
        snapshot = self._snapshot
        return Index(open_snapshot(snapshot.folder, snapshot.manifest), self._engine)

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
        hyperplanes: npt.NDArray[np.float32] | None = None,
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
        hyperplanes : ndarray, optional
            float32 ``(n_tables, n_bits, embedding_size)``, finite: normal vectors to use in place
            of drawn ones (another index's :attr:`hyperplanes` give its buckets). Their shape tells
            the counts then, and ``seed`` is only put on record.
        salt : bytes, optional
            32 bytes, key of the patient keys; random by default. Given only where
            an index must come out the same each time.

        Raises
        ------
        ConfigError
            The folder holds something already.
        IndexFileError
            It cannot be written, or another writer works in it.
        TypeError, ValueError
            A size, count, threshold or salt is out of range, or ``hyperplanes`` do not fit.
        """
        import secrets

        from ildsdk.index.creating import checked_calibration, chosen_hyperplanes, create_folder

        folder = Path(path)
        planes = chosen_hyperplanes(
            hyperplanes, n_tables=n_tables, n_bits=n_bits, embedding_size=embedding_size, seed=seed
        )
        manifest = create_folder(
            folder,
            name=name,
            bundle_hash=bundle_hash,
            is_synthetic=is_synthetic,
            calibration=checked_calibration(no_match_threshold, threshold_how),
            hyperplanes=planes,
            seed=seed,
            salt=secrets.token_bytes(32) if salt is None else salt,
        )
        return cls(Snapshot(folder, manifest), engine)

    # ------------------------------------------------------------------ writing

    def add(
        self,
        embeddings: npt.NDArray[np.float32],
        items: Iterable[ItemRecord],
        thumbnails: Iterable[bytes],
        *,
        patient_hashes: Iterable[str | None] | None = None,
        patient_keys: Iterable[str | None] | None = None,
        maps: Sequence[LocationCodes | None] | None = None,
        explain_sha256: str | None = None,
        added_on: Days = None,
        calibration: tuple[float | None, str] | Calibrate | None = None,
        with_codes: bool = True,
        n_threads: int = 1,
    ) -> Index:
        """Add slices as one new segment, all or none; what is there is not rewritten.

        Parameters
        ----------
        embeddings : ndarray
            float32 ``(n, d)``, unit norm.
        items : iterable of ItemRecord
            One per embedding, ``patient_key`` None; a generator will do, so that a large index
            needs no list of them.
        thumbnails : iterable of bytes
            One encoded picture per embedding, 1 MiB at most.
        patient_hashes : iterable of str or None, optional
            Hash of each item's PatientID; stored as a salted key only.
        patient_keys : iterable of str or None, optional
            Instead of hashes: keys made with this index's own :attr:`salt` already.
        maps : sequence of LocationCodes or None, optional
            Activation map of each item, None for one without.
        explain_sha256 : str, optional
            With ``maps``: SHA-256 (hex) of the ``explain.onnx`` they were made with.
        added_on : date or sequence of (date or None), optional
            Day to remember as that of adding, of all or of each item; None: today (UTC).
        calibration : (float or None, str) or callable, optional
            As for :meth:`set_calibration`, stored together with the slices in one step. A
            callable is handed the index as it will be, to search in, and gives the two.
        with_codes : bool
            False leaves out what only makes searches faster, for parts that
            ``compact(into_one=True)`` will join.
        n_threads : int
            2 or more: items are written beside the vectors, and codes are built with so many.
            The files do not depend on it.

        Returns
        -------
        Index
            This object, at the new state (with what other writers changed before).

        Raises
        ------
        TypeError, ValueError
            Arguments do not fit together or to the index.
        InputError
            A slice is there already or twice in the list, or a case would have two labels.
        IndexFileError
            Another writer works, the index is damaged or has maps made with another graph, or the
            disk is full.
        """
        from ildsdk.index.adding import NewItems, add_segment
        from ildsdk.index.creating import checked_calibration

        new = NewItems(
            embeddings=embeddings,
            items=items,
            thumbnails=thumbnails,
            patient_hashes=patient_hashes,
            patient_keys=patient_keys,
            maps=maps,
            explain_sha256=explain_sha256,
            added_on=added_on,
        )
        with self._writing() as latest:

            def calibrated(manifest: Manifest) -> Calibration:
                if not callable(calibration):
                    return checked_calibration(*(calibration or ()))
                draft = Index(Snapshot(latest.folder, manifest, latest), self._engine)
                return checked_calibration(*calibration(draft))

            options = self._options(latest, n_threads)
            manifest = add_segment(
                latest,
                new,
                dataclasses.replace(options, with_codes=with_codes),
                calibrated if calibration is not None else None,
            )
            self._snapshot = Snapshot(latest.folder, manifest, latest)
        return self

    def remove(self, *, item_ids: Iterable[str] = (), case_ids: Iterable[str] = ()) -> int:
        """Remove items, or all items of cases: all that are named, or none.

        They are in no answer and no count from then on, and may be added again; their data stay
        in the files until :meth:`compact`.

        Returns
        -------
        int
            How many items were removed.

        Raises
        ------
        TypeError
            A single text instead of several.
        InputError
            An item or a case is not in the index; nothing was removed.
        IndexFileError
            Another writer works, the index is damaged, or the disk is full.
        """
        if isinstance(item_ids, str) or isinstance(case_ids, str):
            raise TypeError("item_ids or case_ids is a single text, expected several")
        from ildsdk.index.removing import rows_to_remove, write_removals

        with self._writing() as latest:
            self._snapshot = latest
            mask = rows_to_remove(latest, item_ids, case_ids)
            if mask.any():
                manifest = write_removals(latest, mask)
                self._snapshot = Snapshot(latest.folder, manifest, latest)
        return int(mask.sum())

    def compact(self, *, into_one: bool = False, n_threads: int = 1) -> CompactReport:
        """Drop removed rows from the files and merge small segments; rows get new numbers.

        Rewrites only segments that have removed rows, are small, or of an older version. Readers
        that opened before keep their state.

        Parameters
        ----------
        into_one : bool
            Join all segments, whatever their size, and make the codes that one lacks. A search
            goes through segment after segment: one is the fastest.
        n_threads : int
            As for :meth:`add`.

        Raises
        ------
        IndexFileError
            Another writer works, the index is damaged, or the disk is full: it needs room
            for the rewritten segments beside the old ones.
        """
        from ildsdk.index.compacting import compact

        with self._writing() as latest:
            options = self._options(latest, n_threads)
            manifest, report = compact(latest, options, into_one=into_one)
            self._snapshot = Snapshot(latest.folder, manifest, latest)
        return report

    def set_calibration(self, no_match_threshold: float | None, how: str) -> None:
        """Store the best score below which an answer is "no similar case".

        Parameters
        ----------
        no_match_threshold : float or None
            Cosine in [-1, 1]; None: not calibrated.
        how : str
            How it was found, for people.
        """
        from ildsdk.index.creating import checked_calibration
        from ildsdk.index.writing import all_or_nothing, write_manifest

        calibration = checked_calibration(no_match_threshold, how)
        with self._writing() as latest:
            manifest = latest.manifest.changed(
                revision=latest.manifest.revision + 1, calibration=calibration
            )
            with all_or_nothing(latest.folder, []):
                write_manifest(latest.folder, manifest)
            self._snapshot = Snapshot(latest.folder, manifest, latest)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Snapshot]:
        """Hold the lock; gives the state on disk, tidied up."""
        from ildsdk.index.locking import writer_lock
        from ildsdk.index.writing import all_or_nothing, tidy

        folder = self._snapshot.folder
        with writer_lock(folder):
            manifest = read_manifest(folder)
            with all_or_nothing(folder, []):
                tidy(folder, manifest)
            yield Snapshot(folder, manifest, self._snapshot)

    def _options(self, snapshot: Snapshot, n_threads: int) -> WritingOptions:
        from ildsdk.index.segment_writing import WritingOptions

        return WritingOptions(
            hyperplanes=snapshot.hyperplanes,
            engine=self._engine,
            n_threads=n_threads,
            maps=snapshot.manifest.maps,
        )

    # ------------------------------------------------------------------ closing

    def close(self) -> None:
        """Let go of the index's files; reading afterward raises ValueError."""
        for segment in self._snapshot.segments:
            segment.close()

    def check_open(self) -> None:
        """Raise ValueError after :meth:`close`."""
        for segment in self._snapshot.segments:
            segment.check_open()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
