"""Choice of implementation: compiled kernels or numpy."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Engine = Literal["numba", "numpy"]


@functools.cache
def implementation(engine: Engine) -> ModuleType:
    """Module with the functions of ``reference.py`` for an engine name.

    Raises
    ------
    ValueError
        The name is unknown.
    """
    if engine == "numba":
        from native_hash import kernels

        return kernels
    if engine == "numpy":
        from native_hash import numpy_engine

        return numpy_engine
    raise ValueError(f"engine is {engine!r}, expected one of {', '.join(get_args(Engine))}")


def checked(array: object, dtype: npt.DTypeLike, n_dimensions: int, name: str) -> npt.NDArray[Any]:
    """Read-only view of an input array, refused unless kernels may read it.

    Read-only and writable arrays are different types to numba: handing in read-only views
    only keeps one compiled version of each kernel.

    Raises
    ------
    TypeError
        Not an ndarray, or of another dtype.
    ValueError
        Of another number of dimensions, or not C-contiguous.
    """
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name} is {found}, expected an ndarray of {np.dtype(dtype)}")
    if array.ndim != n_dimensions:
        raise ValueError(f"{name} has shape {array.shape}, expected {n_dimensions} dimensions")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} is not C-contiguous")
    view = array.view(np.ndarray)
    view.setflags(write=False)
    return view


def warmup() -> None:
    """Compile every kernel, or load it from the cache, so that the first search is fast."""
    from native_hash.codes import Codes, build_codes, codes_with_tree
    from native_hash.neighbors import NeighborHeap, checked_rows
    from native_hash.probing import Tables
    from native_hash.signatures import signatures
    from native_hash.sketch import Sketch, SketchSetting
    from native_hash.sketch_building import build_sketch

    generator = np.random.default_rng(0)
    rows = checked_rows(generator.standard_normal((64, 8), dtype=np.float32))
    vectors = rows.values
    bits = signatures(vectors, vectors[np.newaxis, :2].copy())
    tables = Tables.build(bits, vectors[np.newaxis, :2].copy())
    codes = Codes.from_arrays(rows, build_codes(rows))
    sketch = Sketch.from_arrays(rows, build_sketch(rows, codes=codes))
    heap = NeighborHeap(vectors, 1)
    heap.offer(rows, codes=codes)
    heap.offer(rows, codes=Codes.from_arrays(rows, codes_with_tree(rows, 7, generator)))
    heap.offer(rows)
    heap.offer_candidates(0, rows, tables.candidates(vectors[0], 2))
    heap.offer_sketch(sketch, SketchSetting(breadth=1.0, depth=1.0, measured_recall=1.0))
    heap.result()


def kernel_cache_is_used() -> bool:
    """Whether compiled kernels are kept on disk (False: each process compiles them anew)."""
    from native_hash import kernels
    from native_hash.jit import cache_is_used

    return kernels is not None and cache_is_used()
