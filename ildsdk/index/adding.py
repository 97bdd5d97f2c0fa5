"""Turning new slices into one more segment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ildsdk.errors import InputError
from ildsdk.index.arrays import array_bytes
from ildsdk.index.item_store import MAX_THUMBNAIL_BYTES, write_items
from ildsdk.index.items import ItemRecord, patient_key
from ildsdk.index.manifest import Manifest, SegmentEntry
from ildsdk.index.searching import check_unit_norm
from ildsdk.index.snapshot import Snapshot
from ildsdk.index.writing import TEMPORARY, all_or_nothing, publish, write_bytes, write_manifest

if TYPE_CHECKING:
    from native_hash import Engine


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewItems:
    """Slices to add, checked against each other.

    Raises
    ------
    TypeError, ValueError
        Wrong types, dtypes, shapes or lengths, an embedding that is not of unit norm, or a
        thumbnail above 1 MiB.
    InputError
        An item id stands twice, or a case has two labels.
    """

    embeddings: npt.NDArray[np.float32]
    items: Sequence[ItemRecord]
    thumbnails: Sequence[bytes]
    patient_hashes: Sequence[str | None] | None

    def __post_init__(self) -> None:
        embeddings = self.embeddings
        if not isinstance(embeddings, np.ndarray) or embeddings.dtype != np.float32:
            raise TypeError("embeddings are no float32 ndarray")
        if embeddings.ndim != 2 or len(embeddings) == 0:
            raise ValueError(f"embeddings have shape {embeddings.shape}, expected (n >= 1, d)")
        n = len(embeddings)
        n_hashes = n if self.patient_hashes is None else len(self.patient_hashes)
        if not len(self.items) == len(self.thumbnails) == n_hashes == n:
            raise ValueError(
                f"{n} embeddings, {len(self.items)} items, {len(self.thumbnails)} thumbnails, "
                f"{n_hashes} patient hashes: expected the same number of each"
            )
        check_unit_norm(embeddings, "embedding")
        for item in self.items:
            _check_item(item)
        for thumbnail in self.thumbnails:
            if not isinstance(thumbnail, bytes):
                raise TypeError(f"a thumbnail is {type(thumbnail).__name__}, expected bytes")
            if len(thumbnail) > MAX_THUMBNAIL_BYTES:
                raise ValueError(
                    f"a thumbnail has {len(thumbnail)} bytes, expected at most "
                    f"{MAX_THUMBNAIL_BYTES}"
                )
        n_twice = n - len({item.item_id for item in self.items})
        if n_twice:
            raise InputError(
                f"{n_twice} of {n} slices to add are in the list twice (same SOPInstanceUID and "
                "frame): list each study once; nothing was added"
            )
        _check_one_label_per_case(self.items, {})


def add_segment(snapshot: Snapshot, new: NewItems, engine: Engine) -> Manifest:
    """Write one more segment and the manifest that holds it; the caller has the lock.

    Raises
    ------
    ValueError
        Embeddings of another size than the index's.
    InputError
        Some slices are in the index already, or a case would get a second label.
    IndexFileError
        The disk is full or another system error; the index is unchanged.
    """
    manifest = snapshot.manifest
    n, d = new.embeddings.shape
    if d != manifest.embedding_size:
        raise ValueError(f"embeddings have {d} values, the index {manifest.embedding_size}")
    n_known = sum(s.store.known(item.item_id for item in new.items) for s in snapshot.segments)
    if n_known:
        raise InputError(
            f"{n_known} of {n} slices to add are in the index already (same SOPInstanceUID and "
            "frame); nothing was added"
        )
    for segment in snapshot.segments:
        _check_one_label_per_case(new.items, segment.store.labels_of_cases())
    from native_hash import signatures

    embeddings = np.ascontiguousarray(new.embeddings)
    content = array_bytes(
        {
            "embeddings": embeddings,
            "signatures": signatures(embeddings, snapshot.hyperplanes, engine=engine),
        }
    )
    revision = manifest.revision + 1
    arrays_name, items_name = f"arrays-{revision:06d}.safetensors", f"items-{revision:06d}.sqlite"
    with all_or_nothing(snapshot.folder, [arrays_name, items_name]):
        arrays = write_bytes(snapshot.folder / arrays_name, content)
        temporary = snapshot.folder / (items_name + TEMPORARY)
        write_items(temporary, _keyed(new, manifest.salt), new.thumbnails)
        segment_entry = SegmentEntry(n_items=n, arrays=arrays, items=publish(temporary))
        after = dataclasses.replace(
            manifest, revision=revision, segments=(*manifest.segments, segment_entry)
        )
        write_manifest(snapshot.folder, after)
    return after


def _keyed(new: NewItems, salt: bytes) -> list[ItemRecord]:
    hashes = new.patient_hashes or [None] * len(new.items)
    return [
        dataclasses.replace(item, patient_key=patient_key(salt, value) if value else None)
        for item, value in zip(new.items, hashes, strict=True)
    ]


def _check_item(item: ItemRecord) -> None:
    if not isinstance(item, ItemRecord):
        raise TypeError(f"an item is {type(item).__name__}, expected ItemRecord")
    if not (item.item_id and item.case_id and item.label):
        raise ValueError("an item has an empty item_id, case_id or label")
    if item.patient_key is not None:
        raise ValueError("patient_key is set by the index: hand in patient_hashes instead")
    if item.frame is not None and type(item.frame) is not int:
        raise TypeError(f"frame is {type(item.frame).__name__}, expected int or None")
    if item.position_mm is not None and not isinstance(item.position_mm, (int, float)):
        raise TypeError(f"position_mm is {type(item.position_mm).__name__}, expected float or None")


def _check_one_label_per_case(items: Sequence[ItemRecord], known: dict[str, str]) -> None:
    labels = dict(known)
    bad = {
        item.case_id for item in items if labels.setdefault(item.case_id, item.label) != item.label
    }
    if bad:
        raise InputError(
            f"{len(bad)} cases would have two labels, expected one label per case; "
            "nothing was added"
        )
