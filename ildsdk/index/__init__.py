"""The database of diagnosed slices: on disk as docs/index-format.md says, searched in place.

Importing this package loads neither numpy nor numba; names load when first used, numba
at the first search.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ildsdk.index.building import build_from_arrays
    from ildsdk.index.compacting import CompactReport
    from ildsdk.index.database import Index
    from ildsdk.index.exchange import export_index, import_index
    from ildsdk.index.filtering import Filter
    from ildsdk.index.items import ItemRecord, make_item_id
    from ildsdk.index.iterating import iter_items
    from ildsdk.index.merging import MergeReport, merge_indexes
    from ildsdk.index.repairing import Loss, RepairReport, repair_index
    from ildsdk.index.searching import SearchResult
    from ildsdk.index.summary import IndexInfo
    from ildsdk.index.verification import VerifyReport, verify_index


_HOME_OF = {
    "CompactReport": "compacting",
    "Filter": "filtering",
    "Index": "database",
    "IndexInfo": "summary",
    "ItemRecord": "items",
    "Loss": "repairing",
    "MergeReport": "merging",
    "RepairReport": "repairing",
    "SearchResult": "searching",
    "VerifyReport": "verification",
    "build_from_arrays": "building",
    "export_index": "exchange",
    "import_index": "exchange",
    "iter_items": "iterating",
    "make_item_id": "items",
    "merge_indexes": "merging",
    "repair_index": "repairing",
    "verify_index": "verification",
}

__all__ = [
    "CompactReport",
    "Filter",
    "Index",
    "IndexInfo",
    "ItemRecord",
    "Loss",
    "MergeReport",
    "RepairReport",
    "SearchResult",
    "VerifyReport",
    "build_from_arrays",
    "export_index",
    "import_index",
    "iter_items",
    "make_item_id",
    "merge_indexes",
    "repair_index",
    "verify_index",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'ildsdk.index' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ildsdk.index.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
