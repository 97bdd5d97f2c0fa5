"""Bounds of the certified search where they are tight: rounding is all that is left to tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from native_hash import Codes, build_codes, checked_rows, code_reference, unit_rows
from native_hash.code_layout import BLOCK_ROWS, padded_dimension
from tests.search_factory import Float32, brute_force, by_codes, clustered, uniform, with_tree

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
        rows = np.ascontiguousarray(rows[generator.permutation(len(rows))])
        near = 3 * (first // 2)
        check(rows, unit_rows(np.array(queries[near : near + 3])))


def test_ties_whose_estimates_differ_by_rounding() -> None:
    """All rows score alike and are held exactly by codes of different scales."""
    generator = np.random.default_rng(2)
    for value in (0.37, 0.011, 1.7):
        first = np.full(120, value, np.float32)
        second = (127 * value / np.arange(1, 121)).astype(np.float32)
        rows = np.stack([first, second], axis=1)[generator.permutation(120)]
        for n in (1, 10):
            check(np.ascontiguousarray(rows), np.array([[1, 0], [0.5, 0]], np.float32), n)
