"""The tree of balls: its bounds, its order, and searches of less than full depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from native_hash import Codes, NeighborHeap, build_codes, checked_rows, tree_reference, unit_rows
from native_hash.code_layout import BLOCK_ROWS, level_sizes
from native_hash.tree import build_order
from tests.search_factory import (
    Float32,
    adversarial,
    adversarial_set,
    by_codes,
    clustered,
    uniform,
    with_tree,
)


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
