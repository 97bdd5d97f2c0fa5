"""What the server writes to its log; never a path, a name or the text of a foreign exception."""

from __future__ import annotations

import logging
import traceback

LOGGER = logging.getLogger("ildsdk.serve")


def unexpected(error: BaseException) -> str:
    """Name a defect without the text of its exception, which may quote the input."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""  # never raised
    return f"unexpected {type(error).__name__}{where}"


class NoForeignText(logging.Filter):
    """Lets errors of the HTTP library through without their traceback and exception text."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace what an exception says by where it happened."""
        if record.exc_info and record.exc_info[1] is not None:
            record.msg, record.args = "%s", (unexpected(record.exc_info[1]),)
            record.exc_info = record.exc_text = None
        return True
