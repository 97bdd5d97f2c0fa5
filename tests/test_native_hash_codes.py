"""Certified exact search: the answer is that of comparing with every row, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native_hash import Codes, NeighborHeap, build_codes, checked_rows
from tests.search_factory import (
    HARD_KINDS,
    adversarial,
    adversarial_set,
    brute_force,
    by_codes,
    clustered,
    expected_answers,
    hard_set,
    in_float64,
    uniform,
    with_tree,
    with_unmeasured_tree,
)


@pytest.mark.parametrize("kind", ["clustered", "uniform"])
@pytest.mark.parametrize(("n", "d"), [(3000, 128), (2500, 37), (300, 8), (5, 3)])
def test_the_answer_is_the_brute_force_answer(kind: str, n: int, d: int) -> None:
    generator = np.random.default_rng(n + d)
    vectors = adversarial_set(generator, kind, n, d) if n >= 300 else uniform(generator, n, d)
    rows = checked_rows(vectors)
    queries = adversarial(generator, vectors, 6)
    excluded = generator.random(n) < 0.4
    for arrays in (build_codes(rows), with_tree(rows), with_tree(rows, 31)):
        codes = Codes.from_arrays(rows, arrays)
        for n_answers in (1, 10, 100):
            for mask in (None, excluded):
                expected = brute_force(vectors, queries, n_answers, mask)
                found = by_codes(rows, codes, queries, n_answers, mask)
                np.testing.assert_array_equal(found[0], expected[0])
                np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clustered", "uniform"])
@pytest.mark.parametrize("d", [128, 512])
def test_twenty_thousand_adversarial_queries(kind: str, d: int) -> None:
    generator = np.random.default_rng(5)
    vectors = adversarial_set(generator, kind, 20_000, d)
    rows = checked_rows(vectors)
    both = [Codes.from_arrays(rows, arrays) for arrays in (build_codes(rows), with_tree(rows))]
    queries = adversarial(generator, vectors, 1112)
    assert len(queries) >= 10_000
    expected = in_float64(vectors, queries, 100)
    for n_answers in (1, 10, 100):  # a shorter answer is the beginning of a longer one
        for codes in both:
            found = by_codes(rows, codes, queries, n_answers)
            np.testing.assert_array_equal(found[0], expected[0][:, :n_answers])
            np.testing.assert_array_equal(found[1], expected[1][:, :n_answers])
    print(f"{kind}, d = {d}: {len(queries)} queries, N = 1, 10, 100: equal")


def _check_hard_set(kind: str, n: int, d: int, n_each: int, n_single: int) -> int:
    """Batches and single queries, N = 1, 10, 100, without a filter and with few rows left."""
    generator = np.random.default_rng(n + d)
    vectors = hard_set(generator, kind, n, d)
    rows = checked_rows(vectors)
    queries = adversarial(generator, vectors, n_each)
    few, half = np.ones(n, np.bool_), generator.random(n) < 0.5
    few[generator.choice(n, 7, replace=False)] = False
    built = [build_codes(rows), *(with_unmeasured_tree(rows, min(k, d)) for k in (15, 63))]
    codes = [Codes.from_arrays(rows, arrays) for arrays in built]
    for mask in (None, half, few):
        expected = expected_answers(vectors, queries, 100, mask)
        for one in codes:
            for n_answers in (1, 10, 100):
                found = by_codes(rows, one, queries, n_answers, mask)
                np.testing.assert_array_equal(found[0], expected[0][:, :n_answers])
                np.testing.assert_array_equal(found[1], expected[1][:, :n_answers])
                for number in range(0, len(queries), max(1, len(queries) // n_single)):
                    single = by_codes(rows, one, queries[number], n_answers, mask)
                    np.testing.assert_array_equal(single[0][0], found[0][number])
                    np.testing.assert_array_equal(single[1][0], found[1][number])
    return len(queries)


@pytest.mark.parametrize("kind", HARD_KINDS)
@pytest.mark.parametrize(("n", "d"), [(2100, 512), (2500, 24)])
def test_data_between_clustered_and_uniform_and_beyond(kind: str, n: int, d: int) -> None:
    _check_hard_set(kind, n, d, 2, 9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", HARD_KINDS)
@pytest.mark.parametrize("d", [128, 512])
def test_data_between_clustered_and_uniform_and_beyond_at_length(kind: str, d: int) -> None:
    n_queries = _check_hard_set(kind, 20_000, d, 120, 100)
    print(f"{kind}, d = {d}: {n_queries} queries, N = 1, 10, 100, three filters: equal")


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 400), d=st.integers(1, 40), n_answers=st.integers(1, 30),
    scale=st.sampled_from([1.0, 1e-3, 50.0, 1e-30, 1e-42, 1e15]),
    n_axes=st.sampled_from([0, 1, 7, 15]),
    query_scale=st.sampled_from([1.0, 1e3, 1e-10, 1e-24, 1e-42, 0.0]),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_matrix_and_any_norms(
    n: int, d: int, n_answers: int, scale: float, n_axes: int, query_scale: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    vectors = (scale * generator.standard_normal((n, d))).astype(np.float32)
    vectors[generator.random(n) < 0.2] = vectors[0]
    queries = (query_scale * generator.standard_normal((3, d))).astype(np.float32)
    queries[2] = vectors[0]
    vectors[generator.random(n) < 0.2] *= np.float32(0.01)
    rows = checked_rows(vectors)
    has_tree = n_axes > 0 and 2.0**-60 <= rows.max_norm <= 2.0**60
    arrays = with_tree(rows, n_axes) if has_tree else build_codes(rows)
    found = by_codes(rows, Codes.from_arrays(rows, arrays), queries, n_answers)
    expected = brute_force(vectors, queries, n_answers)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_more_survivors_than_room_are_settled_in_between() -> None:
    generator = np.random.default_rng(0)
    vectors = np.repeat(uniform(generator, 3, 16), 4000, axis=0)
    rows = checked_rows(vectors)
    for arrays in (build_codes(rows), with_tree(rows)):
        found = by_codes(rows, Codes.from_arrays(rows, arrays), vectors[:1], 5)
        np.testing.assert_array_equal(found[0], [[0, 1, 2, 3, 4]])


def test_several_matrices_share_one_heap() -> None:
    generator = np.random.default_rng(1)
    parts = [clustered(generator, n, 32) for n in (3000, 300, 2200)]
    queries = adversarial(generator, parts[0], 5)
    heap, first = NeighborHeap(queries, 10), 0
    for part in parts:
        rows = checked_rows(part)
        heap.offer(rows, codes=Codes.from_arrays(rows, build_codes(rows)), first_row=first)
        first += len(part)
    np.testing.assert_array_equal(
        heap.result()[0], brute_force(np.concatenate(parts), queries, 10)[0]
    )


def test_one_query_a_batch_and_many_threads_give_the_same_bits() -> None:
    generator = np.random.default_rng(2)
    vectors = clustered(generator, 6000, 64)
    rows = checked_rows(vectors)
    codes = Codes.from_arrays(rows, build_codes(rows))
    queries = adversarial(generator, vectors, 10)
    batch = by_codes(rows, codes, queries, 10)
    with ThreadPoolExecutor(8) as pool:
        single = list(pool.map(lambda query: by_codes(rows, codes, query, 10), queries))
    np.testing.assert_array_equal(np.concatenate([a[0] for a in single]), batch[0])
    np.testing.assert_array_equal(np.concatenate([a[1] for a in single]), batch[1])


PORTABLE = """
import sys
import numpy as np
from native_hash import *
vectors = np.load(sys.argv[1])
rows = checked_rows(vectors)
codes = Codes.from_arrays(rows, build_codes(rows))
assert codes.tree is not None
heap = NeighborHeap(vectors[::50] + vectors[1::50], 10)
heap.offer(rows, codes=codes)
found = heap.result()
with np.load(sys.argv[3]) as stored:
    codes = Codes.from_arrays(rows, dict(stored))
