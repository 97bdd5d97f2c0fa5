"""Codes of rows and queries: kernels beside their definition, bounds, damage."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from native_hash import Codes, build_codes, checked_rows, code_reference
from native_hash.code_layout import BLOCK_ROWS, padded_dimension, query_code_limit
from native_hash.codes import codes_problems
from tests.search_factory import adversarial, brute_force, by_codes, clustered, with_tree


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
