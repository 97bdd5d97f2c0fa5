"""Reading every byte of an index and comparing it with what it should be."""

from __future__ import annotations

import dataclasses
import itertools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ildsdk.errors import IndexFileError
from ildsdk.index.coding import codes_problems
from ildsdk.index.columns import FIELDS, column_of, item_check
from ildsdk.index.file_checks import file_problems
from ildsdk.index.kept_aside import kept_aside
from ildsdk.index.manifest import (
    COPY_NAME,
    MANIFEST_NAME,
    Manifest,
    SegmentEntry,
    read_manifest,
)
from ildsdk.index.segment import Segment
from ildsdk.index.segment_writing import blocks_of, checks_of, is_unit, norms_of
from ildsdk.index.snapshot import Snapshot
from ildsdk.index.writing import leftovers

if TYPE_CHECKING:
    from native_hash import Engine


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a full check found.

    Attributes
    ----------
    problems : tuple of str
        Empty for an intact index. Names files of the index, never paths.
    leftovers : tuple of str
        Files a killed writer left behind; harmless, the next writer deletes them.
    kept_aside : tuple of str
        Folders in the index with damaged files of what a repair dropped; the user's to delete.
    n_files, n_items : int
        Files the index consists of, and items in it (0 where the manifest could not be read).
    """

    problems: tuple[str, ...]
    leftovers: tuple[str, ...]
    n_files: int
    n_items: int
    kept_aside: tuple[str, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_index(path: str | os.PathLike[str], *, engine: Engine = "numba") -> VerifyReport:
    """Check everything: a flipped bit in any file the manifest names, or in it, is found.

    Works on indexes too damaged to open. Never raises for damage: it is in the report. With
    ``engine="numpy"`` codes are compared with their SHA-256 only, not with the embeddings.
    """
    folder = Path(path)
    while True:
        try:
            manifest = read_manifest(folder)
        except IndexFileError as error:
            return VerifyReport(problems=(str(error),), leftovers=(), n_files=0, n_items=0)
        problems = _problems(folder, manifest, engine)
        if not problems or not _is_superseded(folder, manifest):
            break
    has_copy = (folder / COPY_NAME).exists()
    return VerifyReport(
        problems=tuple(problems),
        leftovers=tuple(leftovers(folder, manifest)),
        n_files=1 + has_copy + len(manifest.files()),
        n_items=manifest.n_live,
        kept_aside=tuple(kept_aside(folder)),
    )


def _is_superseded(folder: Path, manifest: Manifest) -> bool:
    """Whether a writer replaced the state, and perhaps its files, while it was looked at."""
    try:
        return read_manifest(folder).revision != manifest.revision
    except IndexFileError:
        return False


def _problems(folder: Path, manifest: Manifest, engine: Engine) -> list[str]:
    problems = [*manifest_problems(folder, manifest)]
    for entry in manifest.files():
        problems += file_problems(folder, entry)
    if not problems:  # what the bytes mean, once they are known to be the ones written
        problems += _content_problems(folder, manifest, engine)
    return problems


def manifest_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What is wrong with the manifest, which could be read, and with its copy.

    A copy may be one change ahead (a writer was killed just before the manifest), or behind (an
    older ildsdk was); the next writer renews it.
    """
    if (folder / MANIFEST_NAME).read_bytes() != manifest.to_bytes():
        yield f"{MANIFEST_NAME} is not byte for byte as ildsdk writes it"
    if not (folder / COPY_NAME).exists():  # of version 1, or its first writer was killed
        return
    try:
        copy = read_manifest(folder, COPY_NAME)
    except IndexFileError as error:
        yield str(error)
        return
    is_right = copy == manifest or copy.revision != manifest.revision
    if copy.to_bytes() != (folder / COPY_NAME).read_bytes() or not is_right:
        yield f"{COPY_NAME} is not the manifest's copy"


