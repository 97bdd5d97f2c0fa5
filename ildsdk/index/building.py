"""Making a whole new index from what is in memory or comes in parts."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ildsdk.index.database import Index
from ildsdk.index.drafting import draft_beside
from ildsdk.index.items import ItemRecord
from ildsdk.index.iterating import ItemBatch

# Added at a time: bounds the memory that waits to be written.
_PART_ROWS = 65_536
_PART_BYTES = 128 * 2**20


def build_from_arrays(
    path: str | os.PathLike[str],
    embeddings: npt.NDArray[np.float32],
    records: Sequence[ItemRecord],
    *,
    name: str,
    bundle_hash: str,
    is_synthetic: bool,
    thumbnails: Sequence[bytes] | None = None,
    patient_hashes: Sequence[str | None] | None = None,
    no_match_threshold: float | None = None,
    threshold_how: str = "not calibrated: built from arrays",
    n_tables: int = 1,
    n_bits: int = 3,
    seed: int = 0,
    hyperplanes: npt.NDArray[np.float32] | None = None,
    salt: bytes | None = None,
) -> Index:
    """Build a new index from embeddings you have already; all of it or nothing.

    Nothing is copied whole: ``embeddings`` may be a memory map.

    Parameters
    ----------
    path : path-like
        Folder of the new index; must not exist.
    embeddings : ndarray
        float32 ``(n, d)``, unit norm within 1e-3, n may be 0.
    records : sequence of ItemRecord
        One per embedding, ``patient_key`` None.
    name : str
        Name of the index in answers.
    bundle_hash : str
        ``Bundle.bundle_hash`` of the model that made the embeddings: the index answers only
        together with it.
    is_synthetic : bool
        The items are phantoms, not patients; every answer will say so.
    thumbnails : sequence of bytes, optional
        One encoded picture per embedding, 1 MiB at most, ``b""`` for none. Without any, reports
        show "no thumbnail in the index".
    patient_hashes : sequence of str or None, optional
        Hash of each item's PatientID. Without it only the case and the study keep a patient's own
        items out of an answer.
    no_match_threshold, threshold_how, n_tables, n_bits, seed, hyperplanes, salt
        As in ``Index.create``.

    Returns
    -------
    Index
        The new index, open.

    Raises
    ------
    TypeError, ValueError
        Arguments do not fit together, or an embedding is not of unit norm.
    ConfigError
        ``path`` exists already, or cannot be written.
    InputError
        An item stands twice, or a case has two labels.
    IndexFileError
        The disk is full, or another system error.
    """
    if not isinstance(embeddings, np.ndarray) or embeddings.dtype != np.float32:
        raise TypeError("embeddings are no float32 ndarray")
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings have shape {embeddings.shape}, expected (n, d)")
    n = len(embeddings)
    for what, values in (
        ("records", records), ("thumbnails", thumbnails), ("patient hashes", patient_hashes),
    ):  # fmt: skip
        if values is not None and len(values) != n:
            raise ValueError(f"{n} embeddings and {len(values)} {what}: expected as many of each")
    out = Path(path)
    with (
        draft_beside(out) as draft,
        Index.create(
            draft,
            name=name,
            bundle_hash=bundle_hash,
            embedding_size=embeddings.shape[1],
            is_synthetic=is_synthetic,
            no_match_threshold=no_match_threshold,
            threshold_how=threshold_how,
            n_tables=n_tables,
            n_bits=n_bits,
            seed=seed,
            hyperplanes=hyperplanes,
            salt=salt,
        ) as index,
    ):
        if n:
            index.add(
                embeddings,
                records,
                itertools.repeat(b"", n) if thumbnails is None else thumbnails,
                patient_hashes=patient_hashes,
            )
    return Index.open(out)


def add_batches(
    index: Index,
    batches: Iterable[ItemBatch],
    *,
    with_patient_keys: bool,
    explain_sha256: str | None = None,
) -> None:
    """Add items that come in batches to an empty index, as one segment.

    They are written in parts of bounded size, and joined at the end where there are several.

    Parameters
    ----------
    with_patient_keys : bool
        Store the items' patient keys, which must be salted with this index's own salt; else drop
        them.
    explain_sha256 : str, optional
        SHA-256 of the graph that made the items' activation maps; without it they are dropped.

    Raises
    ------
    InputError
        An item stands twice, or a case has two labels.
    IndexFileError
        The disk is full, or another system error.
    """
    n_parts = 0
    for group, more_follow in _grouped(batches):
        n_parts += 1
        items = [item for batch in group for item in batch.items]
        index.add(
            np.concatenate([batch.embeddings for batch in group]),
            [dataclasses.replace(item, patient_key=None) for item in items],
            [thumbnail for batch in group for thumbnail in batch.thumbnails],
            patient_keys=[item.patient_key for item in items] if with_patient_keys else None,
            maps=None
            if explain_sha256 is None
            else [codes for batch in group for codes in batch.maps or [None] * len(batch.items)],
            explain_sha256=explain_sha256,
            added_on=[day for batch in group for day in batch.added_on],
            with_codes=n_parts == 1 and not more_follow,
        )
    if n_parts > 1:
        index.compact(into_one=True)


def _grouped(batches: Iterable[ItemBatch]) -> Iterator[tuple[list[ItemBatch], bool]]:
    """Batches by parts, and whether another part follows."""
    group: list[ItemBatch] = []
    n_rows = n_bytes = 0
    iterator = iter(batches)
    batch = next(iterator, None)
    while batch is not None:
        group.append(batch)
        n_rows += len(batch.items)
        n_bytes += batch.embeddings.nbytes + sum(map(len, batch.thumbnails))
        n_bytes += sum(codes.codes.nbytes for codes in batch.maps or () if codes is not None)
        batch = next(iterator, None)
        if batch is None or n_rows >= _PART_ROWS or n_bytes >= _PART_BYTES:
            yield group, batch is not None
            group, n_rows, n_bytes = [], 0, 0
