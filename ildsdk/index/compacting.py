"""Merging small segments and dropping removed rows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.explain import LocationCodes
from ildsdk.index.arrays import map_arrays
from ildsdk.index.columns import CHECKS, columns_layout
from ildsdk.index.file_checks import file_problems
from ildsdk.index.item_writing import Values
from ildsdk.index.kept_aside import kept_aside
from ildsdk.index.manifest import Manifest, SegmentEntry
from ildsdk.index.maps import MapSource
from ildsdk.index.segment import Segment
from ildsdk.index.segment_writing import (
    BLOCK_ROWS,
    SegmentSource,
    WritingOptions,
    write_segment,
)
from ildsdk.index.snapshot import Snapshot
from ildsdk.index.writing import all_or_nothing, segment_file_names, write_manifest

SMALL_SEGMENT_ROWS = 10_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CompactReport:
    """What a compaction did; all zero but the counts of segments where there was nothing to do.

    Attributes
    ----------
    n_segments_before, n_segments_after : int
    n_rows_dropped : int
        Removed rows that are gone from the files now.
    n_rows_rewritten : int
        Rows copied into new segments.
    n_bytes_before, n_bytes_after : int
        Size of all files the manifest names.
    kept_aside : tuple of str
        Folders in the index with damaged files of what a repair dropped. No compaction touches
        them: delete them once nobody wants them, for they may hold removed patients' data.
    """

    n_segments_before: int
    n_segments_after: int
    n_rows_dropped: int
    n_rows_rewritten: int
    n_bytes_before: int
    n_bytes_after: int
    kept_aside: tuple[str, ...] = ()


class KeptRows(Protocol):
    """Rows of an old segment that go into a new one."""

    @property
    def n_kept(self) -> int:
        """How many."""

    def embeddings(self) -> Iterator[npt.NDArray[np.float32]]:
        """Embeddings in blocks."""

    def items(self) -> Iterator[Values]:
        """Values of items."""

    def thumbnails(self) -> Iterator[bytes]:
        """Thumbnails."""

    def has_map(self) -> npt.NDArray[np.bool_]:
        """Which of them have an activation map, bool ``(n_kept,)``."""

    def maps(self) -> Iterator[LocationCodes]:
        """Maps of those that have one."""


@dataclasses.dataclass(frozen=True, slots=True)
class LiveRows:
    """Those rows of a segment that go into a new one.

    Attributes
    ----------
    entry : SegmentEntry
        The segment in the manifest as it is.
    is_kept : ndarray
        Mask over the segment's rows.
    """

    entry: SegmentEntry
    segment: Segment
    is_kept: npt.NDArray[np.bool_]

    @property
    def n_kept(self) -> int:
        """How many rows are kept."""
        return int(self.is_kept.sum())

    def embeddings(self) -> Iterator[npt.NDArray[np.float32]]:
        """Kept embeddings in blocks."""
        values = self.segment.array("embeddings")
        for start in range(0, len(values), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            yield np.ascontiguousarray(values[rows][self.is_kept[rows]])

    def items(self) -> Iterator[Values]:
        """Values of kept items."""
        rows = self.segment.store.iter_values()
        return (values for row, values in rows if self.is_kept[row])

    def thumbnails(self) -> Iterator[bytes]:
        """Kept thumbnails."""
        rows = self.segment.store.iter_thumbnails()
        return (picture for row, picture in rows if self.is_kept[row])

    def has_map(self) -> npt.NDArray[np.bool_]:
        """Which kept rows have a map."""
        maps = self.segment.maps
        return np.zeros(self.n_kept, np.bool_) if maps is None else maps.has_map[self.is_kept]

    def maps(self) -> Iterator[LocationCodes]:
        """Maps of kept rows; a damaged one is an error."""
        maps = self.segment.maps
        if maps is not None:
            for row in np.flatnonzero(maps.has_map & self.is_kept).tolist():
                codes = maps.codes_of(row)
                assert codes is not None
                yield codes


def merged(parts: Sequence[KeptRows], embedding_size: int) -> SegmentSource:
    """Several segments' kept rows as the source of one new segment."""
    return SegmentSource(
        shape=(sum(part.n_kept for part in parts), embedding_size),
        embeddings=lambda: itertools.chain.from_iterable(part.embeddings() for part in parts),
        items=itertools.chain.from_iterable(part.items() for part in parts),
        thumbnails=itertools.chain.from_iterable(part.thumbnails() for part in parts),
        maps=MapSource(
            has_map=np.concatenate([part.has_map() for part in parts]),
            codes=lambda: itertools.chain.from_iterable(part.maps() for part in parts),
        ),
    )


