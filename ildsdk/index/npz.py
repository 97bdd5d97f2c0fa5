"""Exchange files in numpy's npz: no library beside numpy, no pickle, sizes checked first."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import math
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ConfigError, InputError
from ildsdk.index.exchange_columns import (
    OPTIONAL_TEXTS,
    REQUIRED_TEXTS,
    checked_batch,
)
from ildsdk.index.exchange_facts import MAX_HYPERPLANE_VALUES, ExchangeFacts, facts_from_json
from ildsdk.index.items import ItemRecord
from ildsdk.index.iterating import CHUNK_ROWS, ItemBatch

MAX_NPZ_BYTES = 4 * 2**30
_OPTIONAL = (*OPTIONAL_TEXTS, "frame", "position_mm")
_TEXTS = REQUIRED_TEXTS + OPTIONAL_TEXTS
_ONE_DIMENSIONAL = {
    **dict.fromkeys(_TEXTS, "U"),
    "frame": "<i8",
    "position_mm": "<f8",
    "added_on": "<M8[D]",
    **{f"{name}_given": "|b1" for name in _OPTIONAL},
}
_KINDS = {
    **_ONE_DIMENSIONAL,
    "facts": "U",
    "hyperplanes": "<f4",
    "embeddings": "<f4",
    "thumbnail_bytes": "|u1",
    "thumbnail_offsets": "<i8",
}
_Arrays = dict[str, npt.NDArray[Any]]


def write_npz(path: Path, facts: ExchangeFacts, batches: Iterable[ItemBatch]) -> None:
    """Write an exchange file; the whole of it is put together in memory.

    Raises
    ------
    ConfigError
        It would be larger than 4 GiB, or a text ends with a NUL, which npz cannot hold.
    """
    n, d = facts.n_items, facts.embedding_size
    planes = np.frombuffer(facts.hyperplane_bytes(MAX_HYPERPLANE_VALUES), "<f4")
    n_fixed = 4 * n * d + planes.nbytes
    _check_size(n_fixed)
    embeddings = np.empty((n, d), np.float32)
    items: list[ItemRecord] = []
    pictures: list[bytes] = []
    days: list[datetime.date | None] = []
    n_picture_bytes = 0
    for batch in batches:
        embeddings[len(items) : len(items) + len(batch.items)] = batch.embeddings
        items += batch.items
        pictures += batch.thumbnails
        days += batch.added_on
        n_picture_bytes += sum(map(len, batch.thumbnails))
        _check_size(n_fixed + n_picture_bytes)
    texts = {name: [getattr(item, name) or "" for item in items] for name in _TEXTS}
    widest = {
        name: max((len(text) for text in values), default=0) for name, values in texts.items()
    }
    _check_size(n_fixed + n_picture_bytes + 4 * n * sum(widest.values()))
    arrays: _Arrays = {
        "facts": np.array(facts.to_json()),
        "hyperplanes": planes.reshape(facts.n_tables, facts.n_bits, d),
        "embeddings": embeddings,
        "thumbnail_bytes": np.frombuffer(b"".join(pictures), np.uint8),
        "thumbnail_offsets": np.cumsum([0, *map(len, pictures)], dtype=np.int64),
        "added_on": np.array(days, "datetime64[D]"),
        "frame": np.array([item.frame or 0 for item in items], np.int64),
        "position_mm": np.array([item.position_mm or 0 for item in items], np.float64),
    }
    for name in _TEXTS:
        if any(text.endswith("\0") for text in texts[name]):
            raise ConfigError(f"a {name} ends with a NUL, which npz cannot hold; use .parquet")
        arrays[name] = np.array(texts[name], f"<U{max(1, widest[name])}")
    for name in _OPTIONAL:
        given = [getattr(item, name) is not None for item in items]
        arrays[f"{name}_given"] = np.array(given, np.bool_)
    with zipfile.ZipFile(path, "x") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            # Texts are mostly zero bytes; floats and pictures do not shrink.
            entry.compress_type = zipfile.ZIP_DEFLATED if name in _TEXTS else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


@contextlib.contextmanager
def read_npz(path: Path) -> Iterator[tuple[ExchangeFacts, Iterator[ItemBatch]]]:
    """Read an exchange file: its facts, and its checked items a part at a time.

    Raises
    ------
    InputError
        No npz file, damaged, above 4 GiB, or other arrays than an export writes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _checked_arrays(archive)
    except (
        zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, UnicodeError,
    ) as error:  # fmt: skip
        raise InputError("it is damaged, unreadable, or no npz file") from error
    if arrays["facts"].shape != ():
        raise InputError(f"facts have shape {arrays['facts'].shape[:4]}, expected ()")
    planes = arrays.get("hyperplanes")
    facts = facts_from_json(arrays["facts"].item(), None if planes is None else planes.tobytes())
    _check_shapes(arrays, facts)
    yield facts, _batches(arrays, facts)


