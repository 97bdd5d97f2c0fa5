"""Hyperplane hashing and cosine search on arrays: arrays in, arrays out.

Knows numpy and numba only. ``reference.py`` is the definition in plain numpy, ``kernels.py``
its fast twin; ``engine="numpy" | "numba"`` chooses between them and both give the same
bits. Importing this package does not load numba: the first use of the engine does.
"""

from __future__ import annotations

from native_hash.buckets import Buckets, bucket_table
from native_hash.engine import Engine, kernel_cache_is_used, warmup
from native_hash.neighbors import CheckedRows, NeighborHeap, checked_rows, top_n, unit_rows
from native_hash.signatures import MAX_BITS, draw_hyperplanes, signatures

__all__ = [
    "MAX_BITS",
    "Buckets",
    "CheckedRows",
    "Engine",
    "NeighborHeap",
    "bucket_table",
    "checked_rows",
    "draw_hyperplanes",
    "kernel_cache_is_used",
    "signatures",
    "top_n",
    "unit_rows",
    "warmup",
]
