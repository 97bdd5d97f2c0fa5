"""Bounds of the certified search where they are tight: rounding is all that is left to tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from native_hash import (
    Codes,
    NeighborHeap,
    build_codes,
    checked_rows,
    code_reference,
    tree_reference,
    unit_rows,
)
from native_hash.code_layout import AXES_ERROR, BLOCK_ROWS, HEAD_LIMIT, padded_dimension
from native_hash.tree import heads_of, principal_axes, unit_of
from tests.search_factory import (
    Float32,
    adversarial,
    adversarial_set,
    brute_force,
    by_codes,
    clustered,
    uniform,
    with_tree,
)

Encoder = Any


def encoded(vectors: Float32, encode: Encoder) -> tuple[npt.NDArray[np.float64], Float32, Float32]:
    """Integers float64 ``(n, d)`` of rows, their scales and errors."""
    n, d = vectors.shape
    rows = np.full(padded_dimension(n, BLOCK_ROWS), -1, np.int32)
    rows[:n] = np.arange(n)
    codes = np.empty((rows.size // BLOCK_ROWS, padded_dimension(d) // 2, BLOCK_ROWS, 2), np.int8)
    scales, errors = np.empty(rows.size, np.float32), np.empty(rows.size, np.float32)
    encode(vectors, rows, codes, scales, errors)
    integers = codes.transpose(0, 2, 1, 3).reshape(rows.size, -1)[:n, :d].astype(np.float64)
    return integers, scales[:n], errors[:n]


@pytest.mark.parametrize("engine", ["numba", "numpy"])
@pytest.mark.parametrize("d", [2, 8, 48, 128])
def test_the_bound_of_a_row_is_reached_and_not_surpassed(engine: str, d: int) -> None:
    """By queries that turn from the row toward what its code leaves out, and away from it."""
    from native_hash import code_kernels

    generator = np.random.default_rng(d)
    vectors = np.concatenate([clustered(generator, 100, d), 30 * uniform(generator, 100, d)])
    encode = code_kernels.encode_rows if engine == "numba" else code_reference.encode_rows
    integers, scales, errors = encoded(vectors, encode)
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    raw = (np.abs(vectors).max(axis=1) / np.float32(127)).astype(np.float64)[:, np.newaxis]
    rest = wide - integers * raw
    rest -= wide * ((rest * wide).sum(axis=1, keepdims=True) / norms**2)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    for angle in (0.05, 0.4, 1.2, -0.7):
        queries = np.cos(angle) * wide / norms + np.sin(angle) * rest
        scores = (queries * wide).sum(axis=1)
        doubt = np.abs(scores - (queries * integers).sum(axis=1) * scales)
        across = abs(np.sin(angle)) * (np.linalg.norm(queries, axis=1))
        room = 1e-7 * norms[:, 0]  # scales are float32
        assert (doubt <= errors * across + room).all()
        assert (doubt >= 0.9999 * errors * across - room).all()


def test_the_spread_of_a_query_is_that_of_its_definition() -> None:
    from native_hash.code_kernels import spread_of

    for norm, cutoff, max_norm in ((1, 0.9, 1), (2, 0.3, 5), (1, -0.4, 1), (3, 9, 2), (1, 1, 1)):
        along = max(cutoff / max_norm, 0)
        expected = np.sqrt(max(norm**2 - along**2, 0))
        found = spread_of(np.float32(norm), np.float32(cutoff), np.float32(max_norm))
        assert found == pytest.approx(expected, rel=1e-6)


def both_codes(vectors: Float32) -> list[Codes]:
    rows = checked_rows(vectors)
    arrays = [build_codes(rows), with_tree(rows, min(7, vectors.shape[1]))]
    return [Codes.from_arrays(rows, one) for one in arrays]


def check(vectors: Float32, queries: Float32, n: int = 1) -> None:
    rows = checked_rows(vectors)
    for mask in (None, np.arange(len(vectors)) % 5 == 2):
        expected = brute_force(vectors, queries, n, mask)
        for codes in both_codes(vectors):
            found = by_codes(rows, codes, queries, n, mask)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])


def check_in_parts(parts: list[Float32], queries: Float32) -> None:
    """As :func:`check`, rows offered in several matrices one after the other."""
    parts = [np.ascontiguousarray(part, np.float32) for part in parts]
    expected = brute_force(np.concatenate(parts), queries, 1)
    for number in range(2):
        heap, first_row = NeighborHeap(queries, 1), 0
        for part in parts:
            codes = both_codes(part)[number]
            heap.offer(checked_rows(part), codes=codes, first_row=first_row)
            first_row += len(part)
        np.testing.assert_array_equal(heap.result()[0], expected[0])


@pytest.mark.parametrize("scale", [2.0**-8, 1.0])
def test_near_ties_that_only_the_rounding_of_the_query_parts(scale: float) -> None:
    """Rows that their codes hold exactly, in the plane; queries across the line between two."""
    generator = np.random.default_rng(1)
    vectors, queries = [], []
    for a, b in generator.integers(-126, 127, (60, 2)):
        vectors += [(127, a), (b, 127)]
        slope = (127 - b) / (127 - a)
        queries += [(1, slope), (1, slope * (1 + 1e-7)), (1, slope * (1 - 1e-7))]
    for first in range(0, 120, 2):
        pair = scale * np.array(vectors[first : first + 2], np.float32)
        fillers = -np.abs(scale * generator.integers(1, 127, (40, 2)))
        rows = np.concatenate([pair, fillers]).astype(np.float32)
        near = unit_rows(np.array(queries[3 * (first // 2) :][:3]))
        check(np.ascontiguousarray(rows[generator.permutation(len(rows))]), near)
        for order in (slice(None), slice(None, None, -1)):  # the second meets an exact score
            check_in_parts(
                [np.concatenate([one[np.newaxis], rows[2:]]) for one in pair[order]], near
            )


def test_ties_whose_estimates_differ_by_rounding() -> None:
    """All rows score alike and are held exactly by codes of different scales.

    The query is held exactly too (32767 is the largest code): nothing but slack makes room.
    """
    generator = np.random.default_rng(2)
    for value in (0.37, 0.011, 1.7):
        first = np.full(120, value, np.float32)
        second = (127 * value / np.arange(1, 121)).astype(np.float32)
        rows = np.stack([first, second], axis=1)[generator.permutation(120)]
        for n in (1, 10):
            queries = np.array([[32767 / 32768, 0], [1, 0], [0.5, 0]], np.float32)
            check(np.ascontiguousarray(rows), queries, n)


def test_the_longest_row_nearly_along_the_query() -> None:
    """Turned toward what its code leaves out: its doubt is small, but not nothing."""
    generator = np.random.default_rng(5)
    for x in uniform(generator, 20, 8):
        wide = x.astype(np.float64)
        raw = float(np.abs(x).max() / np.float32(127))
        rest = wide - np.rint(wide / raw) * raw
        rest -= wide * float(rest @ wide) / float(wide @ wide)
        query = np.cos(0.04) * wide / np.linalg.norm(wide) + np.sin(0.04) * (
            rest / np.linalg.norm(rest)
        )
        known = np.rint(127 * query / np.abs(query).max())  # held exactly by its code
        known *= (float(wide @ query) - 1e-6) / float(known @ query)
        fillers = -0.5 * np.abs(uniform(generator, 40, 8)) * np.sign(query)
        parts = [np.concatenate([one[np.newaxis], fillers]) for one in (known, wide)]
        check_in_parts(parts, np.array([query], np.float32))


def tree_in_given_order(
    monkeypatch: pytest.MonkeyPatch, vectors: Float32, axes: Float32
) -> dict[str, npt.NDArray[Any]]:
    """Codes with a tree of these axes whose leaves are the rows 0 to 15, 16 to 31, and so on."""
    from native_hash import codes, tree_tuning

    monkeypatch.setattr(codes, "principal_axes", lambda *_: axes)
    monkeypatch.setattr(codes, "build_order", lambda heads: np.arange(len(heads), dtype=np.int32))
    monkeypatch.setattr(tree_tuning, "measure_depths", lambda *_: np.zeros((3, 12, 3), np.float32))
    rows = checked_rows(vectors)
    return codes.codes_with_tree(rows, len(axes), np.random.default_rng(0))


def wide_leaves(query: Float32, score: float, n_leaves: int) -> list[Float32]:
    """Rows of one score in leaves that look promising: each spreads widely around its center."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(n_leaves):
        across = generator.standard_normal(query.size)
        across -= (across @ query) * query
        across *= np.sqrt(1 - score**2) / np.linalg.norm(across)
        rows += [score * query + across] * 8 + [score * query - across] * 8
    return rows


