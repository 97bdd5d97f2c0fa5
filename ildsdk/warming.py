"""Compiles every kernel, or loads it from the cache, so that the first query need not."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ildsdk.dicom.pixels import rescaled
from ildsdk.kernel_loading import run_slice_kernels

Kept = Literal["package", "user", "nowhere"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """What a warm-up did.

    Attributes
    ----------
    n_loaded, n_compiled : int
        Versions of kernels (one for each combination of argument types) that came out of the
        cache, and that were compiled.
    seconds : float
        How long it took, imports included.
    kept : {"package", "user", "nowhere"}
        Where compiled code lies: beside the source of the package, in the user's cache folder
        (or the one that ``NUMBA_CACHE_DIR`` names), or in no folder, at least for some
        kernel: then each process compiles it anew.
    cold : str or None
        A kernel that would have to be compiled, where that was not allowed.
    """

    n_loaded: int
    n_compiled: int
    seconds: float
    kept: Kept
    cold: str | None


def warm_up(*, may_compile: bool = True) -> WarmUp:
    """Run every kernel of mask, radiomics and search on small inputs.

    Parameters
    ----------
    may_compile : bool
        False: stop at the first kernel that is not in the cache, and write nothing.
    """
    started = time.perf_counter()
    cold = None
    with contextlib.nullcontext() if may_compile else _no_compilation():
        try:
            _run_kernels()
        except _ColdKernelError as error:
            cold = error.kernel
    stats = [kernel.stats for kernel in loaded_kernels()]
    return WarmUp(
        n_loaded=sum(sum(one.cache_hits.values()) for one in stats),
        n_compiled=sum(sum(one.cache_misses.values()) for one in stats) - (cold is not None),
        seconds=time.perf_counter() - started,
        kept=_kept(),
        cold=cold,
    )


def loaded_kernels() -> list[Any]:
    """Jitted functions of the modules loaded so far."""
    return [
        value
        for name, module in sorted(sys.modules.items())
        if name.split(".")[0] in ("ildsdk", "native_hash")
        for value in list(vars(module).values())
        if hasattr(value, "py_func") and value.py_func.__module__ == name
    ]


def _run_kernels() -> None:
    import native_hash

    native_hash.warmup()
    for dtype in (np.float32, np.int16, np.float64):  # of pixels from arrays and image files
        run_slice_kernels(256, dtype)
    stored = np.zeros((8, 8), np.int64)  # of DICOM with 32 bits a pixel
    rescaled(stored, stored, 1.0, 0.0, None)


class _ColdKernelError(Exception):
    def __init__(self, kernel: str) -> None:
        super().__init__(kernel)
        self.kernel = kernel


@contextlib.contextmanager
def _no_compilation() -> Iterator[None]:
    """Any compilation raises; loading from the cache does not."""
    from numba.core import event

    class Refusal(event.Listener):
        def on_start(self, event: Any) -> None:
            raise _ColdKernelError(event.data["dispatcher"].py_func.__name__)

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Refusal()):
        yield


def _kept() -> Kept:
    import native_hash

    if not native_hash.kernel_cache_is_used():
        return "nowhere"
    is_beside = all(
        Path(kernel.stats.cache_path)
        == Path(kernel.py_func.__code__.co_filename).parent / "__pycache__"
        for kernel in loaded_kernels()
    )
    return "package" if is_beside else "user"
