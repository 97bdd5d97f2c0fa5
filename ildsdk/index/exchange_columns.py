"""Columns of an exchange file, and the check of what a foreign file holds in them."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import InputError
from ildsdk.index.item_store import MAX_THUMBNAIL_BYTES
from ildsdk.index.items import PATIENT_KEY, ItemRecord
from ildsdk.index.iterating import ItemBatch
from ildsdk.index.searching import check_unit_norm

REQUIRED_TEXTS = (
    "item_id", "case_id", "label", "study_instance_uid", "series_instance_uid", "sop_instance_uid",
)  # fmt: skip
OPTIONAL_TEXTS = ("site", "verification", "patient_key")
ITEM_COLUMNS = tuple(field.name for field in dataclasses.fields(ItemRecord))
_NEVER_EMPTY = ("item_id", "case_id", "label")
_MAX_TEXT = 10_000


def checked_batch(
    columns: Mapping[str, Sequence[Any]],
    embeddings: npt.NDArray[np.float32],
    *,
    first_row: int,
    with_patient_keys: bool,
) -> ItemBatch:
    """Items out of the columns of a foreign file; each column has one value per embedding.

    Parameters
    ----------
    columns : mapping
        :data:`ITEM_COLUMNS`, ``"thumbnail"`` and ``"added_on"``.
    embeddings : ndarray
        float32 ``(n, d)``.
    first_row : int
        Row of the file with which the batch begins, for messages.
    with_patient_keys : bool
        Whether the file has the salt of patient keys; keys without it are refused.

    Raises
    ------
    InputError
        A value is not what the column holds, or an embedding is not of unit norm.
    """
    for column, expected, is_right in _rules(with_patient_keys):
        for row, value in enumerate(columns[column], start=first_row):
            if not is_right(value):
                raise InputError(f"{column} of row {row} is not {expected}")
    try:
        check_unit_norm(embeddings, "embedding")
    except ValueError as error:
        raise InputError(f"from row {first_row} on, {error}") from error
    rows = zip(*(columns[name] for name in ITEM_COLUMNS), strict=True)
    items = [ItemRecord(**dict(zip(ITEM_COLUMNS, values, strict=True))) for values in rows]
    return ItemBatch(
        rows=np.arange(first_row, first_row + len(items), dtype=np.int64),
        items=items,
        embeddings=embeddings,
        thumbnails=columns["thumbnail"],
        added_on=columns["added_on"],
    )


def _rules(with_patient_keys: bool) -> Iterator[tuple[str, str, Callable[[Any], bool]]]:
    for column in REQUIRED_TEXTS:
        if column in _NEVER_EMPTY:
            yield (
                column,
                f"a text of 1 to {_MAX_TEXT} characters",
                lambda v: _is_text(v) and v != "",
            )
        else:
            yield column, f"a text of at most {_MAX_TEXT} characters", _is_text
    for column in ("site", "verification"):
        yield column, "a text or nothing", lambda v: v is None or _is_text(v)
    yield "frame", "a whole number or nothing", lambda v: v is None or type(v) is int
    yield (
        "position_mm",
        "a finite number or nothing",
        lambda v: v is None or (type(v) is float and math.isfinite(v)),
    )
    if with_patient_keys:
        yield (
            "patient_key",
            "64 hexadecimal digits or nothing",
            lambda v: v is None or (isinstance(v, str) and PATIENT_KEY.fullmatch(v) is not None),
        )
    else:
        yield "patient_key", "empty, though the file has no salt", lambda v: v is None
    yield "added_on", "a day or nothing", lambda v: v is None or type(v) is datetime.date
    yield (
        "thumbnail",
        f"a picture of at most {MAX_THUMBNAIL_BYTES} bytes",
        lambda v: isinstance(v, bytes) and len(v) <= MAX_THUMBNAIL_BYTES,
    )


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        return False
    try:
        value.encode()  # half a surrogate pair is no character: the index could not store it
    except UnicodeEncodeError:
        return False
    return True
