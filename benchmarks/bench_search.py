"""Single-query search and a batch of 300 at paper scale, one thread, as pytest-benchmarks.

    python -m pytest benchmarks/bench_search.py --benchmark-enable

Contenders, data and checks are those of ``python -m benchmarks.report``, which also tunes on
half of the queries, interleaves the contenders and takes larger sets; here each one
is timed by itself at its cheapest setting of recall@10 >= 0.99.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks import peers

peers.need(*peers.SEARCH)

from benchmarks.search_data import SearchData, exact_neighbors, make_data  # noqa: E402
from benchmarks.search_ours import OURS  # noqa: E402
from benchmarks.search_peers import PEERS, Contender  # noqa: E402
from benchmarks.search_run import BATCH, TOP_N, Point, check, pinned, tuned_points  # noqa: E402

N_ITEMS, DIMENSION = 28_942, 128
GROUP = f"search|n={N_ITEMS}|d={DIMENSION}|top={TOP_N}"


class World:
    """One set with its exact answers."""

    def __init__(self, kind: str) -> None:
        self.data: SearchData = make_data(kind, N_ITEMS, DIMENSION)
        with pinned(2):
            self.tuning = exact_neighbors(self.data.vectors, self.data.tuning, TOP_N)
            self.scored = exact_neighbors(self.data.vectors, self.data.scored, TOP_N)


@pytest.fixture(scope="module", params=["clustered", "uniform"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.fixture(scope="module", params=[*PEERS, *OURS], ids=lambda kind: kind.__name__)
def point(request: pytest.FixtureRequest, world: World) -> Point:
    contender: Contender = request.param()
    with pinned(2):
        contender.build(world.data.vectors, 2, limit_s=600)
        points = tuned_points(contender, world.data.vectors, world.data.tuning, world.tuning[1])
    chosen = [p for p in points if {"exact", "fixed", "0.99"} & set(p.roles)]
    if not chosen:
        pytest.skip("no setting reaches 0.99")
    check(chosen[0], world.data, *world.scored)
    return chosen[0]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with pinned(1):
        yield


def _describe(benchmark: Any, world: World, point: Point) -> None:
    benchmark.name = f"{point.contender.name}[{world.data.kind}]"
    benchmark.extra_info.update(
        setting=dict(point.setting),
        recall=point.measured["recall"],
        n_read=point.measured["n_read"],
        numpy=np.__version__,
        machine=platform.processor() or platform.machine(),
    )
    point.enter(1)


@pytest.mark.benchmark(group=GROUP)
def test_single(benchmark: Any, world: World, point: Point) -> None:
    _describe(benchmark, world, point)
    queries = world.data.scored
    turn = itertools.cycle(range(len(queries)))

    def search() -> None:
        i = next(turn)
        point.contender.search(queries[i : i + 1], TOP_N)

    benchmark(search)


@pytest.mark.benchmark(group=f"{GROUP}|batch={BATCH}")
def test_batch(benchmark: Any, world: World, point: Point) -> None:
    _describe(benchmark, world, point)
    benchmark.pedantic(lambda: point.contender.search(world.data.scored[:BATCH], TOP_N), rounds=5)
