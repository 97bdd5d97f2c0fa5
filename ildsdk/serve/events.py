"""A query's answer in pieces, each as soon as it is known (docs/serve.md describes them)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ildsdk.records import QUERY_SCHEMA, SkippedItem, SliceAnswer, plain
from ildsdk.retriever import Retriever
from ildsdk.settings import QuerySettings


def query_events(
    retriever: Retriever, study: Path, settings: QuerySettings, cancelled: threading.Event
) -> Iterator[dict[str, Any]]:
    """Go through a query.

    Yields
    ------
    dict
        ``{"event": "slice", "slice": ...}``, ``{"event": "skipped", "skipped": ...}``;
        ``{"event": "study", "study": ...}`` after the slices of a study, which it holds again;
        at last ``{"event": "end", ...}`` with what is left of the whole answer: its ``schema``,
        ``provenance``, ``skipped`` and ``timings_ms``.

    Raises
    ------
    IldError
        As :meth:`ildsdk.Retriever.iter_query`.
    """
    started = time.perf_counter()
    loose: list[SkippedItem] = []
    for item in retriever.iter_query(study, settings, cancel=cancelled):
        if isinstance(item, SkippedItem):
            loose.append(item)
            yield {"event": "skipped", "skipped": plain(item)}
        elif isinstance(item, SliceAnswer):
            yield {"event": "slice", "slice": plain(item)}
        else:
            of_the_study = set(item.skipped)
            loose = [one for one in loose if one not in of_the_study]
            yield {"event": "study", "study": plain(item)}
    left = plain(retriever.empty_result(settings, tuple(loose)))
    del left["studies"]
    left["timings_ms"] = {"total": round((time.perf_counter() - started) * 1e3, 3)}
    yield {"event": "end", "schema": QUERY_SCHEMA, **left}
