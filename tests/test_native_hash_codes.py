"""Certified exact search: the answer is that of comparing with every row, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native_hash import (
    CheckedRows,
    Codes,
    NeighborHeap,
    build_codes,
    checked_rows,
    code_reference,
    reference,
    tree_reference,
    unit_rows,
)
from native_hash.code_layout import BLOCK_ROWS, level_sizes, padded_dimension, query_code_limit
from native_hash.codes import codes_problems, codes_with_tree
from native_hash.tree import build_order

Float32 = npt.NDArray[np.float32]
Answer = tuple[npt.NDArray[np.int64], Float32, npt.NDArray[np.int64]]


def clustered(generator: np.random.Generator, n: int, d: int, n_clusters: int = 20) -> Float32:
    centers = generator.standard_normal((n_clusters, d))
    return unit_rows(
        centers[generator.integers(0, n_clusters, n)] + 0.15 * generator.standard_normal((n, d))
    )


def uniform(generator: np.random.Generator, n: int, d: int) -> Float32:
    return unit_rows(generator.standard_normal((n, d)))


def with_tree(rows: CheckedRows, n_axes: int = 15) -> dict[str, npt.NDArray[Any]]:
    return codes_with_tree(rows, n_axes, np.random.default_rng(0))


def by_codes(
    rows: CheckedRows, codes: Codes, queries: Float32, n: int, excluded: Any = None
) -> Answer:
    heap = NeighborHeap(queries, n)
    heap.offer(rows, codes=codes, excluded=excluded)
    return heap.result()


def brute_force(
    vectors: Float32, queries: Float32, n: int, excluded: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.int64], Float32]:
    """Every row in float64, ordered by score, then row: nothing of native_hash's search."""
    answers = np.full((len(queries), n), -1, np.int64)
    scores = np.full((len(queries), n), -np.inf, np.float32)
    for i, query in enumerate(queries):
        exact = reference.canonical_dots(vectors, query).astype(np.float32)
        left = np.arange(len(vectors)) if excluded is None else np.flatnonzero(~excluded)
        best = left[np.lexsort((left, -exact[left]))][:n]
        answers[i, : best.size], scores[i, : best.size] = best, exact[best]
    return answers, scores


def in_float64(vectors: Float32, queries: Float32, n: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """As :func:`brute_force`: a product in float64 finds the rows worth a canonical dot."""
    answers = np.empty((len(queries), n), np.int64)
    scores = np.empty((len(queries), n), np.float32)
    wide = vectors.astype(np.float64)
    for start in range(0, len(queries), 256):
        part = queries[start : start + 256]
        products = part.astype(np.float64) @ wide.T
        least = np.partition(products, -n, axis=1)[:, -n] - 1e-6  # float32 rounding and ties
        for i, query in enumerate(part):
            rows = np.flatnonzero(products[i] >= least[i])
            exact = reference.canonical_dots(vectors[rows], query).astype(np.float32)
            best = np.lexsort((rows, -exact))[:n]
            answers[start + i], scores[start + i] = rows[best], exact[best]
    return answers, scores


def adversarial(generator: np.random.Generator, vectors: Float32, n_each: int) -> Float32:
    """Queries meant to break bounds: rows, near rows, opposites, means, axes, codes' own grid."""
    rows = vectors[generator.integers(0, len(vectors), n_each)]
    others = vectors[generator.integers(0, len(vectors), n_each)]
    d = vectors.shape[1]
    noise = generator.standard_normal(rows.shape)
    grid = np.rint(rows * 127 / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-9))
    axes = np.eye(d)[generator.integers(0, d, n_each)]
    return unit_rows(
        np.concatenate(
            [rows, rows + 1e-4 * noise, rows + 1e-7 * noise, -rows, rows + others, rows - others,
             noise, grid, axes]
        )
    )  # fmt: skip


