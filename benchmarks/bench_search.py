"""Single-query search at paper scale against numpy brute force; one thread.

Run it as ``python -m pytest benchmarks/bench_search.py --benchmark-enable``. Data: unit vectors
clustered like a contrastively trained embedding (label > case > neighboring slices) and
uniform on the sphere (worst case). Each benchmark checks its answer against brute force in
float64 before it is timed.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_limits

import native_hash
from ildsdk.index import Index, ItemRecord

N_ITEMS, DIMENSION, TOP_N, N_QUERIES = 28_942, 128, 10, 64
GROUP = f"search|n={N_ITEMS}|d={DIMENSION}|top={TOP_N}"


def _uniform(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    return generator.standard_normal((N_ITEMS + N_QUERIES, DIMENSION))


def _clustered(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Four labels, 80 cases, slices along a smooth path per case; queries are between them."""
    n = N_ITEMS + N_QUERIES
    labels = generator.standard_normal((4, DIMENSION))
    cases = labels[np.arange(80) % 4] + 0.5 * generator.standard_normal((80, DIMENSION))
    paths = 0.5 * generator.standard_normal((80, 2, DIMENSION))
    case = np.sort(generator.integers(0, 80, n))
    phase = generator.random(n)[:, np.newaxis] * 3.0
    vectors = cases[case] + np.sin(phase) * paths[case, 0] + np.cos(phase) * paths[case, 1]
    vectors += 0.08 * generator.standard_normal((n, DIMENSION))
    shuffled: npt.NDArray[np.float64] = generator.permutation(vectors)
    return shuffled


class World:
    """An index on disk, its matrix in memory, queries, and the right answers."""

    def __init__(self, folder: Path, kind: str) -> None:
        make = {"uniform": _uniform, "clustered": _clustered}[kind]
        vectors = native_hash.unit_rows(make(np.random.default_rng(0)).astype(np.float32))
        self.matrix = vectors[:N_ITEMS].copy()
        self.queries = vectors[N_ITEMS:].copy()
        wide = self.queries.astype(np.float64) @ self.matrix.astype(np.float64).T
        self.exact_rows = np.argsort(-wide.astype(np.float32), axis=1, kind="stable")[:, :TOP_N]
        self.index = Index.create(
            folder, name=kind, bundle_hash="none", embedding_size=DIMENSION, is_synthetic=True
        )
        self.index.add(self.matrix, [_item(i) for i in range(N_ITEMS)], [b""] * N_ITEMS)
        self.next_query = itertools.cycle(self.queries).__next__

    def recall(self, rows: npt.NDArray[np.int64]) -> float:
        """Share of the exact answers found."""
        found = [np.isin(a, b).mean() for a, b in zip(self.exact_rows, rows, strict=True)]
        return float(np.mean(found))


def _item(i: int) -> ItemRecord:
    return ItemRecord(
        item_id=str(i),
        case_id=str(i // 362),
        label="x",
        study_instance_uid="1",
        series_instance_uid="1",
        sop_instance_uid=str(i),
    )


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread() -> Iterator[None]:
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="module", params=["clustered", "uniform"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("bench") / "index", request.param)


def _brute_force(matrix: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> Any:
    scores = matrix @ query
    best = np.argpartition(-scores, TOP_N)[:TOP_N]
    return best[np.lexsort((best, -scores[best]))]


def _describe(benchmark: Any, recall: float, n_candidates: float) -> None:
    benchmark.extra_info.update(
        recall=round(recall, 4),
        n_candidates=round(n_candidates),
        numpy=np.__version__,
        machine=platform.processor() or platform.machine(),
    )


@pytest.mark.benchmark(group=GROUP)
def test_numpy_brute_force(benchmark: Any, world: World) -> None:
    rows = np.stack([_brute_force(world.matrix, query) for query in world.queries])
    assert world.recall(rows) > 0.999  # float32 sums may swap near ties
    _describe(benchmark, world.recall(rows), N_ITEMS)
    benchmark(lambda: _brute_force(world.matrix, world.next_query()))


@pytest.mark.benchmark(group=GROUP)
def test_exact(benchmark: Any, world: World) -> None:
    found = world.index.search(world.queries, TOP_N)
    assert np.array_equal(found.rows, world.exact_rows)
    _describe(benchmark, 1.0, float(found.n_candidates.mean()))
    benchmark(lambda: world.index.search(world.next_query(), TOP_N))


@pytest.mark.benchmark(group=GROUP)
def test_paper(benchmark: Any, world: World) -> None:
    found = world.index.search(world.queries, TOP_N, mode="paper")
    planes = native_hash.draw_hyperplanes(1, 3, DIMENSION, seed=0)[0].astype(np.float64)
    powers = 2 ** np.arange(3)
    row_keys = (_sign_bits(world.matrix, planes) * powers).sum(1)
    query_keys = (_sign_bits(world.queries, planes) * powers).sum(1)
    for rows, query, key in zip(found.rows, world.queries, query_keys, strict=True):
        bucket = np.flatnonzero(row_keys == key)
        scores = (world.matrix[bucket].astype(np.float64) @ query).astype(np.float32)
        assert np.array_equal(rows, bucket[np.argsort(-scores, kind="stable")[:TOP_N]])
    _describe(benchmark, world.recall(found.rows), float(found.n_candidates.mean()))
    benchmark(lambda: world.index.search(world.next_query(), TOP_N, mode="paper"))


def _sign_bits(
    vectors: npt.NDArray[np.float32], planes: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Eq. 6 in float64, bool ``(n, k)``."""
    bits: npt.NDArray[np.bool_] = vectors.astype(np.float64) @ planes.T > 0
    return bits


@pytest.mark.benchmark(group=f"{GROUP}|batch={N_QUERIES}")
def test_exact_batch(benchmark: Any, world: World) -> None:
    found = world.index.search(world.queries, TOP_N)
    assert np.array_equal(found.rows, world.exact_rows)
    _describe(benchmark, 1.0, float(found.n_candidates.mean()))
    benchmark(lambda: world.index.search(world.queries, TOP_N))


@pytest.mark.benchmark(group=f"{GROUP}|batch={N_QUERIES}")
def test_numpy_brute_force_batch(benchmark: Any, world: World) -> None:
    def search() -> Any:
        scores = world.queries @ world.matrix.T
        best = np.argpartition(-scores, TOP_N, axis=1)[:, :TOP_N]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
        return np.take_along_axis(best, order, 1)

    assert world.recall(search()) > 0.999
    _describe(benchmark, world.recall(search()), N_ITEMS)
    benchmark(search)
