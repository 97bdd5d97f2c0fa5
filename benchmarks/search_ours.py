"""Our searches as contenders: on arrays (``native_hash``), and through ``Index.search``."""
# ruff: noqa: D102 - methods do what Contender says

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import native_hash
from benchmarks.search_peers import Contender, Float32, Int64, Setting
from native_hash import SegmentCodes
from native_hash.codes import Codes, build_codes
from native_hash.probing import Tables

if TYPE_CHECKING:
    from ildsdk.index import ItemRecord

PAPER_BITS = 3
RECALLS = (0.95, 0.97, 0.98, 0.985, 0.99, 0.993, 0.995, 0.997, 0.998, 0.999)
MORE_TABLES = ((6, 4), (10, 8))  # (bits, tables)


class _Ours(Contender):
    """Batches are split over threads of our own; kernels do not start any."""

    _n_threads = 1

    def use_threads(self, n_threads: int) -> None:
        self._n_threads = n_threads

    def search(self, queries: Float32, top_n: int) -> Int64:
        if self._n_threads == 1 or len(queries) == 1:
            return self._answer(queries, top_n)
        parts = np.array_split(queries, self._n_threads)
        with ThreadPoolExecutor(self._n_threads) as pool:
            return np.concatenate(list(pool.map(lambda part: self._answer(part, top_n), parts)))

    def _answer(self, queries: Float32, top_n: int) -> Int64:
        return self._search(queries, top_n)[0]

    def n_read(self, queries: Float32, top_n: int) -> float:
        return float(self._search(queries, top_n)[1].mean())

    def _search(self, queries: Float32, top_n: int) -> tuple[Int64, Int64]:
        """Rows and the number of rows read, by one thread."""
        raise NotImplementedError


class FloatScan(_Ours):
    """Every float32 row compared, no codes."""

    name = "ildsdk float32 scan"
    is_exact = True

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._rows = native_hash.checked_rows(vectors)

    def expected(self, queries: Float32, exact_rows: Int64) -> Int64:
        return exact_rows

    def _search(self, queries: Float32, top_n: int) -> tuple[Int64, Int64]:
        heap = native_hash.NeighborHeap(queries, top_n)
        heap.offer(self._rows)
        rows, _, n_scored = heap.result()
        return rows, n_scored

    def extra_bytes(self) -> float:
        return 0.0


class CertifiedExact(_Ours):
    """Codes with bounds: only what provably cannot win is left out."""

    name = "ildsdk exact"
    is_exact = True

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._rows = native_hash.checked_rows(vectors)
        self._arrays = build_codes(self._rows, n_threads=n_threads)
        self._codes = Codes.from_arrays(self._rows, self._arrays)

    def expected(self, queries: Float32, exact_rows: Int64) -> Int64:
        return exact_rows

    def _search(self, queries: Float32, top_n: int) -> tuple[Int64, Int64]:
        heap = native_hash.NeighborHeap(queries, top_n)
        heap.offer(self._rows, codes=self._codes)
        rows, _, n_read = heap.result()
        return rows, n_read

    def extra_bytes(self) -> float:
        return sum(array.nbytes for array in self._arrays.values()) / len(self._rows.values)


class PaperTables(_Ours):
    """Hyperplane buckets with several tables and probes; its candidates are scored exactly."""

    name = "ildsdk hyperplane tables + probes"
    ladders = tuple(
        tuple({"n_bits": bits, "n_tables": tables, "n_probes": tables * 2**i} for i in range(8))
        for bits, tables in MORE_TABLES
    )
    _shapes = MORE_TABLES

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._rows = native_hash.checked_rows(vectors)
        self._by_bits: dict[int, Tables] = {}
        for n_bits, n_tables in self._shapes:
            planes = native_hash.draw_hyperplanes(n_tables, n_bits, vectors.shape[1], seed=0)
            signed = native_hash.signatures(vectors, planes)
            self._by_bits[n_bits] = Tables.build(signed, planes)
        self.use(self.ladders[0][0])

    def use(self, setting: Setting) -> None:
        self._tables = self._by_bits[int(setting["n_bits"])]
        self._n_probes = int(setting["n_probes"])

    def _search(self, queries: Float32, top_n: int) -> tuple[Int64, Int64]:
        heap = native_hash.NeighborHeap(queries, top_n)
        for number, query in enumerate(queries):
            candidates = self._tables.candidates(query, self._n_probes)
            heap.offer_candidates(number, self._rows, candidates)
        rows, _, n_scored = heap.result()
        return rows, n_scored

    def extra_bytes(self) -> float:
        return 8.0 * self._tables.hyperplanes.shape[0]


