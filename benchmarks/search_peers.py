"""Contenders of the search benchmarks from other libraries, each behind :class:`Contender`.

All hold the float32 vectors and answer with the largest dot products. Graphs: M = 32,
efConstruction = 200. Lossy codes get the same exact re-ranking of ``k_factor * top_n`` rows.
"""
# ruff: noqa: D102 - methods do what Contender says

from __future__ import annotations

import abc
import time
import weakref
from collections.abc import Callable, Mapping, Sequence

import faiss
import hnswlib
import numpy as np
import numpy.typing as npt
import usearch.index

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Setting = Mapping[str, float]
Ladder = Sequence[Setting]

M, EF_CONSTRUCTION = 32, 200


def _steps(last: float, *, first: float = 1, digits: int = 0) -> tuple[float, ...]:
    """Settings a tenth apart, so that nobody pays for a coarse grid."""
    n_steps = int(np.log(last / first) / np.log(1.1)) + 1
    return tuple(dict.fromkeys(round(first * 1.1**i, digits) for i in range(n_steps)))


EF = _steps(5000, first=10)
PROBES = _steps(1600)
K_FACTORS = _steps(2000, digits=1)
BUILD_BLOCK = 10_000


class BuildTooLongError(Exception):
    """Building would take longer than allowed."""


class Contender(abc.ABC):
    """One way to search.

    Attributes
    ----------
    name : str
        As printed.
    is_exact : bool
        Whether it compares every row in full or proves that it need not.
    ladders : sequence of ladders
        Search settings, each ladder from cheap to thorough; one empty setting where there is
        nothing to choose.
    asked : sequence of settings
        Settings measured whatever they find, because a user would ask for them.
    """

    name: str
    is_exact = False
    ladders: Sequence[Ladder] = (({},),)
    asked: Sequence[Setting] = ()

    def expected(self, queries: Float32, exact_rows: Int64) -> Int64 | None:
        """Rows it must answer, bit for bit; None where rounding or luck has a say."""
        return None

    @abc.abstractmethod
    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        """Build from float32 ``(n, d)`` unit vectors.

        Raises
        ------
        BuildTooLongError
            It would take longer than ``limit_s`` (told early where building goes by blocks).
        """

    def use(self, setting: Setting) -> None:  # noqa: B027
        """Take a search setting."""

    def use_threads(self, n_threads: int) -> None:  # noqa: B027
        """Take this many threads for a batch; BLAS and OpenMP are limited outside."""

    @abc.abstractmethod
    def search(self, queries: Float32, top_n: int) -> Int64:
        """Rows of the answers, int64 ``(m, top_n)``, best first, -1 where there are none."""

    def n_read(self, queries: Float32, top_n: int) -> float | None:
        """Mean rows per query whose vector or code is read; None where nobody tells."""
        return None

    @abc.abstractmethod
    def extra_bytes(self) -> float:
        """Bytes per vector beside the float32 values."""


def add_in_blocks(
    add: Callable[[Float32, Int64], object], vectors: Float32, limit_s: float
) -> None:
    """Add rows by blocks; give up as soon as the rate says that the limit will be passed.

    The rate falls while a graph grows, so the projection is on the low side: no contender is
    given up that would have finished.
    """
    started = time.perf_counter()
    for start in range(0, len(vectors), BUILD_BLOCK):
        block = vectors[start : start + BUILD_BLOCK]
        add(block, np.arange(start, start + len(block)))
        done = (start + len(block)) / len(vectors)
        if (time.perf_counter() - started) / done > limit_s:
            raise BuildTooLongError(f"building takes more than {limit_s:g} s")


class NumpyProduct(Contender):
    """Product of matrices, then argpartition, 64 queries at a time (memory)."""

    name = "numpy product + argpartition"
    is_exact = True

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._vectors = vectors

    def search(self, queries: Float32, top_n: int) -> Int64:
        rows = np.empty((len(queries), top_n), np.int64)
        for start in range(0, len(queries), 64):
            scores = queries[start : start + 64] @ self._vectors.T
            best = np.argpartition(scores, scores.shape[1] - top_n, axis=1)[:, -top_n:]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
            rows[start : start + 64] = np.take_along_axis(best, order, 1)
        return rows

    def n_read(self, queries: Float32, top_n: int) -> float:
        return len(self._vectors)

    def extra_bytes(self) -> float:
        return 0.0


