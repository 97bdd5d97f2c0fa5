"""The database of diagnosed slices: on disk as docs/index-format.md says, searched in place.

Importing this package loads neither numpy nor numba; names load when first used, numba
at the first search.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ildsdk.index.database import Index
    from ildsdk.index.items import ItemRecord, make_item_id
    from ildsdk.index.searching import SearchResult
    from ildsdk.index.summary import IndexInfo
    from ildsdk.index.verification import VerifyReport, verify_index

_HOME_OF = {
    "Index": "database",
    "IndexInfo": "summary",
    "ItemRecord": "items",
    "SearchResult": "searching",
    "VerifyReport": "verification",
    "make_item_id": "items",
    "verify_index": "verification",
}

__all__ = [
    "Index",
    "IndexInfo",
    "ItemRecord",
    "SearchResult",
    "VerifyReport",
    "make_item_id",
    "verify_index",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'ildsdk.index' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ildsdk.index.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
