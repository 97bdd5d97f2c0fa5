"""Hyperplane hashing and cosine search on arrays: arrays in, arrays out.

Knows numpy and numba only. ``reference.py`` is the definition in plain numpy, ``kernels.py``
its fast twin; ``engine="numpy" | "numba"`` chooses between them and both give the same
bits. Importing this package does not load numba: the first use of the engine does. Other names load
when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from native_hash.engine import Engine, kernel_cache_is_used, warmup
from native_hash.signatures import MAX_BITS, draw_hyperplanes, signatures

if TYPE_CHECKING:
    from native_hash.buckets import Buckets, bucket_table
    from native_hash.codes import Codes, build_codes
    from native_hash.neighbors import CheckedRows, NeighborHeap, checked_rows, top_n, unit_rows
    from native_hash.probing import Tables, probe_order
    from native_hash.segments import SegmentCodes, segment_codes, segment_codes_problems
    from native_hash.sketch import Sketch, SketchSetting
    from native_hash.sketch_building import build_sketch
    from native_hash.tree import Tree, TreeSetting

__all__ = [
    "MAX_BITS",
    "Buckets",
    "CheckedRows",
    "Codes",
    "Engine",
    "NeighborHeap",
    "SegmentCodes",
    "Sketch",
    "SketchSetting",
    "Tables",
    "Tree",
    "TreeSetting",
    "bucket_table",
    "build_codes",
    "build_sketch",
    "checked_rows",
    "draw_hyperplanes",
    "kernel_cache_is_used",
    "probe_order",
    "segment_codes",
    "segment_codes_problems",
    "signatures",
    "top_n",
    "unit_rows",
    "warmup",
]

_HOMES = {
    "buckets": ("Buckets", "bucket_table"),
    "codes": ("Codes", "build_codes"),
    "neighbors": ("CheckedRows", "NeighborHeap", "checked_rows", "top_n", "unit_rows"),
    "probing": ("Tables", "probe_order"),
    "segments": ("SegmentCodes", "segment_codes", "segment_codes_problems"),
    "sketch": ("Sketch", "SketchSetting"),
    "sketch_building": ("build_sketch",),
    "tree": ("Tree", "TreeSetting"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'native_hash' has no attribute {name!r}")
    return getattr(importlib.import_module(f"native_hash.{home}"), name)
