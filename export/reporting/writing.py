"""The report's files: each written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from pathlib import Path
from typing import Any

from ildsdk.errors import ConfigError


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step; an older one stays until the new one is complete.

    Raises
    ------
    ConfigError
        The file cannot be written there.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(f"{path.name!r} of the report cannot be written: {why}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def json_bytes(value: Any) -> bytes:
    """JSON without NaN or infinity: a figure that does not exist is null."""
    text = json.dumps(_without_nan(value), indent=1, ensure_ascii=True, allow_nan=False)
    return (text + "\n").encode()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def without_nan(value: dict[str, Any]) -> dict[str, Any]:
    """The same value as :func:`json_bytes` writes."""
    found: dict[str, Any] = _without_nan(value)
    return found