def _content_problems(folder: Path, manifest: Manifest, engine: Engine) -> list[str]:
    problems: list[str] = []
    item_ids: set[str] = set()
    try:
        snapshot = Snapshot(folder, manifest)
        live = snapshot.live
        for (first_row, segment), entry in zip(snapshot.placed(), manifest.segments, strict=True):
            try:
                problems += _segment_problems(snapshot, entry, segment, engine)
                if not problems:
                    ids = segment.store.column("item_id")
                    item_ids.update(
                        itertools.compress(ids, live[first_row : first_row + segment.n_items])
                    )
            finally:
                segment.close()
    except IndexFileError as error:
        return [*problems, str(error)]
    if not problems and len(item_ids) != manifest.n_live:
        problems.append(
            f"the index has {len(item_ids)} distinct item ids for {manifest.n_live} items"
        )
    return problems


def _segment_problems(
    snapshot: Snapshot, entry: SegmentEntry, segment: Segment, engine: Engine
) -> Iterator[str]:
    yield from _array_problems(snapshot, entry, segment, engine)
    for problem in segment.store.integrity_problems():
        yield f"{entry.items.file}: {problem}"
    if segment.store.n_items_and_thumbnails() != (segment.n_items, segment.n_items):
        yield (
            f"{entry.items.file}: items or thumbnails are not the {segment.n_items} the manifest "
            "expects"
        )
        return
    if entry.columns is not None:
        yield from _column_problems(entry.columns.file, segment)
    else:
        for _ in segment.store.iter_values():
            pass  # raises where a value has a wrong type
    if segment.maps is not None:
        yield from segment.maps.problems()
    codes = segment.codes()
    if codes is not None and entry.codes is not None and engine == "numba":
        for problem in codes_problems(segment.array("embeddings"), codes):
            yield f"{entry.codes.file}: {problem}"


def _array_problems(
    snapshot: Snapshot, entry: SegmentEntry, segment: Segment, engine: Engine
) -> Iterator[str]:
    from native_hash import signatures

    embeddings, stored = segment.array("embeddings"), segment.array("signatures")
    max_norm, n_bad, n_different, first_row = 0.0, 0, 0, 0
    for block in blocks_of(embeddings):
        norms = norms_of(block)
        max_norm = max(max_norm, float(norms.max(initial=0.0)))
        n_bad += int(np.count_nonzero(~is_unit(norms)))
        if not np.isfinite(block).all():
            yield f"{entry.arrays.file}: an embedding is not finite"
            return
        rows = slice(first_row, first_row + len(block))
        expected = signatures(block, snapshot.hyperplanes, engine=engine)
        n_different += int(np.count_nonzero((stored[rows] != expected).any(axis=1)))
        first_row = rows.stop
    if n_bad:
        yield f"{entry.arrays.file}: {n_bad} embeddings are not of unit norm"
    if entry.max_norm is not None and max_norm > entry.max_norm:
        yield f"{entry.arrays.file}: an embedding is longer than the manifest says"
    if n_different:
        yield f"{entry.arrays.file}: {n_different} signatures are not those of their embeddings"


def _column_problems(name: str, segment: Segment) -> Iterator[str]:
    for field in FIELDS:
        stored, expected = segment.column(field), column_of(segment.store.column(field))
        if stored.names.all() != expected.names.all() or not np.array_equal(
            stored.numbers, expected.numbers
        ):
            yield f"{name}: {field} is not that of the items"
    found = checks_of(segment.array("embeddings"))
    if not np.array_equal(found, segment.array("embedding_checks")):
        yield f"{name}: embedding_checks are not those of the embeddings"
    items = (item_check(values) for _, values in segment.store.iter_values())
    if not np.array_equal(np.fromiter(items, np.uint32), segment.array("item_checks")):
        yield f"{name}: item_checks are not those of the items"
    pictures = (zlib.crc32(picture) for _, picture in segment.store.iter_thumbnails())
    if not np.array_equal(np.fromiter(pictures, np.uint32), segment.array("thumbnail_checks")):
        yield f"{name}: thumbnail_checks are not those of the thumbnails"
