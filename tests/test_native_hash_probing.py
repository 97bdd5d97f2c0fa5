"""Query-directed probing: order of probes, candidates, and the paper's preset."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import native_hash
from native_hash import probe_kernels, probe_reference, reference
from native_hash.probing import Tables, probe_order

ENGINES = ("numba", "numpy")
# Zero and equal margins, and one so large that adding a small one does not change it.
MARGINS = st.sampled_from([0.0, 1.0, -1.0, 2.0, -3.0, 0.1, 0.3, 2.0**60])


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _enumerated(dots: np.ndarray) -> list[tuple[int, int]]:
    """Every (table, signature) there is, each subset of flipped bits costed and sorted."""
    probes = []
    for table, row in enumerate(dots.tolist()):
        own = sum(1 << bit for bit, dot in enumerate(row) if dot > 0)
        ranked = sorted(range(len(row)), key=lambda bit, row=row: (abs(row[bit]), bit))
        for n_flips in range(len(row) + 1):
            for ranks in itertools.combinations(range(len(row)), n_flips):
                cost, signature = 0.0, own
                for rank in ranks:
                    cost += abs(row[ranked[rank]])
                    signature ^= 1 << ranked[rank]
                probes.append((cost, sum(1 << rank for rank in ranks), table, signature))
    return [(table, signature) for _, _, table, signature in sorted(probes)]


def _order_of(module: object, dots: np.ndarray, n_probes: int) -> list[tuple[int, int]]:
    n_entries = len(dots) + n_probes
    tables, probed = np.empty(n_probes, np.int64), np.empty(n_probes, np.uint64)
    scratch = (
        np.empty(dots.shape), np.empty(dots.shape, np.int64), np.empty((2, n_entries)),
        np.empty(n_entries, np.uint64), np.empty((2, n_entries), np.int64),
    )  # fmt: skip
    n_found = module.probe_order(dots, *scratch, tables, probed)
    return list(zip(tables[:n_found].tolist(), probed[:n_found].tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_order_of_probes_is_the_sorted_enumeration(data: st.DataObject) -> None:
    n_tables, n_bits = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7))
    values = data.draw(
        st.lists(
            MARGINS | st.floats(-4, 4, width=32), min_size=n_tables * n_bits,
            max_size=n_tables * n_bits,
        )
    )  # fmt: skip
    dots = np.array(values, np.float64).reshape(n_tables, n_bits)
    expected = _enumerated(dots)
    n_probes = data.draw(st.integers(1, len(expected) + 3))
    for module in (probe_kernels, probe_reference):
        assert _order_of(module, dots, n_probes) == expected[:n_probes]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 64), st.integers(1, 300))
@example(0, 1, 64, 300)
def test_kernel_equals_twin_for_any_number_of_bits(
    seed: int, n_tables: int, n_bits: int, n_probes: int
) -> None:
    generator = np.random.default_rng(seed)
    dots = generator.standard_normal((n_tables, n_bits))
    dots[generator.random(dots.shape) < 0.2] = 0.25
    found = _order_of(probe_kernels, dots, n_probes)
    assert found == _order_of(probe_reference, dots, n_probes)
    assert len(set(found)) == len(found) == min(n_probes, n_tables << n_bits)


@pytest.mark.parametrize("d", [1, 7, 8, 9, 128])
def test_margins_have_the_canonical_bits(d: int) -> None:
    """Exponents far apart, so that another order of additions gives another float64."""
    generator = np.random.default_rng(d)
    planes, query = (
        (generator.standard_normal(shape) * 2.0 ** generator.integers(-30, 30, shape)).astype(
            np.float32
        )
        for shape in ((2, 5, d), (d,))
    )
    fast, slow = np.empty((2, 5)), np.empty((2, 5))
    probe_kernels.plane_dots(query, planes, fast)
    probe_reference.plane_dots(query, planes, slow)
    assert fast.tobytes() == slow.tobytes()
    assert fast[1].tobytes() == reference.canonical_dots(planes[1], query).tobytes()


def test_the_first_probes_are_the_own_buckets_of_all_tables() -> None:
    planes = native_hash.draw_hyperplanes(5, 9, 32, seed=4)
    for query in _random(5, 20, 32):
        own = native_hash.signatures(query, planes)[0].tolist()
        for engine in ENGINES:
            tables, probed = probe_order(query, planes, 5, engine=engine)
            assert tables.tolist() == [0, 1, 2, 3, 4]
            assert probed.tolist() == own
    on_every_plane = np.zeros(32, np.float32)
    tables, probed = probe_order(on_every_plane, planes, 7)
    assert tables.tolist()[:5] == [0, 1, 2, 3, 4]
    assert probed.tolist() == [0] * 5 + [1, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(1, 4), st.integers(1, 64),
    st.integers(1, 40),
)  # fmt: skip
def test_candidates_are_the_distinct_rows_of_the_probed_buckets(
    seed: int, n: int, n_tables: int, n_bits: int, n_probes: int
) -> None:
    vectors, query = _random(seed, n, 6), _random(seed + 1, 6)
    planes = native_hash.draw_hyperplanes(n_tables, n_bits, 6, seed=seed % 1000)
    codes = native_hash.signatures(vectors, planes)
    probes = list(zip(*probe_order(query, planes, n_probes), strict=True))
    expected = [row for row in range(n) if any(codes[row, table] == bits for table, bits in probes)]
    for engine in ENGINES:
        tables = Tables.build(codes, planes, engine=engine)
        found = tables.candidates(query, n_probes)
        assert found.dtype == np.int64
        assert found.tolist() == expected


def test_a_table_of_tables_is_the_bucket_table() -> None:
    vectors, planes = _random(7, 500, 24), native_hash.draw_hyperplanes(3, 6, 24, seed=8)
    codes = native_hash.signatures(vectors, planes)
    tables = Tables.build(codes, planes)
    for number in range(3):
        expected = native_hash.bucket_table(codes[:, number].copy(), 6)
        for name in ("keys", "starts", "rows"):
            assert np.array_equal(getattr(tables.table(number), name), getattr(expected, name)), (
                name
            )


def test_all_probes_of_one_table_are_all_rows() -> None:
    vectors, planes = _random(9, 333, 16), native_hash.draw_hyperplanes(1, 5, 16, seed=10)
    tables = Tables.build(native_hash.signatures(vectors, planes), planes)
    for n_probes in (2**5, 10**9):
        assert tables.candidates(vectors[0], n_probes).tolist() == list(range(333))


def test_recall_rises_with_probes() -> None:
    vectors, queries = native_hash.unit_rows(_random(11, 4000, 32)), _random(12, 60, 32)
    queries = native_hash.unit_rows(queries)
    planes = native_hash.draw_hyperplanes(2, 8, 32, seed=13)
    tables = Tables.build(native_hash.signatures(vectors, planes), planes)
    truth = native_hash.top_n(vectors, queries, 10)[0]
    recalls, before = [], [np.empty(0, np.int64)] * len(queries)
    for n_probes in (1, 2, 8, 32, 128, 512):
        found = [tables.candidates(query, n_probes) for query in queries]
        for more, less in zip(found, before, strict=True):
            assert np.isin(less, more).all()
        recalls.append(
            np.mean([np.isin(rows, near).mean() for rows, near in zip(truth, found, strict=True)])
        )
        before = found
    assert all(later > sooner for sooner, later in itertools.pairwise(recalls))
    assert recalls[0] < 0.3
    assert recalls[-1] == 1


def test_cheap_probes_find_more_than_as_many_random_buckets() -> None:
    """The order has a purpose: the first eight of 256 buckets hold most neighbors."""
    vectors, queries = native_hash.unit_rows(_random(14, 4000, 16)), _random(15, 60, 16)
    planes = native_hash.draw_hyperplanes(1, 8, 16, seed=16)
    codes = native_hash.signatures(vectors, planes)
    tables = Tables.build(codes, planes)
    truth = native_hash.top_n(vectors, native_hash.unit_rows(queries), 10)[0]
    directed, random = [], []
    generator = np.random.default_rng(17)
    for query, rows in zip(queries, truth, strict=True):
        own = native_hash.signatures(query, planes)[0, 0]
        others = generator.choice(256, 8, replace=False).astype(np.uint64)
        others[0] = own
        directed.append(np.isin(rows, tables.candidates(query, 8)).mean())
        random.append(np.isin(codes[rows, 0], others).mean())
    assert np.mean(directed) > 2 * np.mean(random)


def _paper_answer(database: np.ndarray, planes: np.ndarray, query: np.ndarray, n: int) -> list[int]:
    """Chen et al. 2025, eqs. 6 to 10, as written: hash, own bucket, cosine, N best."""

    def h(x: np.ndarray) -> tuple[int, ...]:
        return tuple(1 if float(w @ x) > 0 else 0 for w in planes)  # eqs. 6 and 7

    bucket = [row for row, x in enumerate(database) if h(x) == h(query)]
    cosine = {
        row: float(query @ database[row])
        / float(np.linalg.norm(query) * np.linalg.norm(database[row]))  # eqs. 8 and 9
        for row in bucket
    }
    return sorted(bucket, key=lambda row: (-np.float32(cosine[row]), row))[:n]  # eq. 10


@pytest.mark.parametrize("engine", ENGINES)
def test_preset_is_the_paper(engine: native_hash.Engine) -> None:
    database = native_hash.unit_rows(_random(18, 400, 128))
    queries = native_hash.unit_rows(_random(19, 25, 128))
    planes = native_hash.draw_hyperplanes(1, 3, 128, seed=20)
    codes = native_hash.signatures(database, planes, engine=engine)
    tables = Tables.build(codes, planes, engine=engine)
    wide = database.astype(np.float64)
    for query in queries:
        candidates = tables.candidates(query, 1)
        rows, _, _ = native_hash.top_n(database, query, 10, candidates=candidates, engine=engine)
        expected = _paper_answer(wide, planes[0].astype(np.float64), query.astype(np.float64), 10)
        assert rows[0].tolist() == expected


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"n_probes": 0}, ValueError),
        ({"query": np.ones(7, np.float32)}, ValueError),
        ({"query": np.ones(8)}, TypeError),
        ({"query": np.full(8, np.nan, np.float32)}, ValueError),
        ({"query": np.full(8, np.inf, np.float32)}, ValueError),
        ({"hyperplanes": np.ones((1, 65, 8), np.float32)}, ValueError),
        ({"hyperplanes": np.full((1, 3, 8), np.nan, np.float32)}, ValueError),
        ({"engine": "gpu"}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, object], error: type[Exception]) -> None:
    arguments = {
        "query": np.ones(8, np.float32), "hyperplanes": np.ones((1, 3, 8), np.float32),
        "n_probes": 1, "engine": "numba",
    }  # fmt: skip
    probe_order(**arguments)
    with pytest.raises(error):
        probe_order(**(arguments | change))


def test_signatures_of_other_tables_are_refused() -> None:
    planes = native_hash.draw_hyperplanes(2, 3, 8, seed=0)
    with pytest.raises(ValueError, match="of 1 tables, hyperplanes of 2"):
        Tables.build(np.zeros((4, 1), np.uint64), planes)
    with pytest.raises(ValueError, match="beyond"):
        Tables.build(np.full((4, 2), 8, np.uint64), planes)


def test_every_kernel_has_a_twin() -> None:
    for name in ("plane_dots", "probe_order", "mark_rows", "marked_rows"):
        assert callable(getattr(probe_kernels, name))
        assert callable(getattr(probe_reference, name))