class _Faiss(Contender):
    """What the faiss contenders share."""

    _index: faiss.Index

    def use_threads(self, n_threads: int) -> None:
        faiss.omp_set_num_threads(n_threads)

    def search(self, queries: Float32, top_n: int) -> Int64:
        rows: Int64 = self._index.search(queries, top_n)[1]
        return rows

    def n_read(self, queries: Float32, top_n: int) -> float | None:
        return self._index.ntotal


_shared: weakref.WeakValueDictionary[tuple[int, int], faiss.IndexFlat] = (
    weakref.WeakValueDictionary()
)


def _float_rows(vectors: Float32, metric: int) -> faiss.IndexFlat:
    """A flat index of these vectors, one for all contenders: a copy is 2 GB at 1M x 512."""
    key = (vectors.ctypes.data, metric)
    index = _shared.get(key)
    if index is None or index.ntotal != len(vectors):
        index = _shared[key] = faiss.IndexFlat(vectors.shape[1], metric)
        index.add(vectors)
    return index


class FaissFlat(_Faiss):
    """Brute force; the unit of every ratio."""

    name = "faiss IndexFlatIP"
    is_exact = True

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._index = _float_rows(vectors, faiss.METRIC_INNER_PRODUCT)

    def extra_bytes(self) -> float:
        return 0.0


