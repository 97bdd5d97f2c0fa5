"""Protobuf text format, as much of it as a ``config.pbtxt`` needs.

Triton reads its model configurations in this format. Writing it takes no protobuf library; what
is written is parsed with Triton's own schema in the tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias


class Enum(str):
    """A value without quotes."""


Scalar: TypeAlias = str | int | bool
Message: TypeAlias = "Mapping[str, Scalar | Message | Sequence[Scalar] | Sequence[Message]]"


def to_text(message: Message, indent: int = 0) -> str:
    """Text form of a message given as field name to value.

    Parameters
    ----------
    message : mapping
        A mapping is a message, a sequence a repeated field, :class:`Enum` an enumeration value.
    indent : int
        Levels of indentation.
    """
    lines = []
    margin = "  " * indent
    for name, value in message.items():
        if isinstance(value, Mapping):
            lines.append(f"{margin}{name} {{\n{to_text(value, indent + 1)}{margin}}}\n")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if all(isinstance(entry, Mapping) for entry in value):
                lines.extend(to_text({name: entry}, indent) for entry in value)
            else:
                entries = ", ".join(_scalar(entry) for entry in value)  # type: ignore[arg-type]
                lines.append(f"{margin}{name}: [ {entries} ]\n")
        else:
            lines.append(f"{margin}{name}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: Scalar) -> str:
    if isinstance(value, Enum):
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value)  # the escapes of JSON are among those of the text format
