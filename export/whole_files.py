"""Files that are written whole or not at all, and JSON without NaN."""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from pathlib import Path
from typing import Any

from ildsdk.errors import ConfigError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill leaves the old one, the new one or none.

    Raises
    ------
    ConfigError
        The file cannot be written there.
    """
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        with draft.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(f"{path.name!r} cannot be written: {why}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON, whole or not at all; NaN and infinity become null."""
    text = json.dumps(without_nan(value), indent=1, allow_nan=False, ensure_ascii=False)
    write_whole(path, (text + "\n").encode())


def without_nan(value: Any) -> Any:
    """Plain values in which a figure that does not exist is None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
