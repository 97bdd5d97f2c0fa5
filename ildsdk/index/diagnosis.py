"""What is damaged in one segment, and which of its rows can be saved."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import IndexFileError
from ildsdk.explain import LocationCodes
from ildsdk.index.array_writing import Blocks, first_offset
from ildsdk.index.arrays import map_arrays
from ildsdk.index.coding import codes_problems
from ildsdk.index.columns import columns_layout
from ildsdk.index.file_checks import check_readable, file_problems
from ildsdk.index.item_store import ItemStore
from ildsdk.index.item_writing import Values
from ildsdk.index.manifest import KINDS, FileKind, Manifest, SegmentEntry
from ildsdk.index.maps import MapFile, MapSource, open_maps
from ildsdk.index.removals import read_removed, recovered_removed
from ildsdk.index.salvage import salvage_items
from ildsdk.index.segment_writing import arrays_layout, blocks_of, checks_of

if TYPE_CHECKING:
    from native_hash import Engine


@dataclasses.dataclass(frozen=True, slots=True)
class SavedRows:
    """Rows of a damaged segment that proved themselves.

    Attributes
    ----------
    values : ndarray
        float32 ``(n, d)`` or fewer rows, where the file ends early.
    store : ItemStore
        Holds at least the kept rows.
    is_kept : ndarray
        Mask over the segment's rows.
    saved_maps : SavedMaps
    """

    values: npt.NDArray[np.float32]
    store: ItemStore
    is_kept: npt.NDArray[np.bool_]
    saved_maps: SavedMaps

    @property
    def n_kept(self) -> int:
        """How many rows are kept."""
        return int(self.is_kept.sum())

    def embeddings(self) -> Iterator[npt.NDArray[np.float32]]:
        """Kept embeddings in blocks."""
        first_row = 0
        for block in blocks_of(self.values):
            yield np.ascontiguousarray(block[self.is_kept[first_row : first_row + len(block)]])
            first_row += len(block)

    def items(self) -> Iterator[Values]:
        """Values of kept items."""
        rows = self.store.iter_values()
        return (values for row, values in rows if self.is_kept[row])

    def thumbnails(self) -> Iterator[bytes]:
        """Kept thumbnails."""
        rows = self.store.iter_thumbnails()
        return (picture for row, picture in rows if self.is_kept[row])

    def has_map(self) -> npt.NDArray[np.bool_]:
        """Which kept rows have a map that proved itself."""
        return self.saved_maps.is_proven[self.is_kept]

    def maps(self) -> Iterator[LocationCodes]:
        """Maps of those rows."""
        return self.saved_maps.codes_of(self.is_kept)


@dataclasses.dataclass(frozen=True, slots=True)
class SavedMaps:
    """Activation maps of a segment that proved themselves.

    Attributes
    ----------
    file : MapFile or None
        None where the segment has none, or their file cannot be read as one.
    is_proven : ndarray
        Mask over the segment's rows.
    n_lost : int or None
        Maps that did not; None: all of an unknown number.
    """

    file: MapFile | None
    is_proven: npt.NDArray[np.bool_]
    n_lost: int | None

    @classmethod
    def of(cls, folder: Path, entry: SegmentEntry, manifest: Manifest) -> SavedMaps:
        """Look at each map of a segment, whose file may be damaged."""
        try:
            file = open_maps(folder, entry, manifest.maps, manifest.embedding_size)
        except IndexFileError:
            return cls(None, np.zeros(entry.n_items, np.bool_), None)
        if file is None:
            return cls(None, np.zeros(entry.n_items, np.bool_), 0)
        is_proven = file.proven()
        return cls(file, is_proven, max(0, file.n_checks - int(is_proven.sum())))

    def codes_of(self, is_kept: npt.NDArray[np.bool_]) -> Iterator[LocationCodes]:
        """Proven maps of some rows."""
        if self.file is not None:
            for row in np.flatnonzero(self.is_proven & is_kept).tolist():
                codes = self.file.codes_of(row)
                assert codes is not None
                yield codes

    def source(self) -> MapSource:
        """All proven maps, to be written anew."""
        return MapSource(
            has_map=self.is_proven, codes=lambda: self.codes_of(np.ones_like(self.is_proven))
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What to do with a segment.

    Attributes
    ----------
    problems : dict of FileKind to str
        By kind of file, what is wrong with it.
    saved : SavedRows or None
        Rows to write anew; None where arrays and items are intact, or nothing was saved.
    is_lost : bool
        Nothing was saved.
    """

    entry: SegmentEntry
    problems: Mapping[FileKind, str]
    saved: SavedRows | None = None
    is_lost: bool = False

    @property
    def n_lost(self) -> int:
        """Items (not counting removed rows) that are lost."""
        if self.is_lost:
            return self.entry.n_live
        return self.entry.n_live - self.saved.n_kept if self.saved is not None else 0


