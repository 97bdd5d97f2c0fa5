"""Reading every byte of an index and comparing it with what it should be."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ildsdk.errors import IndexFileError
from ildsdk.index.manifest import MANIFEST_NAME, FileEntry, Manifest, read_manifest
from ildsdk.index.searching import check_unit_norm
from ildsdk.index.segment import Segment
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
    n_files, n_items : int
        Files and rows the manifest names (0 where it could not be read).
    """

    problems: tuple[str, ...]
    leftovers: tuple[str, ...]
    n_files: int
    n_items: int

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_index(path: str | os.PathLike[str], *, engine: Engine = "numba") -> VerifyReport:
    """Check everything: a flipped bit in any file the manifest names, or in it, is found.

    Works on indexes too damaged to open. Never raises for damage: it is in the report.
    """
    folder = Path(path)
    try:
        manifest = read_manifest(folder)
    except IndexFileError as error:
        return VerifyReport(problems=(str(error),), leftovers=(), n_files=0, n_items=0)
    problems: list[str] = []
    if (folder / MANIFEST_NAME).read_bytes() != manifest.to_bytes():
        problems.append(f"{MANIFEST_NAME} is not byte for byte as ildsdk writes it")
    for entry in manifest.files():
        problems += _file_problems(folder, entry)
    if not problems:  # what the bytes mean, once they are known to be the ones written
        problems += _content_problems(folder, manifest, engine)
    return VerifyReport(
        problems=tuple(problems),
        leftovers=tuple(leftovers(folder, manifest)),
        n_files=1 + len(manifest.files()),
        n_items=manifest.n_items,
    )


def _file_problems(folder: Path, entry: FileEntry) -> Iterator[str]:
    try:
        with (folder / entry.file).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            n_bytes = file.tell()
    except OSError as error:
        yield f"{entry.file} cannot be read: {error.strerror}"
        return
    if n_bytes != entry.n_bytes:
        yield f"{entry.file} has {n_bytes} bytes, expected {entry.n_bytes}"
    elif digest != entry.sha256:
        yield f"{entry.file} does not match its SHA-256"


def _content_problems(folder: Path, manifest: Manifest, engine: Engine) -> list[str]:
    problems: list[str] = []
    item_ids: set[str] = set()
    try:
        snapshot = Snapshot(folder, manifest)
        for segment in snapshot.segments:
            try:
                problems += _segment_problems(snapshot, segment, engine)
                item_ids.update(segment.store.column("item_id"))
            finally:
                segment.close()
    except IndexFileError as error:
        return [*problems, str(error)]
    if len(item_ids) != manifest.n_items:
        problems.append(
            f"the index has {len(item_ids)} distinct item ids for {manifest.n_items} rows"
        )
    return problems


def _segment_problems(snapshot: Snapshot, segment: Segment, engine: Engine) -> Iterator[str]:
    from native_hash import signatures

    arrays, items = segment.entry.arrays.file, segment.entry.items.file
    embeddings = segment.rows.values
    try:
        check_unit_norm(embeddings, "embedding")
    except ValueError as error:
        yield f"{arrays}: {error}"
    expected = signatures(embeddings, snapshot.hyperplanes, engine=engine)
    n_different = int(np.count_nonzero((segment.array("signatures") != expected).any(axis=1)))
    if n_different:
        yield f"{arrays}: {n_different} signatures are not those of their embeddings"
    for problem in segment.store.integrity_problems():
        yield f"{items}: {problem}"
    if segment.store.n_items_and_thumbnails() != (segment.n_items, segment.n_items):
        yield f"{items}: items or thumbnails are not the {segment.n_items} the manifest expects"
        return
    segment.store.items(range(segment.n_items))  # raises where a value has a wrong type
