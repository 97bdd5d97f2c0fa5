"""What the server writes to its log; never a path, a name or the text of a foreign exception."""

from __future__ import annotations

import logging
import traceback

LOGGER = logging.getLogger("ildsdk.serve")


def unexpected(error: BaseException) -> str:
    """Name a defect without the text of its exception, which may quote the input."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} in {frame.name}, line {frame.lineno}"