def compact(
    snapshot: Snapshot, options: WritingOptions, *, into_one: bool = False
) -> tuple[Manifest, CompactReport]:
    """Write what gains by it anew, and the manifest; the caller has the lock.

    Parameters
    ----------
    into_one : bool
        As of ``Index.compact``.

    Raises
    ------
    IndexFileError
        A file is damaged, the disk is full or another system error; the index is unchanged.
    """
    before = snapshot.manifest
    runs = _whole_run(snapshot, options) if into_one else list(_runs(snapshot))
    after, n_rewritten = before, 0
    if any(is_rewritten for is_rewritten, _ in runs):
        after, n_rewritten = rewrite(snapshot, runs, options)
    n_rows = {False: 0, True: 0}
    for is_after, manifest in ((False, before), (True, after)):
        n_rows[is_after] = sum(entry.n_items for entry in manifest.segments)
    return after, CompactReport(
        n_segments_before=len(before.segments),
        n_segments_after=len(after.segments),
        n_rows_dropped=n_rows[False] - n_rows[True],
        n_rows_rewritten=n_rewritten,
        n_bytes_before=sum(entry.n_bytes for entry in before.files()),
        n_bytes_after=sum(entry.n_bytes for entry in after.files()),
        kept_aside=tuple(kept_aside(snapshot.folder)),
    )


def rewrite(
    snapshot: Snapshot, runs: Sequence[tuple[bool, list[LiveRows]]], options: WritingOptions
) -> tuple[Manifest, int]:
    """Write each run that says so as one segment; returns the manifest and the rows copied.

    Parameters
    ----------
    runs : sequence of (bool, list of LiveRows)
        All segments in order; True: write anew together, False: keep as they are.
    """
    before = snapshot.manifest
    revision, n_rewritten = before.revision, 0
    segments: list[SegmentEntry] = []
    n_new = sum(is_rewritten for is_rewritten, _ in runs)
    names = [name for i in range(n_new) for name in segment_file_names(before.revision + 1 + i)]
    with all_or_nothing(snapshot.folder, names):
        for is_rewritten, parts in runs:
            if not is_rewritten:
                segments += [part.entry for part in parts]
                continue
            revision += 1
            source = merged(parts, before.embedding_size)
            if source.shape[0]:
                entry = write_segment(snapshot.folder, revision, source, options)
                _check_copied(snapshot.folder, entry, parts)
                segments.append(entry)
                n_rewritten += source.shape[0]
        after = before.changed(revision=revision, segments=tuple(segments))
        write_manifest(snapshot.folder, after)
    return after, n_rewritten


def _check_copied(folder: Path, entry: SegmentEntry, parts: Sequence[LiveRows]) -> None:
    """Refuse to go on with copies of damaged rows: they would get checksums of their own."""
    assert entry.columns is not None
    layout = columns_layout(entry.n_items)
    copied = map_arrays(folder / entry.columns.file, layout)
    first_row = 0
    for part in parts:
        rows = slice(first_row, first_row + part.n_kept)
        first_row = rows.stop
        if part.segment.has_checks:
            is_right = all(
                np.array_equal(copied[name][rows], part.segment.array(name)[part.is_kept])
                for name in CHECKS
            )
        else:
            files = (part.entry.arrays, part.entry.items)
            is_right = not any(problem for file in files for problem in file_problems(folder, file))
        if not is_right:
            raise IndexFileError(
                f"{part.entry.arrays.file} or {part.entry.items.file} is damaged; run "
                "`ildsdk index repair` first"
            )


def _live_rows(snapshot: Snapshot) -> list[LiveRows]:
    """All segments, with the rows that were not removed."""
    live = snapshot.live
    return [
        LiveRows(entry, segment, live[first_row : first_row + segment.n_items])
        for entry, (first_row, segment) in zip(
            snapshot.manifest.segments, snapshot.placed(), strict=True
        )
    ]


def _whole_run(snapshot: Snapshot, options: WritingOptions) -> list[tuple[bool, list[LiveRows]]]:
    """All segments as one run, written anew where that changes anything."""
    from native_hash.segments import MIN_ROWS_FOR_CODES

    parts = _live_rows(snapshot)
    lacks_codes = options.engine == "numba" and any(
        part.entry.codes is None and part.entry.n_items >= MIN_ROWS_FOR_CODES for part in parts
    )
    gains = len(parts) > 1 or lacks_codes or any(_must_rewrite(part.entry) for part in parts)
    return [(gains, parts)]


def _runs(snapshot: Snapshot) -> Iterator[tuple[bool, list[LiveRows]]]:
    """Neighboring segments that gain by being written anew, and those that do not."""
    placed = _live_rows(snapshot)
    for is_candidate, run in itertools.groupby(placed, key=lambda one: _is_candidate(one.entry)):
        parts = list(run)
        gains = len(parts) > 1 or any(_must_rewrite(part.entry) for part in parts)
        yield is_candidate and gains, parts


def _must_rewrite(entry: SegmentEntry) -> bool:
    return entry.n_removed > 0 or entry.columns is None


def _is_candidate(entry: SegmentEntry) -> bool:
    return _must_rewrite(entry) or entry.n_items < SMALL_SEGMENT_ROWS