class PaperPreset(PaperTables):
    """The paper's search: k = 3 random hyperplanes, one table, one probe (eqs. 6-10)."""

    name = "ildsdk paper preset (k = 3, one probe)"
    ladders = (({"n_bits": PAPER_BITS, "n_tables": 1, "n_probes": 1},),)
    _shapes = ((PAPER_BITS, 1),)

    def expected(self, queries: Float32, exact_rows: Int64) -> Int64:
        """Transcription of the equations in plain numpy."""
        planes = self._tables.hyperplanes[0].astype(np.float64)
        powers = 2 ** np.arange(PAPER_BITS)
        row_keys = (self._rows.values.astype(np.float64) @ planes.T > 0) @ powers
        query_keys = (queries.astype(np.float64) @ planes.T > 0) @ powers
        answers = np.full(exact_rows.shape, -1, np.int64)
        for answer, query, key in zip(answers, queries, query_keys, strict=True):
            bucket = np.flatnonzero(row_keys == key)
            scores = (self._rows.values[bucket].astype(np.float64) @ query).astype(np.float32)
            best = bucket[np.argsort(-scores, kind="stable")[: len(answer)]]
            answer[: len(best)] = best
        return answers


class FastSearch(_Ours):
    """Tree of lesser depth, or sign sketch; the setting is the recall that is asked for.

    Where neither reaches it for less than the exact search, that one answers, as in
    ``Index.search``.
    """

    name = "ildsdk fast"
    asked = ({"recall": 0.99},)
    ladders = (tuple({"recall": recall} for recall in RECALLS),)

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._rows = native_hash.checked_rows(vectors)
        self._arrays = native_hash.segment_codes(vectors, n_threads=n_threads)
        self._codes = SegmentCodes.from_arrays(self._rows, self._arrays)
        self.use({"recall": 0.99})

    def use(self, setting: Setting) -> None:
        self._recall = float(setting["recall"])

    def _search(self, queries: Float32, top_n: int) -> tuple[Int64, Int64]:
        heap = native_hash.NeighborHeap(queries, top_n)
        self._codes.offer(heap, self._rows, n=top_n, recall=self._recall)
        rows, _, n_read = heap.result()
        return rows, n_read

    def extra_bytes(self) -> float:
        return sum(array.nbytes for array in self._arrays.values()) / len(self._rows.values)


class IndexSearch(_Ours):
    """``Index.search`` on an index on disk: checks, files and all."""

    mode = "exact"
    name = "ildsdk Index.search exact"
    is_exact = True

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        from ildsdk.index import Index

        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._index = Index.create(
            folder / "index",
            name="benchmark",
            bundle_hash="none",
            embedding_size=vectors.shape[1],
            is_synthetic=True,
        )
        self._index.add(vectors, list(_items(len(vectors))), [b""] * len(vectors))

    def expected(self, queries: Float32, exact_rows: Int64) -> Int64 | None:
        return exact_rows if self.is_exact else None

    def _search(self, queries: Float32, top_n: int) -> tuple[Int64, Int64]:
        found = self._index.search(queries, top_n, mode=self.mode)
        return found.rows, found.n_candidates

    def extra_bytes(self) -> float:
        return float("nan")  # what lies beside the vectors is metadata too


def _items(n: int) -> Iterator[ItemRecord]:
    from ildsdk.index import ItemRecord

    for i in range(n):
        yield ItemRecord(
            item_id=str(i),
            case_id=str(i // 362),
            label="x",
            study_instance_uid="1",
            series_instance_uid="1",
            sop_instance_uid=str(i),
        )


OURS: tuple[type[Contender], ...] = (
    CertifiedExact,
    FastSearch,
    FloatScan,
    PaperPreset,
    PaperTables,
    IndexSearch,
)