class FaissHNSW(_Faiss):
    """Graph of faiss."""

    name = "faiss IndexHNSWFlat"
    ladders = (tuple({"efSearch": ef} for ef in EF),)

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._index = faiss.IndexHNSWFlat(vectors.shape[1], M, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = EF_CONSTRUCTION
        add_in_blocks(lambda block, _: self._index.add(block), vectors, limit_s)

    def use(self, setting: Setting) -> None:
        self._index.hnsw.efSearch = int(setting["efSearch"])

    def n_read(self, queries: Float32, top_n: int) -> float:
        faiss.cvar.hnsw_stats.reset()
        self.search(queries, top_n)
        return faiss.cvar.hnsw_stats.ndis / len(queries)

    def extra_bytes(self) -> float:
        graph = self._index.hnsw
        n_bytes = 4 * graph.neighbors.size() + 8 * graph.offsets.size() + 4 * graph.levels.size()
        return n_bytes / self._index.ntotal


class FaissIVF(_Faiss):
    """Inverted lists of float32 rows, about 4 sqrt(n) of them."""

    name = "faiss IndexIVFFlat"
    ladders = (tuple({"nprobe": n} for n in PROBES),)

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._n_lists = int(4 * len(vectors) ** 0.5)
        self._index = faiss.index_factory(
            vectors.shape[1], f"IVF{self._n_lists},Flat", faiss.METRIC_INNER_PRODUCT
        )
        self._index.train(vectors)  # faiss takes 256 rows of the sample per list
        self._index.add(vectors)

    def use(self, setting: Setting) -> None:
        self._index.nprobe = min(int(setting["nprobe"]), self._n_lists)

    def n_read(self, queries: Float32, top_n: int) -> float:
        faiss.cvar.indexIVF_stats.reset()
        self.search(queries, top_n)
        return faiss.cvar.indexIVF_stats.ndis / len(queries) + self._n_lists

    def extra_bytes(self) -> float:
        return 8 + 4 * self._index.d * self._n_lists / self._index.ntotal


class _Refined(_Faiss):
    """Lossy codes of every row, then exact re-ranking on float32 rows."""

    ladders = (tuple({"k_factor": k} for k in K_FACTORS),)

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._codes = self._new_codes(vectors.shape[1])
        self._rows = _float_rows(vectors, self._codes.metric_type)
        self._codes.train(vectors[:: max(1, len(vectors) // 100_000)])
        self._codes.add(vectors)
        self._index = faiss.IndexRefine(self._codes, self._rows)

    @abc.abstractmethod
    def _new_codes(self, dimension: int) -> faiss.Index:
        """The empty index of codes."""

    def use(self, setting: Setting) -> None:
        self._index.k_factor = min(setting["k_factor"], max(1, self._rows.ntotal // 10))

    def extra_bytes(self) -> float:
        return float(self._codes.sa_code_size())


class FaissLSH(_Refined):
    """Sign bits of random projections, four per dimension (the method of the paper, at width)."""

    name = "faiss IndexLSH 4d bits + refine"

    def _new_codes(self, dimension: int) -> faiss.Index:
        # Its re-ranking is by L2, which orders unit vectors as the dot product does.
        return faiss.IndexLSH(dimension, 4 * dimension, True, False)

    def extra_bytes(self) -> float:
        return self._index.d * 4 / 8


class FaissRaBitQ(_Refined):
    """One bit per dimension after a random rotation; queries of 4 or 8 bits."""

    name = "faiss IndexRaBitQ + refine"
    ladders = tuple(tuple({"k_factor": k, "qb": bits} for k in K_FACTORS) for bits in (4, 8))

    def _new_codes(self, dimension: int) -> faiss.Index:
        return faiss.index_factory(dimension, "RR,RaBitQ", faiss.METRIC_INNER_PRODUCT)

    def use(self, setting: Setting) -> None:
        super().use(setting)
        faiss.downcast_index(self._codes.index).qb = int(setting["qb"])


class FaissRaBitQFastScan(_Refined):
    """The same bits in the register-blocked layout of faiss."""

    name = "faiss IndexRaBitQFastScan + refine"

    def _new_codes(self, dimension: int) -> faiss.Index:
        return faiss.index_factory(dimension, "RR,RaBitQfs", faiss.METRIC_INNER_PRODUCT)


class FaissSQ8(_Refined):
    """One byte per dimension."""

    name = "faiss SQ8 + refine"

    def _new_codes(self, dimension: int) -> faiss.Index:
        return faiss.index_factory(dimension, "SQ8", faiss.METRIC_INNER_PRODUCT)


class Hnswlib(Contender):
    """Graph of hnswlib."""

    name = "hnswlib"
    ladders = (tuple({"ef": ef} for ef in EF),)

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._bytes_of_values = vectors.nbytes
        self._n = len(vectors)
        self._index = hnswlib.Index("ip", vectors.shape[1])
        self._index.init_index(self._n, M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
        add_in_blocks(
            lambda block, ids: self._index.add_items(block, ids, num_threads=n_threads),
            vectors,
            limit_s,
        )

    def use(self, setting: Setting) -> None:
        self._index.set_ef(int(setting["ef"]))

    def use_threads(self, n_threads: int) -> None:
        self._index.set_num_threads(n_threads)

    def search(self, queries: Float32, top_n: int) -> Int64:
        rows: Int64 = self._index.knn_query(queries, top_n)[0].view(np.int64)
        return rows

    def extra_bytes(self) -> float:
        return (self._index.index_file_size() - self._bytes_of_values) / self._n


class Usearch(Contender):
    """Graph of usearch, float32, the same degree and construction effort."""

    name = "usearch"
    ladders = (tuple({"expansion": ef} for ef in EF),)

    def build(self, vectors: Float32, n_threads: int, limit_s: float) -> None:
        self._bytes_of_values = vectors.nbytes
        self._index = usearch.index.Index(
            ndim=vectors.shape[1],
            metric="ip",
            dtype="f32",
            connectivity=M,
            expansion_add=EF_CONSTRUCTION,
        )
        add_in_blocks(
            lambda block, ids: self._index.add(ids, block, threads=n_threads), vectors, limit_s
        )
        self._n_threads = 1

    def use(self, setting: Setting) -> None:
        self._index.expansion_search = int(setting["expansion"])

    def use_threads(self, n_threads: int) -> None:
        self._n_threads = n_threads

    def search(self, queries: Float32, top_n: int) -> Int64:
        found = self._index.search(queries, top_n, threads=self._n_threads)
        return found.keys.astype(np.int64).reshape(len(queries), top_n)

    def n_read(self, queries: Float32, top_n: int) -> float:
        found = self._index.search(queries, top_n, threads=1)
        return found.computed_distances / len(queries)

    def extra_bytes(self) -> float:
        return (self._index.serialized_length - self._bytes_of_values) / len(self._index)


PEERS: tuple[type[Contender], ...] = (
    NumpyProduct,
    FaissFlat,
    FaissHNSW,
    FaissIVF,
    FaissLSH,
    FaissRaBitQ,
    FaissRaBitQFastScan,
    FaissSQ8,
    Hnswlib,
    Usearch,
)
