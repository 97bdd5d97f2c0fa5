"""Writing one new segment: arrays, codes, items and columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ildsdk.index.array_writing import Blocks, write_arrays
from ildsdk.index.arrays import Layout, map_arrays
from ildsdk.index.coding import segment_codes
from ildsdk.index.columns import CHECKS, columns_layout, embedding_checks
from ildsdk.index.item_writing import Values, WrittenItems, write_items
from ildsdk.index.manifest import FileEntry, MapsFormat, SegmentEntry, file_name
from ildsdk.index.maps import MapSource, write_maps
from ildsdk.index.segment import NORM_TOLERANCE
from ildsdk.index.writing import TEMPORARY, publish

if TYPE_CHECKING:
    from native_hash import Engine

BLOCK_ROWS = 16_384  # bounds the memory of a block


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSource:
    """Rows of a segment to be written; nothing of it is needed in memory as a whole.

    Attributes
    ----------
    shape : tuple of int
        ``(n, d)``.
    embeddings : callable
        Gives the float32 embeddings in blocks of rows, from the first, each time it is called.
    items, thumbnails : iterable
        n each; gone through once.
    maps : MapSource or None
        Activation maps of those rows that have one.
    matrix : ndarray or None
        All embeddings, C-contiguous float32 ``(n, d)``, where the caller has them as one: codes are
        made of it then, and the file just written need not be mapped beside it.
    """

    shape: tuple[int, int]
    embeddings: Callable[[], Iterable[npt.NDArray[np.float32]]]
    items: Iterable[Values]
    thumbnails: Iterable[bytes]
    maps: MapSource | None = None
    matrix: npt.NDArray[np.float32] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WritingOptions:
    """How to compute what a segment holds beside its rows.

    Attributes
    ----------
    hyperplanes : ndarray
        float32 ``(n_tables, n_bits, d)``.
    n_threads : int
        More than one: items are written beside the vectors, and codes are built with so many.
        The files do not depend on it.
    maps : MapsFormat or None
        Of the source's activation maps; none are written without.
    with_codes : bool
        Whether codes are made.
    """

    hyperplanes: npt.NDArray[np.float32]
    engine: Engine
    n_threads: int
    maps: MapsFormat | None = None
    with_codes: bool = True


def write_segment(
    folder: Path, number: int, source: SegmentSource, options: WritingOptions
) -> SegmentEntry:
    """Write the files of a new segment; the caller has the lock and deletes them on failure.

    Raises
    ------
    TypeError, ValueError, InputError
        The rows are not fit for an index (see ``Index.add``).
    OSError, sqlite3.Error
        The disk is full, or another system error.
    """
    pass_over = _EmbeddingPass(source)
    items_path = folder / (file_name("items", number) + TEMPORARY)

    def written_items() -> tuple[WrittenItems, FileEntry]:
        written = write_items(items_path, source.shape[0], source.items, source.thumbnails)
        return written, publish(items_path)

    # Items keep the interpreter busy, vectors the arithmetic: side by side they take half as long.
    with ThreadPoolExecutor(max_workers=1) as beside:
        going_on = beside.submit(written_items) if options.n_threads > 1 else None
        arrays = _write_arrays(folder, number, pass_over, options)
        codes = write_codes(folder, number, arrays, source.shape, options, source.matrix)
        written, items = going_on.result() if going_on is not None else written_items()
    return SegmentEntry(
        n_items=source.shape[0],
        arrays=arrays,
        items=items,
        columns=write_columns(folder, number, pass_over.checks(), written),
        codes=codes,
        maps=_write_maps(folder, number, source, options),
        max_norm=pass_over.max_norm,
    )


class _EmbeddingPass:
    """Goes through the embeddings once, checking them and their norms."""

    def __init__(self, source: SegmentSource) -> None:
        self.source = source
        self.max_norm = 0.0
        self._checks: list[npt.NDArray[np.uint32]] = []

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        n_bad = 0
        for block in self.source.embeddings():
            norms = norms_of(block)
            n_bad += int(np.count_nonzero(~is_unit(norms)))
            self.max_norm = max(self.max_norm, float(norms.max(initial=0.0)))
            self._checks.append(embedding_checks(block))
            yield block
        if n_bad:
            raise ValueError(
                f"{n_bad} of {self.source.shape[0]} embedding vectors are not of unit norm within "
                f"{NORM_TOLERANCE}"
            )

    def checks(self) -> npt.NDArray[np.uint32]:
        return np.concatenate(self._checks)


def norms_of(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Euclidean norm of each row of ``(n, d)``, summed in float64."""
    norms: npt.NDArray[np.float64] = np.sqrt(
        np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    )
    return norms


