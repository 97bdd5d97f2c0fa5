"""JSON Schema of our records, read from their dataclasses: the one source of the answer's form."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

_PLAIN: dict[type, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
}


def record_schemas(record: type, *, left_out: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Schemas of a dataclass and of all dataclasses inside it, by class name.

    Parameters
    ----------
    left_out : tuple of str
        Fields that are not in the JSON, whatever record they stand in.
    """
    schemas: dict[str, dict[str, Any]] = {}
    waiting = [record]
    while waiting:
        current = waiting.pop()
        if current.__name__ in schemas:
            continue
        hints = typing.get_type_hints(current)
        names = [f.name for f in dataclasses.fields(current) if f.name not in left_out]
        schemas[current.__name__] = {
            "type": "object",
            "description": " ".join((current.__doc__ or "").split("\n\n")[0].split()),
            "properties": {name: type_schema(hints[name], waiting) for name in names},
            "required": names,
            "additionalProperties": False,
        }
    return schemas


def type_schema(hint: Any, waiting: list[type]) -> dict[str, Any]:
    """Schema of one annotation; dataclasses met on the way are appended to ``waiting``.

    Raises
    ------
    TypeError
        The annotation has no form in JSON.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if origin is Literal:
        return {"type": "string", "enum": list(inner)}
    if origin in (Union, types.UnionType):
        some = [type_schema(one, waiting) for one in inner if one is not types.NoneType]
        return some[0] if len(some) == len(inner) == 1 else {"anyOf": [*some, {"type": "null"}]}
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        return {"type": "array", "items": type_schema(inner[0], waiting)}
    if origin is dict and inner[0] is str:
        return {"type": "object", "additionalProperties": type_schema(inner[1], waiting)}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        waiting.append(hint)
        return {"$ref": f"#/components/schemas/{hint.__name__}"}
    raise TypeError(f"{hint!r} has no form in JSON")
