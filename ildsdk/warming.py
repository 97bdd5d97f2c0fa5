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
import numpy.typing as npt

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
    """Run every kernel of mask, radiomics, model input and search on small inputs.

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
    from ildsdk.lung import segment_lung
    from ildsdk.model_input import model_input
    from ildsdk.radiomics import RadiomicsExtractor
    from ildsdk.settings import MethodSettings

    native_hash.warmup()
    pixels_hu, pixel_spacing_mm = _chest()
    extractor = RadiomicsExtractor()
    for dtype in (np.float32, np.int16, np.float64):  # of pixels from arrays and image files
        typed_hu = pixels_hu.astype(dtype)
        lung = segment_lung(typed_hu, pixel_spacing_mm)
        extractor.extract(typed_hu, lung.lung_mask, pixel_spacing_mm)
    float_hu = pixels_hu.astype(np.float32)
    model_input(float_hu, pixel_spacing_mm, lung.lung_mask, MethodSettings(input_size=64))


def _chest() -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """A body with two lungs and ribs, in HU, so plain that only a kernel takes it for one."""
    spacing_mm = 1.4
    y, x = np.mgrid[-128:128, -128:128] * spacing_mm
    pixels_hu = np.full(y.shape, -1000.0)
    pixels_hu[(x / 165) ** 2 + (y / 115) ** 2 < 1] = 40
    cage = (x / 150) ** 2 + (y / 100) ** 2
    pixels_hu[(cage < 1) & (cage > 0.9) & (np.sin(12 * np.arctan2(y, x)) > 0)] = 500
    for middle_mm in (-75, 75):
        pixels_hu[((x - middle_mm) / 55) ** 2 + (y / 78) ** 2 < 1] = -850
    texture = np.random.default_rng(0).normal(0, 30, y.shape)
    return pixels_hu + texture, (spacing_mm, spacing_mm)


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
