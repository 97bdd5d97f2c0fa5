"""Exchange files in Parquet, written and read a row group at a time."""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ildsdk.errors import ConfigError, InputError
from ildsdk.index.exchange_columns import (
    ITEM_COLUMNS,
    OPTIONAL_TEXTS,
    REQUIRED_TEXTS,
    checked_batch,
)
from ildsdk.index.exchange_facts import ExchangeFacts, facts_from_json
from ildsdk.index.iterating import CHUNK_ROWS, ItemBatch

FACTS_KEY = b"ildsdk.index-exchange"
HYPERPLANES_KEY = FACTS_KEY + b".hyperplanes"
# Arrow keeps the metadata twice, once more in base64, and reads at most 100 MB of them.
_MAX_HYPERPLANE_VALUES = 2**23


def write_parquet(path: Path, facts: ExchangeFacts, batches: Iterable[ItemBatch]) -> None:
    """Write an exchange file; each batch becomes a row group.

    Raises
    ------
    ConfigError
        pyarrow is not installed, or the hash tables are too large.
    """
    pa, pq = _pyarrow()
    metadata = {
        FACTS_KEY: facts.to_json().encode(),
        HYPERPLANES_KEY: base64.b64encode(facts.hyperplane_bytes(_MAX_HYPERPLANE_VALUES)),
    }
    schema = _schema(facts.embedding_size).with_metadata(metadata)
    # Pictures and floats hardly shrink: a light compression costs little time.
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer:
        for batch in batches:
            arrays = [
                pa.array([getattr(item, name) for item in batch.items], schema.field(name).type)
                for name in ITEM_COLUMNS
            ]
            arrays.append(pa.array(batch.thumbnails, pa.binary()))
            arrays.append(pa.array(batch.added_on, pa.date32()))
            arrays.append(
                pa.FixedSizeListArray.from_arrays(
                    pa.array(batch.embeddings.ravel()), facts.embedding_size
                ).cast(schema.field("embedding").type)
            )
            writer.write_batch(
                pa.RecordBatch.from_arrays(arrays, schema=schema), row_group_size=CHUNK_ROWS
            )


@contextlib.contextmanager
def read_parquet(path: Path) -> Iterator[tuple[ExchangeFacts, Iterator[ItemBatch]]]:
    """Open an exchange file: its facts, and its checked items a part at a time.

    Raises
    ------
    ConfigError
        pyarrow is not installed.
    InputError
        No Parquet file, damaged, or other columns and values than an export writes.
    """
    _, pq = _pyarrow()
    with contextlib.ExitStack() as stack:
        with _translated():
            file = stack.enter_context(pq.ParquetFile(path))
            found = file.schema_arrow
        metadata = found.metadata or {}
        facts_json = metadata.get(FACTS_KEY)
        if facts_json is None:
            raise InputError("it has no index facts: it was not written by `ildsdk index export`")
        planes = metadata.get(HYPERPLANES_KEY)
        try:
            planes = None if planes is None else base64.b64decode(planes, validate=True)
        except binascii.Error as error:
            raise InputError("its hyperplanes are not base64") from error
        facts = facts_from_json(facts_json.decode("utf-8", errors="replace"), planes)
        _check_schema(found, _schema(facts.embedding_size))
        n_rows = file.metadata.num_rows
        if n_rows != facts.n_items:
            raise InputError(f"it has {n_rows} rows, its facts say {facts.n_items}")
        yield facts, _batches(file, facts)


def _batches(file: Any, facts: ExchangeFacts) -> Iterator[ItemBatch]:
    # Group by group: Arrow would join small groups, which we made small where pictures are large.
    batches = itertools.chain.from_iterable(
        file.iter_batches(batch_size=CHUNK_ROWS, row_groups=[group])
        for group in range(file.num_row_groups)
    )
    first_row = 0
    while True:
        with _translated():
            batch = next(batches, None)
            if batch is None:
                return
            names = (*ITEM_COLUMNS, "thumbnail", "added_on")
            columns = {name: batch.column(name).to_pylist() for name in names}
            embeddings = batch.column("embedding")
            values = embeddings.flatten()
        if embeddings.null_count or values.null_count:
            raise InputError(f"from row {first_row} on, an embedding is missing or has a gap")
        yield checked_batch(
            columns,
            np.array(values, np.float32).reshape(batch.num_rows, facts.embedding_size),
            first_row=first_row,
            with_patient_keys=facts.salt is not None,
        )
        first_row += batch.num_rows


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    pa, _ = _pyarrow()
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # Arrow raises OSError for damage too, and its text may quote the path.
        raise InputError("it is damaged, unreadable, or no Parquet file") from error


def _schema(embedding_size: int) -> Any:
    pa, _ = _pyarrow()
    types: dict[str, Any] = dict.fromkeys(REQUIRED_TEXTS + OPTIONAL_TEXTS, pa.string())
    types |= {"frame": pa.int64(), "position_mm": pa.float64()}
    optional = {*OPTIONAL_TEXTS, "frame", "position_mm"}
    value = pa.field("element", pa.float32(), nullable=False)
    return pa.schema(
        [
            *(pa.field(name, types[name], nullable=name in optional) for name in ITEM_COLUMNS),
            pa.field("thumbnail", pa.binary(), nullable=False),
            pa.field("added_on", pa.date32()),
            pa.field("embedding", pa.list_(value, embedding_size), nullable=False),
        ]
    )


def _check_schema(found: Any, expected: Any) -> None:
    missing = sorted(set(expected.names) - set(found.names))
    unknown = sorted(set(found.names) - set(expected.names))
    if missing or unknown or len(found.names) != len(expected.names):
        raise InputError(
            f"it has {len(found.names)} columns, missing: {_listed(missing)}, unknown: "
            f"{_listed(unknown)}; expected exactly {', '.join(expected.names)}"
        )
    for field in expected:
        other = found.field(field.name).type
        is_same = other == field.type
        if field.name == "embedding" and hasattr(other, "list_size"):
            # The name and the null flag of the list's values may differ between writers.
            is_same = (other.list_size, other.value_type) == (
                field.type.list_size,
                field.type.value_type,
            )
        if not is_same:
            raise InputError(f"{field.name} is {str(other)[:100]}, expected {field.type}")


def _listed(names: list[str]) -> str:
    return ", ".join(name[:40] for name in names[:8]) or "none"


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed: pip install 'ildsdk[parquet]', "
            "or use .npz"
        ) from error
    return pyarrow, pyarrow.parquet
