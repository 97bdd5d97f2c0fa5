"""Find the most similar slices of diagnosed interstitial-lung-disease cases for a chest CT.

Importing this package is cheap: names load what they need when first used. Research
software, not a medical device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ildsdk._version import __version__

if TYPE_CHECKING:
    from ildsdk.bundle import Bundle, write_bundle
    from ildsdk.errors import (
        ConfigError,
        DecodeError,
        IldError,
        IndexFileError,
        InputError,
        ModelError,
        NoUsableSliceError,
        QueryCancelledError,
        QueryStoppedError,
        QueryTimeoutError,
        ServerBusyError,
        ServerError,
        SliceUnusableError,
    )
    from ildsdk.index import Index, ItemRecord
    from ildsdk.ingest import build_index
    from ildsdk.records import (
        EmbedResult,
        Neighbor,
        QueryResult,
        SkippedItem,
        SliceAnswer,
        StudyAnswer,
    )
    from ildsdk.retriever import Retriever
    from ildsdk.settings import MethodSettings, QuerySettings, RuntimeSettings

_HOMES = {
    "bundle": ("Bundle", "write_bundle"),
    "errors": (
        "ConfigError",
        "DecodeError",
        "IldError",
        "IndexFileError",
        "InputError",
        "ModelError",
        "NoUsableSliceError",
        "QueryCancelledError",
        "QueryStoppedError",
        "QueryTimeoutError",
        "ServerBusyError",
        "ServerError",
        "SliceUnusableError",
    ),
    "index": ("Index", "ItemRecord"),
    "ingest": ("build_index",),
    "records": (
        "EmbedResult",
        "Neighbor",
        "QueryResult",
        "SkippedItem",
        "SliceAnswer",
        "StudyAnswer",
    ),
    "retriever": ("Retriever",),
    "settings": ("MethodSettings", "QuerySettings", "RuntimeSettings"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Bundle",
    "ConfigError",
    "DecodeError",
    "EmbedResult",
    "IldError",
    "Index",
    "IndexFileError",
    "InputError",
    "ItemRecord",
    "MethodSettings",
    "ModelError",
    "Neighbor",
    "NoUsableSliceError",
    "QueryCancelledError",
    "QueryResult",
    "QuerySettings",
    "QueryStoppedError",
    "QueryTimeoutError",
    "Retriever",
    "RuntimeSettings",
    "ServerBusyError",
    "ServerError",
    "SkippedItem",
    "SliceAnswer",
    "SliceUnusableError",
    "StudyAnswer",
    "__version__",
    "build_index",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'ildsdk' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ildsdk.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
