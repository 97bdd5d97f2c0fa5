"""Starting numba costs a process about as much CPU as a hundred searches of a small index.

So it is not started for little work (:func:`engine_for`), and not with more than it
needs (:func:`start_numba`).
"""

from __future__ import annotations

import importlib.util
import sys

from native_hash.engine import Engine

NUMPY_FIRST = 2**26
"""Multiply-adds done in numpy before the kernels of search are worth loading: 0.03 s of CPU, where
loading takes 0.03 s beside a numba that runs and 0.2 s with its start (Zen 4, warm cache)."""

_spent = [0]


def engine_for(engine: Engine, n_multiply_adds: int) -> Engine:
    """Engine for one search: numpy while its kernels are not loaded and little was asked for.

    Both give the same bits, so only time depends on it. After ``NUMPY_FIRST`` multiply-adds in
    this process, or once a kernel of search was loaded (:func:`native_hash.warmup` does), it
    is the engine asked for. Kernels of other packages do not count: where numba runs already, those
    of one search still take 0.03 s to load.

    Parameters
    ----------
    engine : {"numba", "numpy"}
        The one asked for.
    n_multiply_adds : int
        Rows times queries times dimensions.
    """
    if engine == "numpy" or "native_hash.kernels" in sys.modules:
        return engine
    _spent[0] += n_multiply_adds  # a lost update between threads only moves the start a little
    return "numba" if _spent[0] > NUMPY_FIRST else "numpy"


def start_numba() -> None:
    """Load numba's processor target, but not ``scipy.linalg`` with it.

    Numba imports that whole package only to learn whether it is there (0.2 to 0.3 s of CPU);
    here it is looked up, and imported when somebody's jitted linear algebra asks for it.
    Leans on parts of numba that are not its public interface: where they are gone, numba
    starts as it always does, at the first kernel.
    """
    if "numba.np.arraymath" in sys.modules:
        return
    try:
        from numba.core.compiler_lock import global_compiler_lock
        from numba.core.registry import cpu_target
        from numba.np import linalg

        ensure_blas = linalg.ensure_blas
    except (ImportError, AttributeError):
        return
    with global_compiler_lock:  # nobody compiles linear algebra meanwhile
        linalg.ensure_blas = _find_scipy
        try:
            cpu_target.target_context.refresh()
        finally:
            linalg.ensure_blas = ensure_blas
            arraymath = sys.modules.get("numba.np.arraymath")
            if arraymath is not None:
                arraymath.ensure_blas = ensure_blas  # type: ignore[attr-defined]


def _find_scipy() -> None:
    if importlib.util.find_spec("scipy") is None:
        raise ImportError("scipy is not installed")