def _checked_arrays(archive: zipfile.ZipFile) -> _Arrays:
    entries = {entry.filename: entry for entry in archive.infolist()}
    kinds = dict(_KINDS)
    if "hyperplanes.npy" not in entries:  # of version 1, or the facts will tell
        del kinds["hyperplanes"]
    expected = {f"{name}.npy" for name in kinds}
    if set(entries) != expected or len(archive.infolist()) != len(expected):
        odd = ", ".join(name[:40] for name in sorted(set(entries) ^ expected)[:5])
        raise InputError(f"it has missing, unknown or doubled arrays: {odd or 'doubled'}")
    n_bytes = sum(entry.file_size for entry in entries.values())
    if n_bytes > MAX_NPZ_BYTES:
        raise InputError(f"its arrays need {n_bytes} bytes, expected at most {MAX_NPZ_BYTES}")
    arrays: _Arrays = {}
    for name, kind in kinds.items():
        entry = entries[f"{name}.npy"]
        with archive.open(entry) as file:
            shape, dtype = _header(file, name)
            is_kind = dtype.kind == "U" if kind == "U" else dtype == np.dtype(kind)
            if not is_kind or dtype.byteorder == ">" or dtype.itemsize == 0:
                raise InputError(f"{name} has dtype {dtype.str[:20]}, expected {kind}")
            # Checked before the array is made: a header may promise what the file does not hold.
            n_expected = math.prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or n_expected != entry.file_size - file.tell():
                raise InputError(f"{name} has shape {shape[:4]}, which is not what the file holds")
            content = file.read()
        if kind == "U" and (np.frombuffer(content, np.uint32) > sys.maxunicode).any():
            raise InputError(f"{name} holds a value that is no character")
        arrays[name] = np.frombuffer(content, dtype).reshape(shape)
    return arrays


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if is_fortran and len(shape) > 1:
            raise ValueError("column order")
    except (ValueError, TypeError, SyntaxError, EOFError, tokenize.TokenError) as error:
        raise InputError(f"{name} has no plain header of an array") from error
    return shape, dtype


def _check_shapes(arrays: _Arrays, facts: ExchangeFacts) -> None:
    n = facts.n_items
    pictures, offsets = arrays["thumbnail_bytes"], arrays["thumbnail_offsets"]
    expected = {
        **dict.fromkeys(_ONE_DIMENSIONAL, (n,)),
        "embeddings": (n, facts.embedding_size),
        **_shape_of_hyperplanes(facts),
        "thumbnail_bytes": (pictures.size,),
        "thumbnail_offsets": (n + 1,),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise InputError(f"{name} has shape {arrays[name].shape[:4]}, expected {shape}")
    if offsets[0] != 0 or offsets[-1] != pictures.size or (np.diff(offsets) < 0).any():
        raise InputError(f"thumbnail_offsets do not rise from 0 to {pictures.size}")


def _shape_of_hyperplanes(facts: ExchangeFacts) -> dict[str, tuple[int, ...]]:
    return {} if facts.hyperplanes is None else {"hyperplanes": facts.hyperplanes.shape}


def _batches(arrays: _Arrays, facts: ExchangeFacts) -> Iterator[ItemBatch]:
    pictures, offsets = arrays["thumbnail_bytes"], arrays["thumbnail_offsets"]
    for start in range(0, facts.n_items, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, facts.n_items)
        columns = {name: arrays[name][start:stop].tolist() for name in _ONE_DIMENSIONAL}
        for name in _OPTIONAL:
            given = arrays[f"{name}_given"][start:stop].tolist()
            columns[name] = [
                v if is_given else None for v, is_given in zip(columns[name], given, strict=True)
            ]
        bounds = offsets[start : stop + 1].tolist()
        columns["thumbnail"] = [pictures[a:b].tobytes() for a, b in itertools.pairwise(bounds)]
        yield checked_batch(
            columns,
            arrays["embeddings"][start:stop],
            first_row=start,
            with_patient_keys=facts.salt is not None,
        )


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_NPZ_BYTES:
        raise ConfigError(f"npz would need more than {MAX_NPZ_BYTES} bytes; export to .parquet")
