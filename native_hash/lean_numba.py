"""numba, imported without two packages that it only looks at.

At import numba loads PyYAML for a file of settings that is hardly ever there, and scipy to compare
its version. Whatever needs them later gets them (docs/cold-start.md).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_SETTINGS = ".numba_config.yaml"


class _Refusal:
    """Finder of modules that lets one thread not find some."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self._names and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is left out", name=name)


@contextlib.contextmanager
def _leaving_out(*names: str) -> Iterator[None]:
    """Let imports of these fail on this thread, as if they were not installed."""
    refusal = _Refusal(names)
    sys.meta_path.insert(0, refusal)
    try:
        yield
    finally:
        sys.meta_path.remove(refusal)


# Both are optional to numba: it says so where there is a file of settings and no PyYAML.
with _leaving_out("scipy", *(() if os.path.exists(_SETTINGS) else ("yaml",))):
    import numba


__all__ = ["numba"]
