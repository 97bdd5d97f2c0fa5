"""Walking through an index in row order, a bounded part at a time."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ildsdk.explain import LocationCodes
from ildsdk.index.items import ItemRecord

if TYPE_CHECKING:
    from ildsdk.index.database import Index

CHUNK_ROWS = 4096
CHUNK_THUMBNAIL_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ItemBatch:
    """Items that follow each other, without removed ones.

    Attributes
    ----------
    rows : ndarray
        int64 ``(n,)``, rising.
    items : sequence of ItemRecord
    embeddings : ndarray
        float32 ``(n, d)``, a copy.
    thumbnails : sequence of bytes
        Encoded pictures; ``b""`` for an item that was added without one.
    added_on : sequence of datetime.date or None
        Day (UTC) on which each item was added; None: unknown.
    maps : sequence of LocationCodes or None, or None
        Activation map of each item, None for one without; None where they were not asked for.
    """

    rows: npt.NDArray[np.int64]
    items: Sequence[ItemRecord]
    embeddings: npt.NDArray[np.float32]
    thumbnails: Sequence[bytes]
    added_on: Sequence[datetime.date | None]
    maps: Sequence[LocationCodes | None] | None = None


def iter_items(
    index: Index,
    *,
    excluded_rows: npt.NDArray[np.bool_] | None = None,
    chunk: int = CHUNK_ROWS,
) -> Iterator[tuple[int, ItemRecord, npt.NDArray[np.float32]]]:
    """Give row, item and embedding (float32 ``(d,)``) of every item, in row order, lazily.

    Removed rows are skipped. The index object must not be written through meanwhile: open a
    second one for that.

    Parameters
    ----------
    excluded_rows : ndarray, optional
        bool ``(n,)``, True for rows to leave out, for example from a ``Filter``.
    chunk : int
        Rows read at a time, at least 1.

    Raises
    ------
    ValueError
        ``chunk`` or ``excluded_rows`` does not fit, or the index was closed.
    IndexFileError
        A file of the index is damaged.
    """
    for rows in kept_rows(index, excluded_rows, chunk):
        items, embeddings = index.items(rows), index.embeddings(rows)
        yield from zip(rows.tolist(), items, embeddings, strict=True)


def iter_batches(
    index: Index, *, chunk: int = CHUNK_ROWS, with_maps: bool = False
) -> Iterator[ItemBatch]:
    """Give all that is known of every item, with thumbnails, in batches of bounded size.

    A batch has at most ``chunk`` rows, and about 64 MiB of thumbnails.

    Parameters
    ----------
    with_maps : bool
        Activation maps too.
    """
    days = index.added_on().astype(object)
    for rows in kept_rows(index, None, chunk):
        items, embeddings = index.items(rows), index.embeddings(rows)
        start, thumbnails, n_bytes = 0, [], 0
        for stop, row in enumerate(rows.tolist(), start=1):
            thumbnails.append(index.thumbnail(row))
            n_bytes += len(thumbnails[-1])
            if n_bytes >= CHUNK_THUMBNAIL_BYTES or stop == len(rows):
                part = slice(start, stop)
                yield ItemBatch(
                    rows=rows[part],
                    items=items[part],
                    embeddings=embeddings[part],
                    thumbnails=thumbnails,
                    added_on=days[rows[part]].tolist(),
                    maps=[index.location_codes(one) for one in rows[part]] if with_maps else None,
                )
                start, thumbnails, n_bytes = stop, [], 0


def kept_rows(
    index: Index, excluded_rows: npt.NDArray[np.bool_] | None, chunk: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Rows neither removed nor excluded, int64, at most ``chunk`` at a time, never an empty part.

    Raises
    ------
    ValueError
        ``chunk`` is below 1, or ``excluded_rows`` is no bool array of one entry per row.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    rows = index.rows()
    if excluded_rows is not None:
        if excluded_rows.dtype != np.bool_ or excluded_rows.shape != (index.n_rows,):
            raise ValueError(f"excluded_rows is not a bool array of {index.n_rows} rows")
        rows = rows[~excluded_rows[rows]]
    for start in range(0, len(rows), chunk):
        yield rows[start : start + chunk]
