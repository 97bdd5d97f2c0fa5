"""The facts of an index that travel with its items in an exchange file."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ConfigError, InputError
from ildsdk.index.manifest import MAX_EMBEDDING_SIZE, MAX_SEED, MAX_TABLES, is_score

SCHEMAS = ("ildsdk.index-exchange/1", "ildsdk.index-exchange/2")
MAX_HYPERPLANE_VALUES = 2**26
_MAX_FACTS = 2**18
_MAX_TEXT = 10_000
_SALT = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFacts:
    """What an exchange file says about the index as a whole.

    Attributes
    ----------
    created_with : str
        ildsdk version that wrote the file.
    n_tables, n_bits, seed : int
        Hash tables, and the seed on record.
    hyperplanes : ndarray or None
        float32 ``(n_tables, n_bits, embedding_size)``, kept beside the JSON. None in files of
        version 1, which have only the seed to draw them from.
    salt : str or None
        64 hex digits; None where patient keys were left out.
    """

    name: str
    created_with: str
    bundle_hash: str
    embedding_size: int
    is_synthetic: bool
    n_items: int
    n_tables: int
    n_bits: int
    seed: int
    no_match_threshold: float | None
    threshold_how: str
    salt: str | None = dataclasses.field(repr=False)
    hyperplanes: npt.NDArray[np.float32] | None = dataclasses.field(repr=False)

    def to_json(self) -> str:
        """The facts but the hyperplanes, with the newest version of the form, as JSON."""
        fields = {name: getattr(self, name) for name in _IN_JSON}
        return json.dumps({"schema": SCHEMAS[-1], **fields}, sort_keys=True)

    def hyperplane_bytes(self, most_values: int) -> bytes:
        """The hyperplanes as little-endian float32.

        Raises
        ------
        ConfigError
            They are more than ``most_values``.
        """
        assert self.hyperplanes is not None
        if self.hyperplanes.size > most_values:
            raise ConfigError(
                f"the hash tables hold {self.hyperplanes.size} values, expected at most "
                f"{most_values} in a file of this form"
            )
        return self.hyperplanes.astype("<f4", copy=False).tobytes()


_IN_JSON = tuple(
    field.name for field in dataclasses.fields(ExchangeFacts) if field.name != "hyperplanes"
)


def facts_from_json(text: str, hyperplane_bytes: bytes | None) -> ExchangeFacts:
    """Check the facts of a foreign file.

    Parameters
    ----------
    hyperplane_bytes : bytes or None
        What the file holds as :meth:`ExchangeFacts.hyperplane_bytes`; None: nothing.

    Raises
    ------
    InputError
        They are not those an ildsdk export writes.
    """
    try:
        fields = json.loads(text) if len(text) <= _MAX_FACTS else None
    except (ValueError, RecursionError) as error:
        raise InputError("its index facts are not JSON") from error
    schema = fields.pop("schema", None) if isinstance(fields, dict) else None
    if not isinstance(fields, dict) or schema not in SCHEMAS:
        raise InputError(
            f"its index facts have another schema, expected one of {', '.join(SCHEMAS)}; a higher "
            "number was written by a newer ildsdk"
        )
    if set(fields) != set(_IN_JSON):
        odd = ", ".join(sorted(set(fields) ^ set(_IN_JSON))[:5])
        raise InputError(f"its index facts have missing or unknown keys: {odd[:200]}")
    for key in ("name", "created_with", "bundle_hash", "threshold_how"):
        _expect(fields, key, isinstance(fields[key], str) and len(fields[key]) <= _MAX_TEXT, "text")
    for key, low, high in (
        ("embedding_size", 1, MAX_EMBEDDING_SIZE), ("n_items", 0, 2**40),
        ("n_tables", 1, MAX_TABLES), ("n_bits", 1, 64), ("seed", 0, MAX_SEED),
    ):  # fmt: skip
        is_right = type(fields[key]) is int and low <= fields[key] <= high
        _expect(fields, key, is_right, f"a whole number from {low} to {high}")
    _expect(fields, "is_synthetic", type(fields["is_synthetic"]) is bool, "true or false")
    threshold, salt = fields["no_match_threshold"], fields["salt"]
    _expect(fields, "no_match_threshold", threshold is None or is_score(threshold), "-1 to 1")
    is_salt = salt is None or (isinstance(salt, str) and _SALT.fullmatch(salt) is not None)
    _expect(fields, "salt", is_salt, "64 hexadecimal digits or null")
    shape = (fields["n_tables"], fields["n_bits"], fields["embedding_size"])
    if math.prod(shape) > MAX_HYPERPLANE_VALUES:
        raise InputError(f"its hash tables need more than {MAX_HYPERPLANE_VALUES} values")
    if (hyperplane_bytes is None) != (schema == SCHEMAS[0]):
        raise InputError(f"it has hyperplanes though its schema is {SCHEMAS[0]}, or lacks them")
    return ExchangeFacts(**fields, hyperplanes=_hyperplanes(hyperplane_bytes, shape))


def _hyperplanes(
    content: bytes | None, shape: tuple[int, int, int]
) -> npt.NDArray[np.float32] | None:
    if content is None:
        return None
    if len(content) != 4 * math.prod(shape):
        raise InputError(f"its hyperplanes have {len(content)} bytes, expected float32 {shape}")
    values = np.frombuffer(content, "<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise InputError("its hyperplanes hold a value that is not finite")
    return values


def _expect(fields: dict[str, object], key: str, is_right: bool, expected: str) -> None:
    if not is_right:
        raise InputError(f"its index facts have a {key} that is not {expected}")
