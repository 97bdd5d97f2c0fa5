"""The one compile policy of all kernels (house-style section 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from native_hash.cache_locator import read_baked_cache, stamp_by_content
from native_hash.lean_numba import numba
from native_hash.quick_load import load_quickly
from native_hash.starting import start_numba

SCAN_FASTMATH = frozenset({"reassoc", "contract"})
"""Lets LLVM sum a dot product in vector lanes (5 x); NaN and signed zero keep their meaning."""

CANONICAL_FASTMATH = frozenset({"contract"})
"""For sums whose order is part of the definition. A product of two float32 is exact in
float64, so fusing it with the addition changes no bit."""

ORDERED = frozenset[str]()
"""No freedom for LLVM in float operations: what they decide is the same on every CPU."""

_uncached: list[str] = []


def kernel(fastmath: frozenset[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile decorator: lazily compiled, GIL released, cached on disk where that is possible.

    numba raises at decoration when neither the package folder nor the user's cache folder
    is writable (a sealed install without a home). The kernel is then compiled anew in
    each process: slower to start, never a failure. :func:`cache_is_used` tells.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {
            "nogil": True,
            "error_model": "numpy",
            "fastmath": set(fastmath),
        }
        try:
            compiled: Callable[..., Any] = numba.njit(cache=True, **options)(function)
            is_kept = stamp_by_content(compiled)
        except (RuntimeError, OSError):
            is_kept = False
        if not is_kept:
            compiled = numba.njit(cache=False, **options)(function)
        if not (read_baked_cache(compiled) or is_kept):
            _uncached.append(function.__name__)
        if not load_quickly(compiled):
            start_numba()
        return compiled

    return decorate


def cache_is_used() -> bool:
    """Whether every kernel found a folder for its compiled code."""
    return not _uncached
