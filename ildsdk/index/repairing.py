"""Putting a damaged index right: derived data anew, damaged rows dropped, all else kept."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.index.array_writing import array_bytes
from ildsdk.index.arrays import map_arrays
from ildsdk.index.compacting import merged
from ildsdk.index.diagnosis import Diagnosis, SavedMaps, diagnose
from ildsdk.index.file_checks import file_problems
from ildsdk.index.item_store import ItemStore
from ildsdk.index.item_writing import learned
from ildsdk.index.kept_aside import keeping, unused_name
from ildsdk.index.locking import writer_lock
from ildsdk.index.manifest import (
    COPY_NAME,
    MANIFEST_NAME,
    DamagedManifestError,
    FileEntry,
    Manifest,
    SegmentEntry,
    file_name,
    read_manifest,
)
from ildsdk.index.maps import write_maps
from ildsdk.index.removals import recovered_removed, removed_bytes
from ildsdk.index.segment_writing import (
    WritingOptions,
    arrays_layout,
    checks_of,
    write_codes,
    write_columns,
    write_segment,
)
from ildsdk.index.verification import manifest_problems
from ildsdk.index.writing import (
    SCRATCH_NAME,
    all_or_nothing,
    leftovers,
    segment_file_names,
    tidy,
    write_bytes,
    write_manifest,
)

if TYPE_CHECKING:
    from native_hash import Engine


_NUMBER = re.compile(r"-([0-9]{6,12})\.", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What of one segment could not be saved.

    Attributes
    ----------
    reason : str
        Which file is damaged, and what of it is lost.
    n_items : int
        Items lost; 0 where only their activation maps are.
    """

    reason: str
    n_items: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a repair found and did; nothing was changed where it is empty.

    Attributes
    ----------
    repaired : tuple of str
        What was put right without loss. Names files of the index, never paths.
    losses : tuple of Loss
        What had to be dropped.
    n_items : int
        Items in the index now.
    kept_aside : str or None
        Folder in the index with the damaged files of what was dropped; delete it once it is not
        wanted any more.
    """

    repaired: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()
    n_items: int
    kept_aside: str | None = None

    @property
    def n_items_lost(self) -> int:
        """Items dropped."""
        return sum(loss.n_items for loss in self.losses)

    @property
    def is_changed(self) -> bool:
        """Whether there was anything to repair."""
        return bool(self.repaired or self.losses)


def repair_index(
    path: str | os.PathLike[str], *, engine: Engine = "numba", n_threads: int = 1
) -> RepairReport:
    """Repair a damaged index as a new state; drop only what is lost (docs/index-format.md).

    Raises
    ------
    IndexFileError
        Manifest and copy are both lost, the hyperplanes are lost and cannot be drawn again,
        another writer works, or the disk is full. What can be read is as it was.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise IndexFileError(f"no index found in {folder.name!r}: there is no such folder")
    with writer_lock(folder):
        with all_or_nothing(folder, []):
            manifest, repaired, losses = _repaired_manifest(folder)
            repaired += _repaired_hyperplanes(folder, manifest)
            tidy(folder, manifest)
        options = WritingOptions(
            hyperplanes=_hyperplanes(folder, manifest),
            engine=engine,
            n_threads=n_threads,
            maps=manifest.maps,
        )
        return _repair_segments(folder, manifest, options, repaired, losses)


def _repaired_manifest(folder: Path) -> tuple[Manifest, list[str], list[Loss]]:
    try:
        manifest = read_manifest(folder)
    except DamagedManifestError as error:
        try:
            manifest = read_manifest(folder, COPY_NAME)
        except DamagedManifestError:
            raise IndexFileError(
                f"{error}. Its copy {COPY_NAME} is missing or damaged too, and only they know "
                "which files belong to the index: restore one of the two from a backup"
            ) from error
        losses = _newer_kept_aside(folder, manifest)
        write_bytes(folder / MANIFEST_NAME, manifest.to_bytes())
        return manifest, [f"{MANIFEST_NAME}: restored from its copy"], losses
    problems = list(manifest_problems(folder, manifest))
    if problems:
        write_bytes(folder / MANIFEST_NAME, manifest.to_bytes())
        (folder / COPY_NAME).unlink(missing_ok=True)
    return manifest, [f"{problem}: written anew" for problem in problems], []


def _newer_kept_aside(folder: Path, manifest: Manifest) -> list[Loss]:
    """Keep files newer than the copy: they may be of a change that only the manifest knew."""
    newer = [
        name
        for name in leftovers(folder, manifest)
        if (number := _NUMBER.search(name)) and int(number[1]) > manifest.revision
    ]
    if not newer:
        return []
    aside = unused_name(folder, manifest.revision + 1)
    (folder / aside).mkdir()
    for name in newer:
        os.replace(folder / name, folder / aside / name)
    reason = (
        f"{COPY_NAME} is older than {len(newer)} files, which are kept in {aside}: additions or "
        "removals after it may be undone; remove again who was removed"
    )
    return [Loss(reason=reason, n_items=0)]