def check_tree(vectors: Float32, query: Float32, arrays: dict[str, npt.NDArray[Any]]) -> int:
    """The best row by the tree is the best row; returns its number."""
    rows = checked_rows(vectors)
    queries = np.ascontiguousarray(query[np.newaxis], np.float32)
    expected = brute_force(vectors, queries, 1)
    found = by_codes(rows, Codes.from_arrays(rows, arrays), queries, 1)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    return int(found[0][0, 0])


def test_heads_whose_rounding_is_all_against_the_best_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry of the query and of the best row is rounded by nearly a half, to less."""
    k, d = 15, 16
    sign = np.where(np.arange(k) % 5 == 0, -1.0, 1.0)  # 3 of 15 against the query
    axes = np.eye(k, d, dtype=np.float32)
    unit = float(np.float32(1 + AXES_ERROR))
    # The head of the query has norm 1: its entries lie near 8262.35 / 32000.
    entries = np.full(k, 8262.0) + np.where(sign > 0, 0.48, 0.52)
    entries[[1, 6]] -= 1
    query = np.zeros(d, np.float32)
    query[:k] = entries / HEAD_LIMIT
    codes, norm = tree_reference.encode_head(query, axes)
    assert np.abs(norm - 1) < 1e-5
    lost = query[:k] / norm * HEAD_LIMIT - codes[:k]
    assert (lost * sign > 0.4).all()  # of a step
    best = np.zeros(d)
    best[:k] = sign * (8200 + np.where(sign > 0, 0.49, -0.49)) / HEAD_LIMIT * unit
    score = float(best @ query)
    decoy = np.zeros(d)
    decoy[:k] = sign
    decoy *= (score - 1e-6) / float(decoy @ query)
    unit_query = query / np.linalg.norm(query)
    rows = wide_leaves(unit_query, 0.3, 6)
    rows[5] = decoy
    rows += [best, *[-unit_query] * 15, np.eye(d)[0], *[-unit_query] * 15]
    vectors = np.array(rows, np.float32)
    arrays = tree_in_given_order(monkeypatch, vectors, axes)
    assert check_tree(vectors, query, arrays) == 6 * BLOCK_ROWS


@pytest.mark.parametrize("level", [1, 2])
def test_a_ball_that_only_touches_what_can_win(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    """The best row is the one of its ball that is nearest to the query, all others far behind."""
    d = 16
    axes = np.eye(15, d, dtype=np.float32)

    def at(angle: float) -> npt.NDArray[np.float64]:
        return np.array([np.cos(angle), np.sin(angle), *[0.0] * (d - 2)])

    query = at(0).astype(np.float32)
    n_others = BLOCK_ROWS**level - 1
    # On the grid of its code: its score is known without a doubt once its leaf was read.
    decoy = np.zeros(d)
    decoy[:3] = 127, 20, 19
    decoy *= (np.cos(0.25) - 1e-6) / 127
    rows = wide_leaves(at(0), 0.5, 6 * BLOCK_ROWS ** (level - 1))
    rows[3] = decoy
    first = len(rows)
    rows += [at(0.25), *[at(0.5)] * n_others]
    vectors = np.array(rows, np.float32)
    arrays = tree_in_given_order(monkeypatch, vectors, axes)
    assert check_tree(vectors, query, arrays) == first


def test_heads_bound_every_product_of_rows_whatever_the_axes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float64, for axes as far from orthonormal as they may be: nothing else makes room."""
    generator = np.random.default_rng(4)
    d, k = 24, 15
    for sign in (-1, 1):
        axes = np.linalg.qr(generator.standard_normal((d, k)))[0].T
        axes[0] *= 1 + sign * 4e-7
        axes[1] += sign * 4e-7 * axes[2]
        axes = axes.astype(np.float32)
        inside = unit_rows(generator.standard_normal((400, k)) @ axes)
        rows = unit_rows(inside + 10.0 ** generator.uniform(-8, 0, (400, 1)) * inside[::-1])
        rows[:20] = unit_rows(axes[generator.integers(0, 3, 20)])
        heads = heads_of(rows, axes, np.float32(1)).astype(np.float64)
        norms = np.linalg.norm(heads, axis=1)
        assert (norms <= float(unit_of(1.0)) * (1 + 1e-6)).all()
        for query in rows[:60]:
            _, norm = tree_reference.encode_head(query, axes)
            left = float(query.astype(np.float64) @ query.astype(np.float64))
            along = axes.astype(np.float64) @ query.astype(np.float64)
            across = np.sqrt(max(norm**2 - float(along @ along), 0))
            assert across**2 >= left - float(along @ along)
            bounds = heads[:, :-1] @ along + heads[:, -1] * across
            scores = rows.astype(np.float64) @ query.astype(np.float64)
            assert (scores <= bounds + 1e-7).all()


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_the_rows_gives_the_answer(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Leaves of rows that have nothing in common, and of several levels."""
    generator = np.random.default_rng(seed)
    vectors = adversarial_set(generator, "clustered", 4500, 20)
    rows = checked_rows(vectors)
    axes = principal_axes(vectors, 15, generator)
    arrays = tree_in_given_order(monkeypatch, vectors, axes)
    queries = adversarial(generator, vectors, 4)
    for n in (1, 10):
        found = by_codes(rows, Codes.from_arrays(rows, arrays), queries, n)
        np.testing.assert_array_equal(found[0], brute_force(vectors, queries, n)[0])