def is_unit(norms: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which norms are 1 within 1e-3; False for NaN."""
    return np.abs(norms - 1) <= NORM_TOLERANCE


def checks_of(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """CRC-32 of each row of a matrix too large to copy."""
    return np.concatenate([embedding_checks(block) for block in blocks_of(embeddings)])


def blocks_of(rows: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    """A matrix in C-contiguous blocks of rows."""
    for start in range(0, len(rows), BLOCK_ROWS):
        yield np.ascontiguousarray(rows[start : start + BLOCK_ROWS])


def arrays_layout(shape: tuple[int, int], n_tables: int) -> Layout:
    """Arrays of a segment's vectors, and their dtypes and shapes."""
    return {"embeddings": ("F32", shape), "signatures": ("U64", (shape[0], n_tables))}


def _write_arrays(
    folder: Path, number: int, embedding_pass: _EmbeddingPass, options: WritingOptions
) -> FileEntry:
    from native_hash import signatures

    source = embedding_pass.source
    return write_arrays(
        folder / file_name("arrays", number),
        {
            "embeddings": Blocks(
                dtype=np.float32, shape=source.shape, blocks=embedding_pass.blocks()
            ),
            "signatures": Blocks(
                dtype=np.uint64,
                shape=(source.shape[0], len(options.hyperplanes)),
                blocks=(
                    signatures(block, options.hyperplanes, engine=options.engine)
                    for block in source.embeddings()
                ),
            ),
        },
    )


def _write_maps(
    folder: Path, number: int, source: SegmentSource, options: WritingOptions
) -> FileEntry | None:
    if source.maps is None or options.maps is None:
        return None
    return write_maps(
        folder / file_name("maps", number), source.maps, options.maps, source.shape[1]
    )


def write_columns(
    folder: Path,
    number: int,
    checks_of_embeddings: npt.NDArray[np.uint32],
    written: WrittenItems,
) -> FileEntry:
    """Write the columns file of a segment."""
    n = len(checks_of_embeddings)
    content = {
        name: array
        for field, column in written.columns.items()
        for name, array in column.arrays(field).items()
    }
    checks = (checks_of_embeddings, written.item_checks, written.thumbnail_checks)
    content |= dict(zip(CHECKS, checks, strict=True))
    return write_arrays(
        folder / file_name("columns", number), {name: content[name] for name in columns_layout(n)}
    )


def write_codes(
    folder: Path,
    number: int,
    arrays: FileEntry,
    shape: tuple[int, int],
    options: WritingOptions,
    matrix: npt.NDArray[np.float32] | None = None,
) -> FileEntry | None:
    """Make and write the codes of a segment whose arrays are written; None without codes.

    ``engine="numpy"`` makes none, for only compiled kernels make or use them.
    """
    if options.engine == "numpy" or not options.with_codes:
        return None
    if matrix is None:
        layout = arrays_layout(shape, len(options.hyperplanes))
        matrix = map_arrays(folder / arrays.file, layout)["embeddings"]
    codes = segment_codes(matrix, options.n_threads)
    return write_arrays(folder / file_name("codes", number), codes) if codes else None