def diagnose(
    folder: Path, entry: SegmentEntry, manifest: Manifest, scratch: Path, engine: Engine
) -> Diagnosis:
    """Look at all files of a segment.

    Parameters
    ----------
    scratch : Path
        Folder for items salvaged from a damaged file.
    engine : {"numba", "numpy"}
        ``"numpy"``: of codes only the SHA-256 is checked.

    Raises
    ------
    IndexFileError
        The system refuses to read a file, which is no damage.
    """
    for file in entry.files():
        check_readable(folder, file)
    problems: dict[FileKind, str] = {
        kind: problem
        for kind in KINDS
        if (file := getattr(entry, kind)) is not None
        for problem in file_problems(folder, file)
    }
    shape = (entry.n_items, manifest.embedding_size)
    layout = arrays_layout(shape, manifest.hashing.n_tables)
    # The two bitmaps may have been changed alike: only what gives the SHA-256 is believed.
    if "removed" in problems:
        removed = recovered_removed(folder, entry)
        if removed is None:
            return Diagnosis(entry=entry, problems=problems, is_lost=True)
    else:
        removed = read_removed(folder, entry)
    if not {"arrays", "items"} & problems.keys():
        if entry.codes is not None and "codes" not in problems and engine == "numba":
            embeddings = map_arrays(folder / entry.arrays.file, layout)["embeddings"]
            wrong = codes_problems(embeddings, map_arrays(folder / entry.codes.file))
            if wrong:
                problems["codes"] = f"{entry.codes.file}: {wrong[0]}"
        return Diagnosis(entry=entry, problems=problems)
    checks = _checks(folder, entry)
    if checks is None:
        return Diagnosis(entry=entry, problems=problems, is_lost=True)
    values, is_kept = _proven_embeddings(
        folder / entry.arrays.file, shape, manifest.hashing.n_tables, checks["embedding_checks"]
    )
    if removed is not None:
        is_kept &= ~removed
    items_path = folder / entry.items.file
    if "items" in problems:
        if not items_path.exists():
            return Diagnosis(entry=entry, problems=problems, is_lost=True)
        salvaged = scratch / entry.items.file
        is_kept &= salvage_items(
            items_path, salvaged, checks["item_checks"], checks["thumbnail_checks"]
        )
        items_path = salvaged
    if not is_kept.any():
        return Diagnosis(entry=entry, problems=problems, is_lost=True)
    return Diagnosis(
        entry=entry,
        problems=problems,
        saved=SavedRows(
            values, ItemStore(items_path), is_kept, SavedMaps.of(folder, entry, manifest)
        ),
    )


def _checks(folder: Path, entry: SegmentEntry) -> Mapping[str, npt.NDArray[Any]] | None:
    """Checks of a segment's rows; None where there are none, or their file is no such file."""
    if entry.columns is None:
        return None
    try:
        return map_arrays(folder / entry.columns.file, columns_layout(entry.n_items))
    except IndexFileError:
        return None


def _proven_embeddings(
    path: Path, shape: tuple[int, int], n_tables: int, checks: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Embeddings as far as the file goes, whatever its header says, and which fit their check."""
    n, d = shape
    is_proven = np.zeros(n, np.bool_)
    start = first_offset(
        {
            "embeddings": Blocks(dtype=np.float32, shape=shape, blocks=()),
            "signatures": Blocks(dtype=np.uint64, shape=(n, n_tables), blocks=()),
        }
    )
    n_bytes = path.stat().st_size if path.exists() else 0
    n_there = min(n, max(0, n_bytes - start) // (4 * d))
    if n_there == 0:
        return np.empty((0, d), np.float32), is_proven
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    values = np.frombuffer(data, "<f4", n_there * d, start).reshape(n_there, d)
    is_proven[:n_there] = checks_of(values) == checks[:n_there]
    return values, is_proven
