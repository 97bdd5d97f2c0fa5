"""Turning new slices into one more segment."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError, InputError
from ildsdk.explain import LocationCodes
from ildsdk.index.item_store import STORED, ItemStore
from ildsdk.index.item_writing import Values, refuse_second_labels, stored_values
from ildsdk.index.items import PATIENT_KEY, ItemRecord, patient_key
from ildsdk.index.manifest import MAX_GRID, Calibration, Manifest, MapsFormat
from ildsdk.index.maps import MapSource
from ildsdk.index.segment import Segment
from ildsdk.index.segment_writing import (
    SegmentSource,
    WritingOptions,
    blocks_of,
    write_segment,
)
from ildsdk.index.snapshot import Snapshot
from ildsdk.index.writing import all_or_nothing, segment_file_names, write_manifest

_ITEM_ID = STORED.index("item_id")
_ONE_EACH = ("items", "thumbnails", "patient_hashes", "patient_keys", "maps", "added_on")
Days = datetime.date | Sequence[datetime.date | None] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewItems:
    """Slices to add; what costs a look at every row is checked while they are written.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype, shape or lengths.
    """

    embeddings: npt.NDArray[np.float32]
    items: Iterable[ItemRecord]
    thumbnails: Iterable[bytes]
    patient_hashes: Iterable[str | None] | None = None
    patient_keys: Iterable[str | None] | None = None
    maps: Sequence[LocationCodes | None] | None = None
    explain_sha256: str | None = None
    added_on: Days = None

    def __post_init__(self) -> None:
        embeddings = self.embeddings
        if not isinstance(embeddings, np.ndarray) or embeddings.dtype != np.float32:
            raise TypeError("embeddings are no float32 ndarray")
        if embeddings.ndim != 2 or len(embeddings) == 0:
            raise ValueError(f"embeddings have shape {embeddings.shape}, expected (n >= 1, d)")
        if self.patient_hashes is not None and self.patient_keys is not None:
            raise ValueError("patient_hashes and patient_keys are both given, expected one")
        if (self.maps is None) != (self.explain_sha256 is None):
            raise ValueError("maps and explain_sha256 are given together or not at all")
        for what in _ONE_EACH:
            values = getattr(self, what)
            if isinstance(values, Sized) and len(values) != len(embeddings):
                raise ValueError(
                    f"{len(embeddings)} embeddings, {len(values)} {what.replace('_', ' ')}: "
                    "expected the same number of each"
                )

    def values(self, salt: bytes) -> Iterator[Values]:
        """What to store of each item."""
        for item, key, day in zip(self.items, self._keys(salt), self._days(), strict=True):
            if not isinstance(item, ItemRecord):
                raise TypeError(f"an item is {type(item).__name__}, expected ItemRecord")
            if item.patient_key is not None:
                raise ValueError("patient_key is set by the index: hand in patient_hashes instead")
            yield stored_values(item, key, day)

    def maps_format(self) -> MapsFormat | None:
        """What the maps have in common; None where no item has one.

        Raises
        ------
        TypeError, ValueError
            A map is no int8 array, or of another grid or embedding size than the others.
        """
        given = [codes for codes in self.maps or () if codes is not None]
        if not given or self.explain_sha256 is None:
            return None
        shape = given[0].codes.shape
        if any(codes.codes.dtype != np.int8 for codes in given):
            raise TypeError("a map is no int8 ndarray")
        if len(shape) != 3 or not all(1 <= side <= MAX_GRID for side in shape[:2]):
            raise ValueError(
                f"a map has shape {shape}, expected (h, w, d), h and w 1 to {MAX_GRID}"
            )
        odd = [codes.codes.shape for codes in given if codes.codes.shape != shape]
        if odd or shape[2] != self.embeddings.shape[1]:
            raise ValueError(
                f"maps have shapes {shape} and {(odd or [shape])[0]}, embeddings "
                f"{self.embeddings.shape[1]} values: expected one shape (h, w, d)"
            )
        if not all(math.isfinite(codes.scale) and codes.scale > 0 for codes in given):
            raise ValueError("a map has a scale that is no number above 0")
        return MapsFormat(explain_sha256=self.explain_sha256, n_rows=shape[0], n_columns=shape[1])

    def map_source(self) -> MapSource | None:
        """The maps, to be written; None where no maps are given."""
        maps = self.maps
        if maps is None:
            return None
        return MapSource(
            has_map=np.array([codes is not None for codes in maps], np.bool_),
            codes=lambda: (codes for codes in maps if codes is not None),
        )

    def _days(self) -> Iterator[str]:
        given = self.added_on
        if given is None or isinstance(given, datetime.date):
            given = list(itertools.repeat(given, len(self.embeddings)))
        today = datetime.datetime.now(datetime.UTC).date()
        for day in given:
            if day is not None and type(day) is not datetime.date:
                raise TypeError(f"added_on holds a {type(day).__name__}, expected datetime.date")
            yield (day or today).isoformat()

    def _keys(self, salt: bytes) -> Iterable[str | None]:
        if self.patient_keys is not None:
            return map(_checked_key, self.patient_keys)
        if self.patient_hashes is None:
            return itertools.repeat(None, len(self.embeddings))
        key_of = functools.lru_cache(maxsize=4096)(functools.partial(patient_key, salt))
        return (key_of(value) if value else None for value in self.patient_hashes)


def _checked_key(key: str | None) -> str | None:
    if key is not None and not (isinstance(key, str) and PATIENT_KEY.fullmatch(key)):
        raise ValueError("a patient key is not 64 hexadecimal digits")
    return key


def add_segment(
    snapshot: Snapshot,
    new: NewItems,
    options: WritingOptions,
    calibrated: Callable[[Manifest], Calibration] | None,
) -> Manifest:
    """Write one more segment and the manifest that holds it; the caller has the lock.

    Parameters
    ----------
    calibrated : callable, optional
        Gives the calibration that goes with the new state, which it may open and search.

    Raises
    ------
    ValueError
        Embeddings of another size than the index's, or what :class:`NewItems` could not see.
    InputError
        Some slices are in the index already, or a case would get a second label.
    IndexFileError
        The index has maps made with another graph, the disk is full, or another system error; the
        index is unchanged.
    """
    manifest = snapshot.manifest
    n, d = new.embeddings.shape
    if d != manifest.embedding_size:
        raise ValueError(f"embeddings have {d} values, the index {manifest.embedding_size}")
    maps = new.maps_format()
    if maps is not None and manifest.maps not in (None, maps):
        raise IndexFileError(
            f"the index has activation maps made with explain.onnx {_told(manifest.maps)}, the new "
            f"ones are made with {_told(maps)}: they do not compare. Add without maps (--no-maps), "
            "or build the index anew"
        )
    number = manifest.revision + 1
    source = SegmentSource(
        shape=(n, d),
        embeddings=functools.partial(blocks_of, new.embeddings),
        items=new.values(manifest.salt),
        thumbnails=new.thumbnails,
        maps=new.map_source(),
        matrix=new.embeddings if new.embeddings.flags.c_contiguous else None,
    )
    maps = maps or manifest.maps
    options = dataclasses.replace(options, maps=maps)
    with all_or_nothing(snapshot.folder, segment_file_names(number)):
        entry = write_segment(snapshot.folder, number, source, options)
        after = manifest.changed(revision=number, segments=(*manifest.segments, entry), maps=maps)
        written = Segment(snapshot.folder, entry, manifest.hashing, d, maps)
        try:
            _compare(snapshot, written)
        finally:
            written.close()
        if calibrated is not None:
            after = dataclasses.replace(after, calibration=calibrated(after))
        write_manifest(snapshot.folder, after)
    return after


def _told(maps: MapsFormat | None) -> str:
    return "" if maps is None else f"{maps.explain_sha256[:12]} ({maps.n_rows} x {maps.n_columns})"


def _compare(snapshot: Snapshot, written: Segment) -> None:
    """Refuse a new segment that contradicts what the index holds."""
    n_known = sum(
        _n_shared(old, _removed_in(snapshot, first_row, old), written.store, written.n_items)
        for first_row, old in snapshot.placed()
    )
    if n_known:
        raise InputError(
            f"{n_known} of {written.n_items} slices to add are in the index already (same "
            "SOPInstanceUID and frame); nothing was added"
        )
    cases = written.column("case_id")
    labels = written.column("label")
    new_labels = np.empty(len(cases.names), np.int32)
    new_labels[cases.numbers] = labels.numbers
    label_of_case = dict(
        zip(cases.names, (labels.names[i] for i in new_labels.tolist()), strict=True)
    )
    refuse_second_labels(
        len(
            {
                case
                for first_row, old in snapshot.placed()
                for case, label in _live_labels(
                    old, _removed_in(snapshot, first_row, old), cases.names
                )
                if label != label_of_case[case]
            }
        )
    )


def _removed_in(
    snapshot: Snapshot, first_row: int, segment: Segment
) -> npt.NDArray[np.bool_] | None:
    removed = snapshot.removed
    return None if removed is None else removed[first_row : first_row + segment.n_items]


def _n_shared(
    old: Segment, removed: npt.NDArray[np.bool_] | None, new: ItemStore, n_new: int
) -> int:
    """How many new items are in an old segment; the shorter list is looked up in the longer."""
    if n_new <= old.n_items:
        rows = old.store.rows_of(values[_ITEM_ID] for _, values in new.iter_values())
        return len(rows) if removed is None else int((~removed[rows]).sum())
    return len(
        new.rows_of(
            values[_ITEM_ID]
            for row, values in old.store.iter_values()
            if removed is None or not removed[row]
        )
    )


def _live_labels(
    old: Segment, removed: npt.NDArray[np.bool_] | None, case_ids: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Label, in an old segment, of those cases that have a row there that was not removed."""
    cases, labels = old.column("case_id"), old.column("label")
    live = slice(None) if removed is None else ~removed
    label_of_case = np.full(len(cases.names), -1, np.int32)
    label_of_case[cases.numbers[live]] = labels.numbers[live]
    for case_id in case_ids:
        number = cases.names.find(case_id)
        if number >= 0 and label_of_case[number] >= 0:
            yield case_id, labels.names[int(label_of_case[number])]
