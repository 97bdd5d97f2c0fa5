"""The sign sketch: kernels against their numpy twins, honest recall, refusal of damage."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import native_hash
from native_hash import sketch_kernels, sketch_reference
from native_hash.codes import Codes, build_codes
from native_hash.sketch import MEASURED_N, Sketch, SketchSetting
from native_hash.sketch_building import build_sketch, sketch_problems

EVERYTHING = SketchSetting(breadth=1e6, depth=1e6, measured_recall=1.0)
SLACK = 1e-4


def _unit(seed: int, n: int, d: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return native_hash.unit_rows(generator.standard_normal((n, d), dtype=np.float32))


def _clustered(n: int, d: int, n_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes > cases > slices along a path; the second half of the queries is of new cases."""
    generator = np.random.default_rng(0)
    n_cases, n_new = n // 100, 20
    labels = generator.standard_normal((4, d))
    cases = labels[np.arange(n_cases + n_new) % 4]
    cases = cases + 0.5 * generator.standard_normal((n_cases + n_new, d))
    paths = 0.5 * generator.standard_normal((n_cases + n_new, 2, d))

    def draw(case: np.ndarray) -> np.ndarray:
        phase = generator.random(case.size)[:, np.newaxis] * 3
        vectors = cases[case] + np.sin(phase) * paths[case, 0] + np.cos(phase) * paths[case, 1]
        vectors += 0.08 * generator.standard_normal((case.size, d))
        return native_hash.unit_rows(vectors.astype(np.float32))

    queries = [draw(generator.integers(0, n_cases, n_queries // 2))]
    queries.append(draw(generator.integers(n_cases, n_cases + n_new, n_queries // 2)))
    return draw(generator.integers(0, n_cases, n)), np.concatenate(queries)


def _odd(seed: int, n: int, d: int) -> np.ndarray:
    """Rows with copies, near copies, negated rows and zero rows."""
    generator = np.random.default_rng(seed)
    vectors = _unit(seed, n, d)
    for share, change in ((0.3, 1.0), (0.1, -1.0), (0.05, 0.0)):
        picked = generator.random(n) < share
        vectors[picked] = np.float32(change) * vectors[generator.integers(0, n, int(picked.sum()))]
    return vectors


def _search(
    sketch: Sketch, queries: np.ndarray, n: int, setting: SketchSetting, excluded=None, first_row=0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    queries = queries.copy()
    flags = np.empty(0, np.uint8) if excluded is None else excluded.view(np.uint8)
    queries.flags.writeable = flags.flags.writeable = False
    scores = np.full((len(queries), n), -np.inf, np.float32)
    rows, filled = np.full((len(queries), n), -1), np.zeros(len(queries), np.int64)
    counts = [
        sketch.search(
            queries, q, setting, best_scores=scores, best_rows=rows, n_filled=filled,
            slack=SLACK, excluded=flags, first_row=first_row,
        )
        for q in range(len(queries))
    ]  # fmt: skip
    order = np.lexsort((rows, -scores))
    rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    return rows, scores, np.array(counts)


def _recall(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Per query; ties count by score."""
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    last = np.sort(scores, axis=1)[:, -rows.shape[1]]
    found = np.take_along_axis(scores, rows, 1)
    return (found >= last[:, np.newaxis] - 1e-7).mean(axis=1)


def _compare_with_twins(seed: int, n: int, d: int, top_n: int) -> None:
    vectors = native_hash.checked_rows(_odd(seed, n, d))
    arrays = build_sketch(vectors, seed=seed)
    assert sketch_problems(vectors, arrays, engine="numpy") == []
    queries = np.concatenate([_unit(seed + 1, 2, d), vectors.values[:1]])
    excluded = np.random.default_rng(seed).random(n) < 0.3
    fast = Sketch.from_arrays(vectors, arrays)
    slow = Sketch.from_arrays(vectors, arrays, engine="numpy")
    for setting in (EVERYTHING, SketchSetting(0.1, 1.0, 0), SketchSetting(0.0, 0.0, 0)):
        for left_out in (None, excluded):
            left = _search(fast, queries, top_n, setting, left_out, 5)
            right = _search(slow, queries, top_n, setting, left_out, 5)
            for a, b in zip(left, right, strict=True):
                assert a.tobytes() == b.tobytes()


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 31, 33, 64, 100]),
    st.sampled_from([1, 7, 63, 64, 65, 130]), st.sampled_from([1, 4, 50]),
)  # fmt: skip
def test_kernels_equal_their_twins(seed: int, n: int, d: int, top_n: int) -> None:
    _compare_with_twins(seed, n, d, top_n)


def test_kernels_equal_their_twins_in_many_buckets() -> None:
    _compare_with_twins(2, 800, 65, 10)


def test_waiting_rows_are_scored_when_the_list_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("native_hash.sketch._WAITING", 64)
    _compare_with_twins(3, 600, 20, 2)


def test_small_kernels_equal_their_twins() -> None:
    generator = np.random.default_rng(1)
    for d_pad in (64, 128, 2176):
        rotated = generator.standard_normal(d_pad).astype(np.float32)
        for vector in (rotated, np.zeros_like(rotated), rotated * np.float32(1e-30)):
            fast, slow = np.empty((2, d_pad // 4, 16), np.uint8)
            of_fast = sketch_kernels.quantise(vector, fast)
            of_slow = sketch_reference.quantise(vector, slow)
            assert of_fast[0] == of_slow[0]
            assert of_fast[1] == of_slow[1]
            assert np.array_equal(fast, slow)
            assert fast.max() <= 127


def test_levels_and_table_sums_are_the_signed_sum() -> None:
    """s.k = 2 S - span, whatever the bits; and the levels are the query to half a step."""
    generator = np.random.default_rng(4)
    rotated = generator.standard_normal(128).astype(np.float32)
    tables = np.empty((32, 16), np.uint8)
    step, span = sketch_reference.quantise(rotated, tables)
    levels = np.rint(rotated / step)
    assert np.abs(step * levels - rotated).max() <= step * 0.5001
    bits = generator.integers(0, 2, (32, 128))
    codes = np.packbits(bits, axis=1, bitorder="little").T[np.newaxis].copy()
    sums = np.empty(32, np.uint16)
    sketch_reference.block_sums(codes, 0, tables, sums)
    assert np.array_equal(2 * sums.astype(int) - span, (2 * bits - 1) @ levels)


def test_estimate_is_unbiased_over_rotations() -> None:
    vectors, queries = _unit(5, 40, 64), _unit(6, 1, 64)
    exact = vectors @ queries[0]
    estimates = []
    for seed in range(300):
        arrays = build_sketch(native_hash.checked_rows(vectors), seed=seed)
        rotated = np.empty(64, np.float32)
        sketch_reference.accumulate(arrays["rotation"], queries[0], rotated)
        dot = arrays["centers"] @ queries[0]
        rows = arrays["rows"].reshape(-1)
        bits = np.unpackbits(arrays["codes"], axis=1, bitorder="little").transpose(0, 2, 1)
        signs = 2.0 * bits.reshape(rows.size, 64) - 1
        factors = arrays["factors"]
        estimate = dot + factors[:, 1].reshape(-1) + factors[:, 0].reshape(-1) * (signs @ rotated)
        estimates.append(estimate[np.argsort(rows, kind="stable")][(rows < 0).sum() :])
    errors = np.array(estimates) - exact
    standard_error = errors.std(axis=0) / len(errors) ** 0.5
    assert (np.abs(errors.mean(axis=0)) < 4.5 * standard_error).all()
    assert np.abs(errors.mean()) < 0.002
    assert 0.02 < errors.std() < 0.15


@pytest.fixture(scope="module")
def world() -> tuple[native_hash.CheckedRows, Sketch, np.ndarray]:
    vectors, queries = _clustered(12_000, 64, 200)
    rows = native_hash.checked_rows(vectors)
    return rows, Sketch.from_arrays(rows, build_sketch(rows, seed=3)), queries


@pytest.mark.parametrize("n", [1, 3, 10, 100])
@pytest.mark.parametrize("recall", [0.95, 0.99])
def test_recall_is_honest_on_held_out_queries(world, n: int, recall: float) -> None:
    rows, sketch, queries = world
    setting = sketch.setting(n, recall)
    assert setting is not None
    assert setting.measured_recall >= recall
    found, _, counts = _search(sketch, queries, n, setting)
    recalls = _recall(rows.values, queries, found)
    error = 2 * recalls.std() / len(recalls) ** 0.5
    assert recalls.mean() + error >= recall
    assert counts[:, 1].mean() < 0.5 * len(rows.values)
    assert counts[:, 2].mean() < 0.1 * len(rows.values)


def test_uniform_vectors_are_left_to_the_exact_codes() -> None:
    """No setting is cheaper than they are; a wide one finds the answer all the same."""
    vectors, queries = _unit(7, 5000, 96), _unit(8, 100, 96)
    rows = native_hash.checked_rows(vectors)
    codes = Codes.from_arrays(rows, build_codes(rows))
    assert codes.tree is None
    arrays = build_sketch(rows, codes=codes)
    sketch = Sketch.from_arrays(rows, arrays)
    assert sketch.setting(10, 0.99) is None
    assert sketch.arrays["centers"].shape == (1, 96)
    found, scores, counts = _search(sketch, queries, 10, SketchSetting(9.0, 1.8, 0))
    assert _recall(vectors, queries, found).mean() > 0.99
    assert counts[:, 2].mean() < 0.3 * len(vectors)
    exact = native_hash.top_n(rows, queries, 10)
    same = found == exact[0]
    assert np.array_equal(scores[same], exact[1][same])


def test_widest_setting_is_the_exact_answer(world) -> None:
    rows, sketch, queries = world
    excluded = np.random.default_rng(9).random(len(rows.values)) < 0.5
    for n, left_out in ((1, None), (10, excluded), (300, None)):
        found = _search(sketch, queries[:20], n, EVERYTHING, left_out)
        exact = native_hash.top_n(rows, queries[:20], n, excluded=left_out)
        assert found[0].tobytes() == exact[0].tobytes()
        assert found[1].tobytes() == exact[1].tobytes()


def test_excluded_rows_do_not_use_up_the_search(world) -> None:
    """The nearest 50 rows of a query are left out: the next 10 are found as surely."""
    rows, sketch, queries = world
    setting = sketch.setting(10, 0.99, n_excluded=50)
    recalls = []
    for query in queries[:100]:
        nearest = native_hash.top_n(rows, query, 60)[0][0]
        excluded = np.zeros(len(rows.values), bool)
        excluded[nearest[:50]] = True
        found = _search(sketch, query[np.newaxis], 10, setting, excluded)[0][0]
        assert not np.isin(found, nearest[:50]).any()
        recalls.append(np.isin(found, nearest[50:]).mean())
    assert np.mean(recalls) >= 0.985


@pytest.mark.parametrize("n", [1, 10, 100])
def test_recall_holds_where_a_filter_leaves_what_is_far(world, n: int) -> None:
    """Three of four classes are left out: most queries are far from every row that remains."""
    rows, sketch, queries = world
    toward = rows.values @ queries[0]
    excluded = toward < np.quantile(toward, 0.75)
    setting = sketch.setting(n, 0.95, n_excluded=int(excluded.sum()))
    exact = native_hash.top_n(rows, queries, n, excluded=excluded)
    found, scores, _ = _search(sketch, queries, n, setting, excluded)
    assert not excluded[found].any()
    assert (scores >= exact[1][:, -1:]).mean() >= 0.99


def test_few_rows_left_are_all_found(world) -> None:
    """Buckets beyond the setting are visited while the answer is not full."""
    rows, sketch, queries = world
    excluded = np.ones(len(rows.values), bool)
    excluded[[5, 700, 11_000]] = False
    found = _search(sketch, queries[:5], 10, SketchSetting(0.0, 0.0, 0), excluded)[0]
    assert (np.sort(found[:, :3], axis=1) == [5, 700, 11_000]).all()
    assert (found[:, 3:] == -1).all()


def test_settings_that_were_not_measured_are_not_given(world) -> None:
    _, sketch, _ = world
    assert sketch.setting(MEASURED_N[-1] + 1, 0.5) is None
    assert sketch.setting(10, 0.9991) is None
    assert sketch.setting(10, 0.5) == sketch.setting(10, 0.95)
    with_filter = sketch.setting(10, 0.95, n_excluded=1)
    assert with_filter.breadth >= max(sketch.setting(n, 0.99).breadth for n in MEASURED_N)
    few = native_hash.checked_rows(_unit(10, 100, 16))
    assert Sketch.from_arrays(few, build_sketch(few)).setting(1, 0.5) is None
    ladder = sketch.arrays["ladder"]
    assert ((ladder[:, :, 2] >= ladder[:, :, 3]) & (ladder[:, :, 2] <= 1)).all()


def test_second_matrix_goes_on_in_the_same_heap() -> None:
    vectors, queries = _unit(11, 2000, 32), _unit(12, 4, 32)
    exact = native_hash.top_n(vectors, queries, 7)
    queries.flags.writeable = False
    flags = np.empty(0, np.uint8)
    flags.flags.writeable = False
    scores, best = np.full((4, 7), -np.inf, np.float32), np.full((4, 7), -1)
    filled = np.zeros(4, np.int64)
    for first in (1000, 0):
        rows = native_hash.checked_rows(vectors[first : first + 1000].copy())
        sketch = Sketch.from_arrays(rows, build_sketch(rows))
        for q in range(4):
            sketch.search(
                queries, q, EVERYTHING, best_scores=scores, best_rows=best, n_filled=filled,
                slack=SLACK, excluded=flags, first_row=first,
            )  # fmt: skip
    assert np.array_equal(np.take_along_axis(best, np.lexsort((best, -scores)), 1), exact[0])


def test_threads_build_and_search_as_one(world) -> None:
    rows, sketch, queries = world
    arrays = build_sketch(rows, seed=3, n_threads=4)
    for name, array in sketch.arrays.items():
        assert arrays[name].tobytes() == array.tobytes(), name
    setting = sketch.setting(10, 0.99)
    expected = _search(sketch, queries, 10, setting)
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda query: _search(sketch, query[np.newaxis], 10, setting), queries)
        )
    for part in range(3):
        assert np.concatenate([f[part] for f in found]).tobytes() == expected[part].tobytes()


def test_damaged_arrays_are_refused(world) -> None:
    rows, sketch, _ = world
    good = dict(sketch.arrays)
    assert sketch_problems(rows, good) == []

    def changed(name: str, index: object, value: float) -> dict[str, np.ndarray]:
        array = good[name].copy()
        array[index] = value
        return good | {name: array}

    other = native_hash.checked_rows(rows.values[:-1].copy())
    bad = [
        {name: array for name, array in good.items() if name != "codes"},
        good | {"factors": good["factors"].astype(np.float64)},
        good | {"codes": good["codes"][:-1]},
        good | {"rotation": good["rotation"].T},
        changed("centers", (0, 0), np.nan),
        changed("shapes", (0, 0), np.inf),
        changed("shapes", (1, 0), -np.inf),
        changed("shapes", (1, 0), np.nan),
        changed("shapes", (1, -1), 1.0),
        changed("ladder", (0, 0, 0), np.inf),
        changed("starts", -1, good["starts"][-1] + 1),
        changed("starts", 1, -1),
        changed("rows", (0, 0), len(rows.values)),
        changed("rows", (0, 0), -2),
        changed("rows", (0, 0), good["rows"][0, 1]),
        changed("factors", (0, 0, 0), -1.0),
        changed("factors", (0, 1, 0), -np.inf),
        changed("factors", (0, 1, 0), np.nan),
    ]
    for arrays in bad:
        with pytest.raises(ValueError, match="does not fit"):
            Sketch.from_arrays(rows, arrays)
        assert sketch_problems(rows, arrays)
    with pytest.raises(ValueError, match="does not fit"):
        Sketch.from_arrays(other, good)
    flipped = changed("codes", (3, 1, 4), good["codes"][3, 1, 4] ^ 8)
    Sketch.from_arrays(rows, flipped)
    assert "1 blocks" in sketch_problems(rows, flipped)[0]


_SAME_ANSWERS = """
import sys
import numpy as np
from tests import test_native_hash_sketch as t
print(t._digest(dict(np.load(sys.argv[1]))))
"""


def _digest(arrays: dict[str, np.ndarray]) -> str:
    vectors, queries = _clustered(3000, 70, 40)
    rows = native_hash.checked_rows(vectors)
    digest = hashlib.sha256()
    sketch = Sketch.from_arrays(rows, arrays)
    for setting in (EVERYTHING, SketchSetting(0.05, 1.0, 0), SketchSetting(0.2, 0.5, 0)):
        for part in _search(sketch, queries, 10, setting):
            digest.update(part.tobytes())
    assert sketch_problems(rows, arrays) == []
    return digest.hexdigest()


@pytest.mark.parametrize(
    "features", ["", pytest.param("+ssse3,+sse4.1", marks=pytest.mark.slow)], ids=["none", "ssse3"]
)
def test_same_answers_on_other_processors(tmp_path: Path, features: str) -> None:
    """Compiled for a CPU with no byte shuffle, or with that of SSSE3: same codes, same answers."""
    arrays = build_sketch(native_hash.checked_rows(_clustered(3000, 70, 40)[0]))
    np.savez(tmp_path / "arrays.npz", **arrays)
    environment = os.environ | {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", _SAME_ANSWERS, str(tmp_path / "arrays.npz")],
        cwd=Path(__file__).parents[1], env=environment, check=False,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == _digest(arrays)
