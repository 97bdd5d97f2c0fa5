"""Says which environment a benchmark needs, in one line, where its packages are absent."""

from __future__ import annotations

import importlib.util


def need(*modules: str, made_by: str = "make .venv/.bench") -> None:
    """End with one line that names what makes the environment.

    Parameters
    ----------
    modules : str
        Top-level modules the benchmark imports beyond what ``make demo`` installs.
    made_by : str
        The command that installs them.

    Raises
    ------
    SystemExit
        One of them cannot be found.
    """
    missing = [name for name in modules if not _is_there(name)]
    if missing:
        raise SystemExit(
            f"this benchmark needs {', '.join(missing)}, which the environment of `make demo` does "
            f"not hold: run `{made_by}`, then .venv/bin/python -m benchmarks..."
        )


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
