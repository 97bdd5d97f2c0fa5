"""Threads of every library in this process, set before numpy and torch are imported.

Imported first by ``conftest.py``, and by nothing that is timed. ILDSDK_BENCH_THREADS gives another
budget than 2, for ours and for the rivals alike.
"""

from __future__ import annotations

import os

N_THREADS = int(os.environ.get("ILDSDK_BENCH_THREADS", "2"))

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

for _name in _VARIABLES:
    os.environ[_name] = str(N_THREADS)


def users_environment(*, is_pinned: bool) -> dict[str, str]:
    """Environment of a fresh process as a user starts it.

    Sources are compiled to bytecode once and not at each start, as pip leaves them: this process
    may have been told otherwise (``PYTHONDONTWRITEBYTECODE``).

    Parameters
    ----------
    is_pinned : bool
        With this module's variables, for a rival that is told its threads by them. Our command line
        has an option for that, and sets variables that the user has not set.
    """
    left_out = {"PYTHONDONTWRITEBYTECODE", *(() if is_pinned else _VARIABLES)}
    return {name: value for name, value in os.environ.items() if name not in left_out}
