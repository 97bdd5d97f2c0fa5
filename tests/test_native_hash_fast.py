"""Fast mode: where the exact search is the faster one, a low recall asked for gets it."""

from __future__ import annotations

import numpy as np
import pytest

from native_hash import NeighborHeap, checked_rows
from native_hash.segments import SegmentCodes, segment_codes
from tests.search_factory import uniform


@pytest.mark.parametrize("n", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_uniform_rows_are_searched_exactly_whatever_recall_is_asked(n: int) -> None:
    """Estimates of uniform rows leave too many to be scored: the sketch costs more than codes."""
    generator = np.random.default_rng(0)
    vectors = uniform(generator, n, 128)
    rows = checked_rows(vectors)
    codes = SegmentCodes.from_arrays(rows, segment_codes(vectors, n_threads=2))
    assert codes.sketch is not None
    queries = uniform(generator, 20, 128)
    expected = NeighborHeap(queries, 10)
    expected.offer(rows)
    for recall in (0.5, 0.95, 0.985, 0.999):
        assert codes.sketch.setting(10, recall) is None
        heap = NeighborHeap(queries, 10)
        assert codes.offer(heap, rows, n=10, recall=recall) == 1
        np.testing.assert_array_equal(heap.result()[0], expected.result()[0])
