"""The command line as a process: ``ildsdk``, or ``python -m ildsdk``."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

# Starting makes some 300,000 objects that stay: at the usual 700 the collector would go through
# them hundreds of times, a tenth of a cold query.
_COLLECT_EVERY = 50_000


def run() -> NoReturn:
    """Run :func:`ildsdk.cli.main` and end the process, without taking the interpreter apart.

    That takes longer than answering a slice, and what it frees the system frees as well: commands
    have closed their files, threads and sockets when they return.
    """
    gc.set_threshold(_COLLECT_EVERY)
    from ildsdk.cli import main

    code = 0
    try:
        main()
    except SystemExit as stop:
        # A text would have been printed by the interpreter; the command line exits with numbers.
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a full disk; closed by a reader that went away
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    run()