def _repaired_hyperplanes(folder: Path, manifest: Manifest) -> list[str]:
    from safetensors.numpy import save

    from native_hash import draw_hyperplanes

    hashing = manifest.hashing
    problems = list(file_problems(folder, hashing.hyperplanes))
    if not problems:
        return []
    drawn = {
        "hyperplanes": draw_hyperplanes(
            hashing.n_tables, hashing.n_bits, manifest.embedding_size, seed=hashing.seed
        )
    }
    for content in (array_bytes(drawn), save(drawn)):  # of version 2, of version 1
        if _is_content(content, hashing.hyperplanes.sha256):
            write_bytes(folder / hashing.hyperplanes.file, content)
            return [f"{problems[0]}: drawn anew from the seed, the same as before"]
    raise IndexFileError(
        f"{problems[0]}, and drawing from the seed gives others (they were handed in, or another "
        "numpy drew them): restore the file from a backup"
    )


def _is_content(content: bytes, sha256: str) -> bool:
    return hashlib.sha256(content).hexdigest() == sha256


def _hyperplanes(folder: Path, manifest: Manifest) -> npt.NDArray[np.float32]:
    hashing = manifest.hashing
    shape = (hashing.n_tables, hashing.n_bits, manifest.embedding_size)
    layout = {"hyperplanes": ("F32", shape)}
    values: npt.NDArray[np.float32] = map_arrays(folder / hashing.hyperplanes.file, layout)[
        "hyperplanes"
    ]
    return values


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Folder for salvaged items, on the index's disk: they may be many."""
    path = folder / SCRATCH_NAME
    shutil.rmtree(path, ignore_errors=True)  # of a repair that was killed
    try:
        path.mkdir()
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _repair_segments(
    folder: Path,
    manifest: Manifest,
    options: WritingOptions,
    repaired: list[str],
    losses: list[Loss],
) -> RepairReport:
    revision, segments = manifest.revision, []
    aside: list[FileEntry] = []
    names = [
        name for i in range(len(manifest.segments)) for name in segment_file_names(revision + 1 + i)
    ]
    with all_or_nothing(folder, names), _scratch(folder) as scratch:
        for entry in manifest.segments:
            found = diagnose(folder, entry, manifest, scratch, options.engine)
            after: SegmentEntry | None = entry
            if found.problems:
                revision += 1
                after = _repaired_segment(folder, revision, found, manifest, options)
            if "maps" in found.problems:
                losses.append(_lost_maps(folder, found, manifest))
            if found.n_lost:
                losses.append(Loss(reason="; ".join(found.problems.values()), n_items=found.n_lost))
                aside += entry.files()
            else:
                repaired += [
                    f"{problem}: repaired"
                    for kind, problem in found.problems.items()
                    if kind != "maps"
                ]
            segments += [after] if after is not None else []
        if revision == manifest.revision:
            return RepairReport(
                repaired=tuple(repaired), losses=tuple(losses), n_items=manifest.n_live
            )
        state = manifest.changed(revision=revision, segments=tuple(segments))
        kept_aside = unused_name(folder, revision) if aside else None
        with keeping(folder / kept_aside, aside) if kept_aside else contextlib.nullcontext():
            write_manifest(folder, state)
    return RepairReport(
        repaired=tuple(repaired), losses=tuple(losses), n_items=state.n_live, kept_aside=kept_aside
    )


def _repaired_segment(
    folder: Path, number: int, found: Diagnosis, manifest: Manifest, options: WritingOptions
) -> SegmentEntry | None:
    entry, d = found.entry, manifest.embedding_size
    if found.is_lost:
        return None
    if found.saved is not None:
        try:
            return write_segment(folder, number, merged([found.saved], d), options)
        finally:
            found.saved.store.close()
    if "removed" in found.problems:
        removed = recovered_removed(folder, entry)
        assert removed is not None  # or diagnose called the segment lost
        entry = dataclasses.replace(
            entry,
            removed=write_bytes(folder / file_name("removed", number), removed_bytes(removed)),
        )
    shape = (entry.n_items, d)
    if "columns" in found.problems:
        layout = arrays_layout(shape, manifest.hashing.n_tables)
        checks = checks_of(map_arrays(folder / entry.arrays.file, layout)["embeddings"])
        with contextlib.closing(ItemStore(folder / entry.items.file)) as store:
            items = (values for _, values in store.iter_values())
            written = learned(items, (picture for _, picture in store.iter_thumbnails()))
        entry = dataclasses.replace(entry, columns=write_columns(folder, number, checks, written))
    if "codes" in found.problems:
        codes = write_codes(folder, number, entry.arrays, shape, options)
        entry = dataclasses.replace(entry, codes=codes)
    if "maps" in found.problems and manifest.maps is not None:
        kept = SavedMaps.of(folder, entry, manifest).source()
        path = folder / file_name("maps", number)
        entry = dataclasses.replace(entry, maps=write_maps(path, kept, manifest.maps, d))
    return entry


def _lost_maps(folder: Path, found: Diagnosis, manifest: Manifest) -> Loss:
    n_lost = SavedMaps.of(folder, found.entry, manifest).n_lost
    told = {None: "all its activation maps are lost", 1: "1 activation map is lost"}.get(
        n_lost, f"{n_lost} activation maps are lost"
    )
    return Loss(reason=f"{found.problems['maps']}: {told}; their items stay", n_items=0)
