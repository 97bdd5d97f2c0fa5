"""The facts of an index that travel with its items in an exchange file."""

from __future__ import annotations

import dataclasses
import json
import re

from ildsdk.errors import InputError
from ildsdk.index.manifest import MAX_EMBEDDING_SIZE, is_score

SCHEMA = "ildsdk.index-exchange/1"
_MAX_FACTS = 2**18
_MAX_HYPERPLANE_VALUES = 2**26
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
        Hash tables; they are drawn anew from the seed.
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

    def to_json(self) -> str:
        """The facts with the version of the form, as JSON."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, sort_keys=True)


def facts_from_json(text: str) -> ExchangeFacts:
    """Check the facts of a foreign file.

    Raises
    ------
    InputError
        They are not those an ildsdk export writes.
    """
    try:
        fields = json.loads(text) if len(text) <= _MAX_FACTS else None
    except (ValueError, RecursionError) as error:
        raise InputError("its index facts are not JSON") from error
    if not isinstance(fields, dict) or fields.pop("schema", None) != SCHEMA:
        raise InputError(f"its index facts have another schema, expected {SCHEMA}")
    expected = {field.name for field in dataclasses.fields(ExchangeFacts)}
    if set(fields) != expected:
        odd = ", ".join(sorted(set(fields) ^ expected)[:5])
        raise InputError(f"its index facts have missing or unknown keys: {odd[:200]}")
    for key in ("name", "created_with", "bundle_hash", "threshold_how"):
        _expect(fields, key, isinstance(fields[key], str) and len(fields[key]) <= _MAX_TEXT, "text")
    for key, low, high in (
        ("embedding_size", 1, MAX_EMBEDDING_SIZE), ("n_items", 0, 2**40),
        ("n_tables", 1, 4096), ("n_bits", 1, 64), ("seed", 0, 2**63),
    ):  # fmt: skip
        is_right = type(fields[key]) is int and low <= fields[key] <= high
        _expect(fields, key, is_right, f"a whole number from {low} to {high}")
    _expect(fields, "is_synthetic", type(fields["is_synthetic"]) is bool, "true or false")
    threshold, salt = fields["no_match_threshold"], fields["salt"]
    _expect(fields, "no_match_threshold", threshold is None or is_score(threshold), "-1 to 1")
    is_salt = salt is None or (isinstance(salt, str) and _SALT.fullmatch(salt) is not None)
    _expect(fields, "salt", is_salt, "64 hexadecimal digits or null")
    if fields["n_tables"] * fields["n_bits"] * fields["embedding_size"] > _MAX_HYPERPLANE_VALUES:
        raise InputError(f"its hash tables need more than {_MAX_HYPERPLANE_VALUES} values")
    return ExchangeFacts(**fields)


def _expect(fields: dict[str, object], key: str, is_right: bool, expected: str) -> None:
    if not is_right:
        raise InputError(f"its index facts have a {key} that is not {expected}")
