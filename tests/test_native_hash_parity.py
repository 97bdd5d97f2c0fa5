"""Kernels against their numpy twins, and both against the obvious definition."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import native_hash
from native_hash import kernels, reference

# Sums of products of these are exact in float64: brute force in fractions must agree.
SMALL = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 2.0**-12, -(2.0**-11)])


def _random(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def _definition(matrix: np.ndarray, query: np.ndarray, n: int) -> list[tuple[int, float]]:
    """Brute force in rational arithmetic: no rounding until the score becomes float32."""
    scored = []
    for row, vector in enumerate(matrix):
        exact = sum(
            (Fraction(float(a)) * Fraction(float(b)) for a, b in zip(vector, query, strict=True)),
            Fraction(0),
        )
        scored.append((-np.float32(float(exact)), row))
    return [(row, -score) for score, row in sorted(scored)[:n]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 40),
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 64),
)
def test_signature_bits_equal_twin(seed: int, n: int, d: int, n_tables: int, k: int) -> None:
    vectors = _random(seed, n, d)
    planes = native_hash.draw_hyperplanes(n_tables, k, d, seed=seed % 1000)
    fast = native_hash.signatures(vectors, planes)
    assert np.array_equal(fast, native_hash.signatures(vectors, planes, engine="numpy"))
    assert fast.shape == (n, n_tables)
    for row in range(min(n, 3)):
        assert np.array_equal(native_hash.signatures(vectors[row], planes)[0], fast[row])


def test_signature_is_equations_6_and_7() -> None:
    vectors, planes = _random(1, 500, 128), native_hash.draw_hyperplanes(2, 64, 128, seed=3)
    bits = native_hash.signatures(vectors, planes)
    for table in range(2):
        h = vectors.astype(np.float64) @ planes[table].astype(np.float64).T > 0
        expected = [sum(int(bit) << i for i, bit in enumerate(row)) for row in h]
        assert bits[:, table].tolist() == expected


def test_vector_on_a_hyperplane_has_bit_zero() -> None:
    planes = np.array([[[1, 1, 0], [1, -1, 0], [0, 0, 1]]], np.float32)
    vectors = np.array([[1, 1, 0], [0, 0, 0], [-1, -1, 1], [1, 0, -0.0]], np.float32)
    for engine in ("numba", "numpy"):
        bits = native_hash.signatures(vectors, planes, engine=engine)[:, 0]
        assert bits.tolist() == [0b001, 0, 0b100, 0b011]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(1, 64))
def test_buckets_equal_twin_and_partition_the_rows(seed: int, n: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    few = generator.integers(0, 2**k, size=7, dtype=np.uint64, endpoint=False)
    signatures = few[generator.integers(0, 7, n)]
    fast = native_hash.bucket_table(signatures, k)
    slow = native_hash.bucket_table(signatures, k, engine="numpy")
    for name in ("keys", "starts", "rows"):
        assert np.array_equal(getattr(fast, name), getattr(slow, name)), name
    for key in few:
        assert np.array_equal(fast.rows_of(key), np.flatnonzero(signatures == key))
    assert fast.rows_of(np.uint64(few.max()) ^ np.uint64(1)).size in (0, *np.diff(fast.starts))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_top_n_is_the_definition(data: st.DataObject) -> None:
    n, d = data.draw(st.integers(0, 12)), data.draw(st.integers(1, 19))
    values = data.draw(st.lists(SMALL, min_size=(n + 1) * d, max_size=(n + 1) * d))
    both = np.array(values, np.float32).reshape(n + 1, d)
    matrix, query = np.ascontiguousarray(both[:n]), both[n].copy()
    top_n = data.draw(st.integers(1, 15))
    expected = _definition(matrix, query, top_n)
    for engine in ("numba", "numpy"):
        rows, scores, n_scored = native_hash.top_n(matrix, query, top_n, engine=engine)
        found = list(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
        assert found[: len(expected)] == [(row, float(score)) for row, score in expected]
        assert found[len(expected) :] == [(-1, -np.inf)] * (top_n - len(expected))
        assert n_scored.tolist() == [n]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 400), st.sampled_from([1, 7, 8, 33, 128]),
    st.integers(1, 60),
)  # fmt: skip
def test_near_ties_duplicates_and_filter_equal_twin(seed: int, n: int, d: int, top_n: int) -> None:
    """Copies, negated copies and 1-ulp neighbors of few vectors: float32 sums cannot order them."""
    generator = np.random.default_rng(seed)
    base = native_hash.unit_rows(generator.standard_normal((4, d)).astype(np.float32))
    matrix = base[generator.integers(0, 4, n)]
    step = generator.integers(-1, 2, (n, d)).astype(np.float32)
    matrix = np.nextafter(matrix, matrix + step).astype(np.float32)
    matrix[generator.random(n) < 0.1] *= -1
    matrix[generator.random(n) < 0.05] = 0
    queries = np.concatenate([base, matrix[:3]])
    excluded = generator.random(n) < 0.3
    candidates = generator.permutation(n)[: n // 2].astype(np.int64)
    for options in (
        {}, {"excluded": excluded}, {"candidates": candidates},
        {"candidates": candidates, "excluded": excluded},
    ):  # fmt: skip
        fast = native_hash.top_n(matrix, queries, top_n, **options)
        slow = native_hash.top_n(matrix, queries, top_n, engine="numpy", **options)
        for left, right in zip(fast, slow, strict=True):
            assert left.tobytes() == right.tobytes()
        assert not np.isin(fast[0], np.flatnonzero(excluded)).any() or "excluded" not in options


def test_same_bits_for_one_query_a_batch_two_matrices_and_any_order() -> None:
    matrix = native_hash.unit_rows(_random(5, 1000, 128))
    matrix[500:] = matrix[:500]  # every score comes twice
    queries = native_hash.unit_rows(_random(6, 40, 128))
    rows, scores, _ = native_hash.top_n(matrix, queries, 10)
    for i, query in enumerate(queries):
        one = native_hash.top_n(matrix, query, 10)
        assert one[0].tobytes() == rows[i].tobytes()
        assert one[1].tobytes() == scores[i].tobytes()
    heap = native_hash.NeighborHeap(queries, 10)
    heap.offer(native_hash.checked_rows(matrix[700:].copy()), first_row=700)
    heap.offer(native_hash.checked_rows(matrix[:700].copy()))
    split = heap.result()
    assert split[0].tobytes() == rows.tobytes()
    assert split[1].tobytes() == scores.tobytes()
    shuffled = np.random.default_rng(7).permutation(1000).astype(np.int64)
    assert (
        native_hash.top_n(matrix, queries, 10, candidates=shuffled)[0].tobytes() == rows.tobytes()
    )
    assert (rows[:, 0::2] + 500 == rows[:, 1::2]).all()  # of equal scores the lower row first


def test_top_n_is_a_prefix_of_a_longer_answer() -> None:
    matrix, queries = _random(8, 300, 24), _random(9, 5, 24)
    longer = native_hash.top_n(matrix, queries, 31)
    for n in (1, 2, 10, 30):
        shorter = native_hash.top_n(matrix, queries, n)
        assert np.array_equal(shorter[0], longer[0][:, :n])
        assert np.array_equal(shorter[1], longer[1][:, :n])


def test_large_and_tiny_values_keep_the_rounding_bound() -> None:
    """Cancellation: float32 sums lose the answer, the canonical score must not."""
    generator = np.random.default_rng(10)
    matrix = (generator.standard_normal((400, 65)) * 1e12).astype(np.float32)
    matrix[:, 1] = -matrix[:, 0]
    queries = np.ones((3, 65), np.float32)
    queries[1] *= 1e-25
    queries[2, 2:] = 1e-6
    fast = native_hash.top_n(matrix, queries, 20)
    slow = native_hash.top_n(matrix, queries, 20, engine="numpy")
    assert [a.tobytes() for a in fast] == [a.tobytes() for a in slow]


def test_canonical_dot_has_one_order_of_additions() -> None:
    """Exponents far apart, so that another order gives another float64."""
    generator = np.random.default_rng(12)
    for d in (1, 7, 8, 9, 31, 128):
        vectors = generator.standard_normal((50, d)) * 2.0 ** generator.integers(-30, 30, (50, d))
        vectors = vectors.astype(np.float32)
        fast = [kernels.canonical_dot(vectors, row, vectors, 7) for row in range(50)]
        assert fast == reference.canonical_dots(vectors, vectors[7]).tolist()


def test_zero_rows_score_zero() -> None:
    matrix = np.zeros((3, 8), np.float32)
    rows, scores, _ = native_hash.top_n(matrix, np.ones(8, np.float32), 2)
    assert rows.tolist() == [[0, 1]]
    assert scores.tolist() == [[0.0, 0.0]]
    assert native_hash.unit_rows(matrix).tolist() == matrix.tolist()


def test_read_only_memory_map_is_searched(tmp_path) -> None:
    matrix = _random(11, 50, 16)
    matrix.tofile(tmp_path / "matrix")
    mapped = np.memmap(tmp_path / "matrix", np.float32, "r", shape=(50, 16))
    assert np.array_equal(
        native_hash.top_n(mapped, matrix[3], 4)[0], native_hash.top_n(matrix, matrix[3], 4)[0]
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    vectors = np.ones((4, 8), np.float32)
    damaged = vectors.copy()
    damaged[2, 5] = bad
    for call in (
        lambda: native_hash.top_n(damaged, vectors, 1),
        lambda: native_hash.top_n(vectors, damaged, 1),
        lambda: native_hash.signatures(damaged, vectors[np.newaxis]),
        lambda: native_hash.signatures(vectors, damaged[np.newaxis]),
    ):
        with pytest.raises(ValueError, match="not finite"):
            call()


def test_wrong_arguments_are_refused() -> None:
    vectors = np.ones((4, 8), np.float32)
    rows = native_hash.checked_rows(vectors)
    for call, error in (
        (lambda: native_hash.top_n(vectors.astype(np.float64), vectors, 1), TypeError),
        (lambda: native_hash.top_n(vectors[:, ::2], vectors[:, :4].copy(), 1), ValueError),
        (lambda: native_hash.top_n(vectors, vectors[:, :4].copy(), 1), ValueError),
        (lambda: native_hash.top_n(vectors, vectors, 0), ValueError),
        (lambda: native_hash.top_n(rows, vectors, 1, engine="gpu"), ValueError),  # type: ignore[arg-type]
        (lambda: native_hash.top_n(rows, vectors, 1, candidates=np.array([4])), ValueError),
        (lambda: native_hash.top_n(rows, vectors, 1, candidates=np.array([-1])), ValueError),
        (lambda: native_hash.top_n(rows, vectors, 1, excluded=np.zeros(3, bool)), ValueError),
        (lambda: native_hash.top_n(rows, vectors, 1, excluded=np.zeros(4, np.uint8)), TypeError),
        (lambda: native_hash.checked_rows(np.full((1, 8), 1e30, np.float32)), ValueError),
        (lambda: native_hash.draw_hyperplanes(1, 65, 8, seed=0), ValueError),
        (lambda: native_hash.bucket_table(np.array([8], np.uint64), 3), ValueError),
    ):
        with pytest.raises(error):
            call()


def test_every_kernel_has_a_twin() -> None:
    shared = {"sign_bits", "sort_by_signature", "mark_buckets", "scan", "scan_candidates"}
    for name in shared:
        assert callable(getattr(kernels, name))
        assert callable(getattr(reference, name))
