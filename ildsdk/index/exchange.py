"""Whole indexes in files that other programs read: Parquet and npz (docs/index-api.md)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ildsdk._version import __version__
from ildsdk.errors import ConfigError, InputError
from ildsdk.index.building import add_batches
from ildsdk.index.database import Index
from ildsdk.index.drafting import draft_beside
from ildsdk.index.exchange_facts import ExchangeFacts
from ildsdk.index.iterating import ItemBatch, iter_batches

_Reader = contextlib.AbstractContextManager[tuple[ExchangeFacts, Iterator[ItemBatch]]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How one kind of exchange file is written and read."""

    write: Callable[[Path, ExchangeFacts, Iterable[ItemBatch]], None]
    read: Callable[[Path], _Reader]


def export_index(
    index: Index, path: str | os.PathLike[str], *, with_patient_keys: bool = False
) -> int:
    """Write all that is in an index, without removed rows, to one ``.parquet`` or ``.npz`` file.

    :func:`import_index` makes the same index of it: items, embeddings, thumbnails and hyperplanes
    bit by bit, the same facts, the same answers in every mode. Items of unknown day count as added
    on the day of import. Activation maps are left out: an index made from the file has none.
    Parquet is streamed and takes any size; npz needs no library but numpy, is put together in
    memory, and takes 4 GiB at most.

    Parameters
    ----------
    path : path-like
        A file that does not exist; its ending says which form.
    with_patient_keys : bool
        Also write patient keys, the salt they were made with, and the days of adding, for moving
        an index. Whoever has keys and salt can test whether a PatientID he knows is in the
        index, and a day of adding may be that of an examination: keep such a file as you keep the
        index. Without them an index made from the file recognizes a query's own patient by study
        and case only.

    Returns
    -------
    int
        Items written.

    Raises
    ------
    ConfigError
        Another ending, the file exists, the extra ``parquet`` is not installed, or the index is too
        large for npz, or its hash tables for the form.
    IndexFileError
        The index is damaged, or the disk is full. No file is left behind.
    """
    out = Path(path)
    form = _form(out)
    info = index.info()
    facts = ExchangeFacts(
        name=info.name,
        created_with=__version__,
        bundle_hash=info.bundle_hash,
        embedding_size=info.embedding_size,
        is_synthetic=info.is_synthetic,
        n_items=info.n_items,
        n_tables=info.n_tables,
        n_bits=info.n_bits,
        seed=info.hyperplane_seed,
        no_match_threshold=info.no_match_threshold,
        threshold_how=info.threshold_how,
        hyperplanes=index.hyperplanes,
        salt=index.salt.hex() if with_patient_keys else None,
    )
    batches: Iterable[ItemBatch] = iter_batches(index)
    if not with_patient_keys:
        batches = map(_public, batches)
    with draft_beside(out) as draft:
        form.write(draft, facts, batches)
    return info.n_items


def import_index(
    source: str | os.PathLike[str], path: str | os.PathLike[str], *, name: str | None = None
) -> Index:
    """Make a new index from a file of :func:`export_index`; everything in it is checked.

    Parameters
    ----------
    source : path-like
        ``.parquet`` or ``.npz`` file.
    path : path-like
        Folder of the new index; must not exist.
    name : str, optional
        Another name than the one in the file.

    Returns
    -------
    Index
        The new index, open.

    Raises
    ------
    ConfigError
        ``source`` is no file or has another ending, ``path`` exists, or the extra ``parquet``
        is not installed.
    InputError
        The file is not what an export writes: other columns or types, embeddings not finite
        or not of unit norm, an item twice, two labels for a case, damage.
    IndexFileError
        The disk is full. Whatever fails, no index is left behind.
    """
    source, out = Path(source), Path(path)
    form = _form(source)
    if not source.is_file():
        raise ConfigError(f"{source.name!r} is no file")
    try:
        with (
            form.read(source) as (facts, batches),
            draft_beside(out) as draft,
            Index.create(
                draft,
                name=facts.name if name is None else name,
                bundle_hash=facts.bundle_hash,
                embedding_size=facts.embedding_size,
                is_synthetic=facts.is_synthetic,
                no_match_threshold=facts.no_match_threshold,
                threshold_how=facts.threshold_how,
                n_tables=facts.n_tables,
                n_bits=facts.n_bits,
                seed=facts.seed,
                hyperplanes=facts.hyperplanes,
                salt=None if facts.salt is None else bytes.fromhex(facts.salt),
            ) as index,
        ):
            add_batches(index, batches, with_patient_keys=facts.salt is not None)
    except InputError as error:
        raise InputError(f"{source.name!r} cannot be imported: {error}") from error
    return Index.open(out)


def _public(batch: ItemBatch) -> ItemBatch:
    bare = [dataclasses.replace(item, patient_key=None) for item in batch.items]
    return dataclasses.replace(batch, items=bare, added_on=[None] * len(bare))


def _form(path: Path) -> _Form:
    if path.suffix.lower() == ".parquet":
        from ildsdk.index.parquet import read_parquet, write_parquet

        return _Form(write=write_parquet, read=read_parquet)
    if path.suffix.lower() == ".npz":
        from ildsdk.index.npz import read_npz, write_npz

        return _Form(write=write_npz, read=read_npz)
    raise ConfigError(f"{path.name!r} has the ending {path.suffix!r}, expected .parquet or .npz")
