"""Counters of one server in Prometheus form; nothing in them tells of a patient or a path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from ildsdk.records import QueryResult, SkippedItem
from ildsdk.serve.queueing import QueryQueue

# From a health check to a thick study, seconds.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """All metrics of one server, in a registry of their own.

    Parameters
    ----------
    queue : QueryQueue
        Asked for its depth when metrics are read.
    """

    def __init__(self, queue: QueryQueue) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "ildsdk_requests", "HTTP requests", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "ildsdk_request_seconds",
            "Time from a request's headers to the end of its answer",
            ["route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.queries = Counter(
            "ildsdk_queries",
            "Queries by what came of them: answered, or the code of the error",
            ["outcome"],
            registry=registry,
        )
        self.query_seconds = Histogram(
            "ildsdk_query_seconds",
            "Time a worker spent on an answered query",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.wait_seconds = Histogram(
            "ildsdk_queue_wait_seconds",
            "Time from admission to a worker, upload included",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.rejected = Counter(
            "ildsdk_rejected", "Queries refused because all places were taken", registry=registry
        )
        self.cancelled = Counter(
            "ildsdk_cancelled",
            "Queries stopped before their answer: client gone, timeout, or the server's end",
            ["reason"],
            registry=registry,
        )
        self.slices_answered = Counter(
            "ildsdk_slices_answered", "Slices that got neighbors", registry=registry
        )
        self.slices_skipped = Counter(
            "ildsdk_slices_skipped",
            "Files and slices that were not answered",
            ["reason"],
            registry=registry,
        )
        self.reloads = Counter(
            "ildsdk_index_reloads",
            "How often the index was opened anew: done, or failed",
            ["outcome"],
            registry=registry,
        )
        self.is_ready = Gauge(
            "ildsdk_ready", "1 where queries are taken, else 0", registry=registry
        )
        self.index_items = Gauge(
            "ildsdk_index_items", "Slices in the index that is searched", registry=registry
        )
        self.build = Gauge(
            "ildsdk_build",
            "Always 1; what runs stands in the labels",
            ["version", "bundle", "provider"],
            registry=registry,
        )
        depth = Gauge("ildsdk_queue_depth", "Queries that wait for a worker", registry=registry)
        depth.set_function(lambda: queue.n_waiting)
        running = Gauge("ildsdk_in_flight", "Queries a worker has in hand", registry=registry)
        running.set_function(lambda: queue.n_running)

    def count_answer(self, result: QueryResult) -> None:
        """Add the slices of one answer."""
        self.slices_answered.inc(sum(len(study.slices) for study in result.studies))
        for study in result.studies:
            self.count_skipped(study.skipped)
        self.count_skipped(result.skipped)

    def count_event(self, event: Mapping[str, Any]) -> None:
        """Add what one event of a streamed answer tells."""
        if event["event"] == "slice":
            self.slices_answered.inc()
        elif event["event"] == "skipped":
            self.slices_skipped.labels(event["skipped"]["reason"]).inc()

    def count_skipped(self, skipped: tuple[SkippedItem, ...]) -> None:
        """Add files and slices that were not answered; their reasons are a fixed list."""
        for item in skipped:
            self.slices_skipped.labels(item.reason).inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Text for a scraper and its Content-Type, in the form it accepts."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
