"""Removing items: a new bitmap per segment they are in; the segments stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ildsdk.errors import InputError
from ildsdk.index.by_case import rows_with
from ildsdk.index.manifest import Manifest, file_name
from ildsdk.index.removals import removed_bytes
from ildsdk.index.snapshot import Snapshot
from ildsdk.index.writing import all_or_nothing, write_bytes, write_manifest


def rows_to_remove(
    snapshot: Snapshot, item_ids: Iterable[str], case_ids: Iterable[str]
) -> npt.NDArray[np.bool_]:
    """Mask ``(n,)`` of the rows of items and cases.

    Raises
    ------
    InputError
        An item or a case is not in the index.
    """
    items, cases = set(item_ids), set(case_ids)
    mask = np.zeros(snapshot.n_items, np.bool_)
    for first_row, segment in snapshot.placed():
        mask[np.array(segment.store.rows_of(items), np.int64) + first_row] = True
    mask &= snapshot.live
    n_unknown = len(items) - int(mask.sum())
    if n_unknown:
        raise InputError(
            f"{n_unknown} of {len(items)} items are not in the index (for example "
            f"{_first_unknown(snapshot, items)!r}); nothing was removed"
        )
    of_cases = rows_with(snapshot, "case_id", cases)
    names, numbers = snapshot.column("case_id") if cases else ([], np.empty(0, np.int32))
    unknown = cases - {names[i] for i in np.unique(numbers[of_cases])} if cases else set()
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(cases)} cases are not in the index (for example "
            f"{min(unknown)!r}); nothing was removed"
        )
    return mask | of_cases


def _first_unknown(snapshot: Snapshot, items: set[str]) -> str:
    return min(
        item
        for item in items
        if not any(
            snapshot.live[first_row + row]
            for first_row, segment in snapshot.placed()
            for row in segment.store.rows_of([item])
        )
    )


def write_removals(snapshot: Snapshot, mask: npt.NDArray[np.bool_]) -> Manifest:
    """Write what else is removed, and the manifest; the caller has the lock.

    Raises
    ------
    IndexFileError
        The disk is full or another system error; the index is unchanged.
    """
    manifest = snapshot.manifest
    changed = [
        (place, first_row, segment.n_items)
        for place, (first_row, segment) in enumerate(snapshot.placed())
        if mask[first_row : first_row + segment.n_items].any()
    ]
    first_number = manifest.revision + 1
    names = [file_name("removed", first_number + i) for i in range(len(changed))]
    removed = mask if snapshot.removed is None else mask | snapshot.removed
    segments = list(manifest.segments)
    with all_or_nothing(snapshot.folder, names):
        for name, (place, first_row, n_items) in zip(names, changed, strict=True):
            part = removed[first_row : first_row + n_items]
            entry = write_bytes(snapshot.folder / name, removed_bytes(part))
            segments[place] = dataclasses.replace(
                segments[place], removed=entry, n_removed=int(part.sum())
            )
        after = manifest.changed(
            revision=manifest.revision + len(changed), segments=tuple(segments)
        )
        write_manifest(snapshot.folder, after)
    return after