def adversarial_set(generator: np.random.Generator, kind: str, n: int, d: int) -> Float32:
    """Rows with duplicates, near duplicates, opposites and a zero row among them."""
    vectors = (clustered if kind == "clustered" else uniform)(generator, n, d)
    vectors[n // 4 : n // 4 + 60] = vectors[:60]
    vectors[n // 2 : n // 2 + 60] = unit_rows(
        vectors[:60] + 1e-4 * generator.standard_normal((60, d))
    )
    vectors[-60:] = -vectors[:60]
    vectors[7] = 0
    return vectors


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
def test_twenty_thousand_adversarial_queries(kind: str) -> None:
    generator = np.random.default_rng(5)
    vectors = adversarial_set(generator, kind, 20_000, 128)
    rows = checked_rows(vectors)
    both = [Codes.from_arrays(rows, arrays) for arrays in (build_codes(rows), with_tree(rows))]
    queries = adversarial(generator, vectors, 1112)
    assert len(queries) >= 10_000
    for n_answers in (1, 10, 100):
        expected = in_float64(vectors, queries, n_answers)
        for codes in both:
            found = by_codes(rows, codes, queries, n_answers)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])
    print(f"{kind}: {len(queries)} queries, N = 1, 10, 100: equal")


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


def test_a_tree_is_kept_only_where_it_prunes() -> None:
    generator = np.random.default_rng(3)
    for vectors, has_tree in (
        (clustered(generator, 6000, 64), True),
        (uniform(generator, 6000, 64), False),
        (clustered(generator, 500, 64), False),
    ):
        rows = checked_rows(vectors)
        codes = Codes.from_arrays(rows, build_codes(rows))
        assert (codes.tree is not None) == has_tree
        n_read = by_codes(rows, codes, vectors[:200], 10)[2]
        assert (n_read.mean() < 0.5 * len(vectors)) == has_tree