heap = NeighborHeap(vectors[::50] + vectors[1::50], 10)
heap.offer(rows, codes=codes, depth=0.1)
fast = heap.result()
np.savez(
    sys.argv[2], rows=found[0], scores=found[1], fast=fast[0], n_read=fast[2]
)
"""


@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3"])
def test_older_processors_give_the_same_answers(tmp_path: Path, processor: str) -> None:
    if "x86" not in os.uname().machine:
        pytest.skip("names x86 processors")
    vectors = clustered(np.random.default_rng(8), 3000, 48)
    np.save(tmp_path / "vectors.npy", vectors)
    rows = checked_rows(vectors)
    arrays = build_codes(rows)
    np.savez(tmp_path / "codes.npz", **arrays)
    environment = {
        **os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }  # fmt: skip
    subprocess.run(
        [
            sys.executable, "-c", PORTABLE,
            *(tmp_path / name for name in ("vectors.npy", "found.npz", "codes.npz")),
        ],
        env=environment, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    expected = brute_force(vectors, vectors[::50] + vectors[1::50], 10)
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_array_equal(found["rows"], expected[0])
        np.testing.assert_array_equal(found["scores"], expected[1])
        heap = NeighborHeap(vectors[::50] + vectors[1::50], 10)
        heap.offer(rows, codes=Codes.from_arrays(rows, arrays), depth=0.1)
        fast = heap.result()
        np.testing.assert_array_equal(found["fast"], fast[0])
        np.testing.assert_array_equal(found["n_read"], fast[2])


def test_a_query_of_nothing_is_answered_by_row_number() -> None:
    generator = np.random.default_rng(9)
    vectors = clustered(generator, 3000, 16)
    rows = checked_rows(vectors)
    codes = Codes.from_arrays(rows, build_codes(rows))
    assert codes.tree is not None
    zero = np.zeros((1, 16), np.float32)
    np.testing.assert_array_equal(by_codes(rows, codes, zero, 4)[0], [[0, 1, 2, 3]])
