"""Search of 28,942 vectors: ours beside faiss, in turn, one thread, by single queries and a batch.

    python -m pytest benchmarks/bench_index_search.py --benchmark-enable

A round is 300 queries, single ones after each other or as one batch. The full comparison, with
graphs, lossy codes and larger sets, is ``python -m benchmarks.report``; ``bench_search.py`` times
each of its contenders by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks import peers

peers.need(*peers.SEARCH)

from benchmarks.contest import Contender, Report, Rounds, interleaved  # noqa: E402
from benchmarks.search_data import exact_neighbors, make_data, recall_at_n  # noqa: E402
from benchmarks.search_ours import CertifiedExact, IndexSearch  # noqa: E402
from benchmarks.search_peers import Contender as Searcher  # noqa: E402
from benchmarks.search_peers import FaissFlat  # noqa: E402
from benchmarks.search_run import BATCH, TOP_N, pinned  # noqa: E402

N_ITEMS, DIMENSION, N_ROUNDS = 28_942, 128, 25
# Those of search_run: what an exact search may lose to float32 sums on near ties.
LEAST_RECALL = 0.999
SEARCHERS: tuple[type[Searcher], ...] = (FaissFlat, CertifiedExact, IndexSearch)

Contest = tuple[dict[str, Contender], dict[str, Rounds]]


@pytest.fixture(scope="module", params=["clustered", "uniform"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the vectors lie; see ``search_data``."""
    return request.param


@pytest.fixture(scope="module", params=["single", "batch"])
def asking(request: pytest.FixtureRequest) -> str:
    """One query a call, or all in one call."""
    return request.param


@pytest.fixture(scope="module")
def searchers(kind: str) -> tuple[np.ndarray, dict[str, tuple[Searcher, float]]]:
    """Queries, and each searcher with the recall it was checked to have."""
    data = make_data(kind, N_ITEMS, DIMENSION, n_queries=BATCH)
    built = {}
    with pinned(1):
        exact_rows, exact_scores = exact_neighbors(data.vectors, data.scored, TOP_N)
        for searcher_type in SEARCHERS:
            searcher = searcher_type()
            searcher.build(data.vectors, 1, 600)
            rows = searcher.search(data.scored, TOP_N)
            recall = recall_at_n(data.vectors, data.scored, rows, exact_scores)
            assert recall >= LEAST_RECALL, f"{searcher.name} finds {recall:.4f}"
            expected = searcher.expected(data.scored, exact_rows)
            assert expected is None or np.array_equal(rows, expected), searcher.name
            built[searcher.name] = (searcher, recall)
    return data.scored, built


@pytest.fixture(scope="module")
def contest(
    asking: str,
    searchers: tuple[np.ndarray, dict[str, tuple[Searcher, float]]],
    rounds: Callable[[int], int],
) -> Contest:
    """All searchers in turn."""
    queries, built = searchers
    step = 1 if asking == "single" else BATCH

    def act(searcher: Searcher) -> Callable[[int], None]:
        def search(_: int) -> None:
            for start in range(0, BATCH, step):
                searcher.search(queries[start : start + step], TOP_N)

        return search

    contenders = {
        name: Contender(
            act=act(searcher),
            role="ours" if name.startswith("ildsdk") else "rival",
            facts={"recall": recall, "n_queries": BATCH, "threads": 1},
        )
        for name, (searcher, recall) in built.items()
    }
    with pinned(1):
        return contenders, interleaved(contenders, rounds(N_ROUNDS))


@pytest.mark.parametrize("name", [searcher.name for searcher in SEARCHERS])
def test_search(report: Report, kind: str, asking: str, contest: Contest, name: str) -> None:
    contenders, found = contest
    group = f"search|{kind}|n={N_ITEMS}|d={DIMENSION}|top={TOP_N}|{BATCH} queries, {asking}"
    report(group, name, contenders[name], found[name].seconds)