def test_heads_and_balls_bound_every_score() -> None:
    """In float64: no row surpasses its own bound, nor that of a ball that it lies in."""
    generator = np.random.default_rng(10)
    n = 5000  # three levels
    vectors = adversarial_set(generator, "clustered", n, 40)
    vectors[::7] *= np.float32(0.2)
    rows = checked_rows(vectors)
    codes = Codes.from_arrays(rows, with_tree(rows))
    assert codes.tree is not None
    assert len(level_sizes(n)) == 3
    ordered = vectors[codes.rows].astype(np.float64)
    blocks = np.cumsum([0, *(-(-entries // BLOCK_ROWS) for entries in level_sizes(n)[1:])])
    for query in 3 * adversarial(generator, vectors, 4):
        scores = ordered @ query.astype(np.float64)
        for cutoff in (scores.max(), np.quantile(scores, 0.9), -1.0):
            of_rows, of_balls = tree_reference.upper_bounds(codes.tree, query, cutoff)
            reaching = np.flatnonzero(scores >= cutoff)
            assert (of_rows[reaching] >= cutoff).all()
            for level, first in enumerate(blocks[:-1], 1):
                balls = first * BLOCK_ROWS + reaching // BLOCK_ROWS**level
                assert (of_balls[balls] >= cutoff).all()


def test_heads_and_masks_are_those_of_the_definition() -> None:
    from native_hash import tree_kernels
    from native_hash.block_hits import ball_hits, head_hits, lowest_bit, row_dot
    from native_hash.jit import ORDERED, kernel

    @kernel(ORDERED)
    def masks(
        heads: Any, query: Any, radii: Any, shifts: Any, step: Any, reach: Any, least: Any, out: Any
    ) -> Any:
        return (
            head_hits(heads, 1, query, step, least),
            ball_hits(heads, 1, query, radii, shifts, step, reach, least, out),
        )

    @kernel(ORDERED)
    def dot(codes: Any, row: int, query: Any) -> Any:
        return row_dot(codes, row, query)

    @kernel(ORDERED)
    def lowest(mask: Any) -> Any:
        return lowest_bit(np.int32(mask))

    generator = np.random.default_rng(11)
    vectors = clustered(generator, 300, 70)
    rows = checked_rows(vectors)
    codes = Codes.from_arrays(rows, with_tree(rows))
    assert codes.tree is not None
    heads, axes = codes.tree.heads, codes.tree.axes
    query = unit_rows(generator.standard_normal((1, 70)))
    for depth in (1.0, 0.3):
        expected, norm = tree_reference.encode_head(query[0], axes, depth)
        found = np.empty(16, np.int16)
        found_norm = tree_kernels.encode_head(query, axes, depth, np.empty(16), found)
        np.testing.assert_array_equal(found, expected)
        assert found_norm == pytest.approx(norm, rel=1e-12)
    entries = heads.transpose(0, 2, 1, 3).reshape(-1, 16).astype(np.int64)[16:32]
    step = np.float32(1e-9)
    values = (entries @ found.astype(np.int64)).astype(np.float32) * step
    radii = generator.random(32).astype(np.float32)
    shifts, reach, least = -radii[::-1].copy(), np.float32(0.3), np.float32(np.median(values))
    out = np.empty(16, np.float32)
    of_rows, of_balls = masks(heads, found, radii, shifts, step, reach, least, out)
    bits = 1 << np.arange(16)
    assert of_rows == bits[values >= least].sum()
    np.testing.assert_array_equal(out, values + shifts[16:])
    assert of_balls == bits[out + reach * radii[16:] >= least].sum()
    wide = generator.integers(-127, 128, (3, 128)).astype(np.int8)
    narrow = generator.integers(-32_000, 32_001, 128).astype(np.int16)
    for row in range(3):
        assert dot(wide, row, narrow) == int(wide[row].astype(np.int64) @ narrow.astype(np.int64))
    for mask in (1, 40, 1 << 15):
        assert lowest(mask) == (mask & -mask).bit_length() - 1


def test_an_order_is_a_permutation_and_makes_small_balls() -> None:
    generator = np.random.default_rng(12)
    for heads in (
        clustered(generator, 3000, 12),
        np.repeat(uniform(generator, 2, 5), 40, axis=0),  # more equal rows than a ball holds
        uniform(generator, 33, 3),
    ):
        order = build_order(heads)
        np.testing.assert_array_equal(np.sort(order), np.arange(len(heads)))
        whole = len(heads) // 16 * 16
        spreads = [
            float(
                heads[rows[:whole]].reshape(-1, 16, heads.shape[1]).var(axis=1).sum(axis=1).mean()
            )
            for rows in (order, np.arange(len(heads))[generator.permutation(len(heads))])
        ]
        assert spreads[0] < 0.7 * spreads[1]


def test_lesser_depths_read_less_and_keep_the_recall_they_measured() -> None:
    generator = np.random.default_rng(13)
    centers = generator.standard_normal((40, 64))
    axes = generator.standard_normal((6, 64))

    def draw(n: int) -> Float32:
        along = generator.standard_normal((n, 6)) @ axes
        noise = generator.standard_normal((n, 64))
        return unit_rows(centers[generator.integers(0, 40, n)] + 0.3 * along + 0.5 * noise)

    vectors, queries = draw(8000), draw(300)
    rows = checked_rows(vectors)
    codes = Codes.from_arrays(rows, with_tree(rows, 31))
    tree = codes.tree
    assert tree is not None
    exact = by_codes(rows, codes, queries, 10)
    for recall in (0.95, 0.99):
        setting = tree.setting(10, recall)
        assert setting is not None
        assert setting.measured_recall >= recall
        assert setting.depth < 1
        heap = NeighborHeap(queries, 10)
        heap.offer(rows, codes=codes, depth=setting.depth)
        found = heap.result()
        assert (found[1] >= exact[1][:, -1:]).mean() >= recall
        assert found[2].mean() < exact[2].mean()
    heap = NeighborHeap(queries, 10)
    heap.offer(rows, codes=codes, depth=0.0)
    assert (heap.result()[1] >= exact[1][:, -1:]).mean() < 1
    assert tree.setting(101, 0.9) is None
    assert tree.setting(10, 1.0) is None
    assert tree.setting(10, 0.5) == tree.setting(10, 0.95)
    with_filter = tree.setting(10, 0.95, n_excluded=1)
    assert with_filter is not None
    assert with_filter.depth >= max(tree.setting(n, 0.99).depth for n in (1, 10, 100))
    steps = tree.ladder[tree.ladder[:, :, 2] >= 0]
    assert len(steps)
    assert (steps[:, 1] >= steps[:, 2]).all()


def test_codes_of_the_first_version_are_read_from_end_to_end() -> None:
    """They had buckets; their codes are good, in whatever order they stand."""
    generator = np.random.default_rng(14)
    rows = checked_rows(clustered(generator, 400, 24))
    old = build_codes(rows)
    old |= {
        "centers": np.zeros((1, 24), np.float32),
        "cosines": np.zeros(1, np.float32),
        "block_cosines": np.zeros((25, 2), np.float32),
        "starts": np.array([0, 25], np.int32),
    }
    assert codes_problems(rows, old) == []
    queries = adversarial(generator, rows.values, 3)
    found = by_codes(rows, Codes.from_arrays(rows, old), queries, 10)
    np.testing.assert_array_equal(found[0], brute_force(rows.values, queries, 10)[0])


def test_codes_are_those_of_the_definition() -> None:
    from native_hash import code_kernels
    from native_hash.block_hits import block_hits
    from native_hash.jit import SCAN_FASTMATH, kernel

    @kernel(SCAN_FASTMATH)
    def one_block(
        codes: Any,
        block: int,
        query: Any,
        scales: Any,
        errors: Any,
        scale: Any,
        cutoff: Any,
        out: Any,
    ) -> Any:
        return block_hits(codes, block, query, scales, errors, scale, np.float32(0.5), cutoff, out)

    generator = np.random.default_rng(4)
    for d in (1, 7, 128, 513):
        vectors = generator.standard_normal((40, d)).astype(np.float32)
        vectors[3] = 0
        rows = np.full(48, -1, np.int32)
        rows[:40] = generator.permutation(40)
        found, expected = (
            (
                np.full((3, padded_dimension(d) // 2, BLOCK_ROWS, 2), 99, np.int8),
                np.empty(48, np.float32),
                np.empty(48, np.float32),
            )
            for _ in range(2)
        )
        code_kernels.encode_rows(vectors, rows, *found)
        code_reference.encode_rows(vectors, rows, *expected)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], rtol=2e-7)
        np.testing.assert_allclose(found[2], expected[2], rtol=2e-6, atol=1e-9)
        query, limit = generator.standard_normal(d).astype(np.float32), query_code_limit(d)
        codes, scale, rest = code_reference.encode_query(query, limit)
        again = np.empty_like(codes)
        kernel_scale, kernel_rest, _ = code_kernels.encode_query(query[np.newaxis], 0, limit, again)
        np.testing.assert_array_equal(again, codes)
        assert kernel_scale == scale
        assert kernel_rest == pytest.approx(rest, rel=1e-5)
        for block in range(3):
            estimates = np.empty(BLOCK_ROWS, np.float32)
            wanted = code_reference.block_estimates(found[0], block, codes, found[1], scale)
            cutoff = np.float32(np.median(wanted))
            hits = one_block(found[0], block, codes, found[1], found[2], scale, cutoff, estimates)
            np.testing.assert_array_equal(estimates, wanted)
            places = slice(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
            upper = wanted + found[2][places] * np.float32(0.5)
            bits = [(hits >> lane) & 1 for lane in range(BLOCK_ROWS)]
            np.testing.assert_array_equal(bits, upper >= cutoff)


def test_the_bound_of_each_row_holds() -> None:
    """score = estimate +- error * |query across the row|, in float64."""
    generator = np.random.default_rng(6)
    vectors = clustered(generator, 64, 48)
    rows = np.arange(64, dtype=np.int32)
    codes = np.empty((4, 24, BLOCK_ROWS, 2), np.int8)
    scales, errors = np.empty(64, np.float32), np.empty(64, np.float32)
    code_reference.encode_rows(vectors, rows, codes, scales, errors)
    integers = codes.transpose(0, 2, 1, 3).reshape(64, 48).astype(np.float64)
    for query in adversarial(generator, vectors, 20).astype(np.float64):
        scores = vectors.astype(np.float64) @ query
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        across = np.sqrt(np.maximum(query @ query - (scores / norms) ** 2, 0))
        doubt = np.abs(scores - (integers @ query) * scales)
        assert (doubt <= errors * across + 2e-7).all()


def test_damaged_codes_are_refused_or_found() -> None:
    generator = np.random.default_rng(7)
    rows = checked_rows(clustered(generator, 3000, 16))

    def changed(good: Any, name: str, edit: Any) -> dict[str, npt.NDArray[Any]]:
        arrays = {key: array.copy() for key, array in good.items()}
        edit(arrays[name])
        return arrays

    def double_row(array: npt.NDArray[Any]) -> None:
        places = np.flatnonzero(array >= 0)
        array[places[0]] = array[places[1]]

    def first(array: npt.NDArray[Any], value: Any) -> None:
        array.reshape(-1)[0] = value

    plain, tree = build_codes(checked_rows(rows.values[:1000].copy())), with_tree(rows, 7)
    few = checked_rows(rows.values[:1000].copy())
    for vectors, good in ((few, plain), (rows, tree)):
        assert codes_problems(vectors, good) == []
        for arrays in (
            {key: array for key, array in good.items() if key != "rows"},
            {**good, "more": good["rows"]},
            {**good, "codes": good["codes"].view(np.uint8)},
            {**good, "scales": good["scales"][:-1]},
            changed(good, "rows", lambda a: a.fill(5)),
            changed(good, "rows", lambda a: first(a, 3000)),
            changed(good, "rows", double_row),
        ):
            with pytest.raises((TypeError, ValueError)):
                Codes.from_arrays(vectors, arrays)
            assert codes_problems(vectors, arrays)
        for name, edit in (
            ("codes", lambda a: first(a, a.reshape(-1)[0] ^ 1)),
            ("scales", lambda a: first(a, a[0] * np.float32(1.01))),
            ("errors", lambda a: first(a, 0)),
        ):
            assert codes_problems(vectors, changed(good, name, edit)), name
    for arrays in (
        {key: array for key, array in tree.items() if key != "radii"},
        {**tree, "heads": tree["heads"][:-1]},
        {**tree, "balls": tree["balls"].astype(np.int32)},
        changed(tree, "axes", lambda a: first(a, a[0, 0] + np.float32(0.01))),
        changed(tree, "unit", lambda a: first(a, 0.5)),
        changed(tree, "unit", lambda a: first(a, np.nan)),
        changed(tree, "radii", lambda a: first(a, np.nan)),
        changed(tree, "shifts", lambda a: first(a, np.inf)),
        changed(tree, "ladder", lambda a: first(a, np.nan)),
    ):
        with pytest.raises((TypeError, ValueError)):
            Codes.from_arrays(rows, arrays)
        assert codes_problems(rows, arrays)
    for name, edit in (
        ("heads", lambda a: first(a, a.reshape(-1)[0] ^ 8)),
        ("balls", lambda a: first(a, a.reshape(-1)[0] ^ 64)),
        ("radii", lambda a: first(a, 0)),
        ("shifts", lambda a: first(a, 0)),
    ):
        assert codes_problems(rows, changed(tree, name, edit)), name


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
