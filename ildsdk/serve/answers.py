"""An answer's JSON back into records, for a client that shows it as a table."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from ildsdk.errors import ServerError
from ildsdk.records import NOT_IN_JSON, QUERY_SCHEMA, QueryResult


def result_from_dict(document: Mapping[str, Any]) -> QueryResult:
    """Records of an answer, equal to those it was made from (pictures and maps are in no JSON).

    Raises
    ------
    ServerError
        The document is of another version.
    """
    values = dict(document)
    schema = values.pop("schema", None)
    if schema != QUERY_SCHEMA:
        raise ServerError(
            f"the server answers with schema {str(schema)[:64]!r}, expected {QUERY_SCHEMA!r}: use "
            "the same version of ildsdk on both sides"
        )
    try:
        return typing.cast("QueryResult", _rebuilt(QueryResult, values))
    except (TypeError, KeyError, AttributeError) as error:
        raise ServerError(
            f"the server's answer does not fit this version ({type(error).__name__}): use the "
            "same version of ildsdk on both sides"
        ) from error


def _rebuilt(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _rebuilt(next(one for one in inner if one is not types.NoneType), value)
    if origin is tuple:
        return tuple(_rebuilt(inner[0], one) for one in value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return hint(
            **{
                name: _rebuilt(hints[name], one)
                for name, one in value.items()
                if name not in NOT_IN_JSON
            }
        )
    return value
