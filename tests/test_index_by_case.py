"""Best cosine of every case: against brute force, and without threads of BLAS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ildsdk.index import Index, ItemRecord
from tests.index_factory import SALT, make_items, unit_embeddings

SPINNING = """
import sys, time
import numpy as np
from ildsdk.index import Index
from tests.index_factory import unit_embeddings
queries = unit_embeddings(2, {m}, 128)
with Index.open(sys.argv[1]) as index:
    index.case_scores(queries)
    time.sleep(0.2)
    index.case_scores(queries)
    started = time.process_time()
    time.sleep(0.03)
    print(time.process_time() - started)
"""


def with_cases(items: list[ItemRecord], cases: np.ndarray) -> list[ItemRecord]:
    """The same items, of other cases."""
    fields = ItemRecord.__dataclass_fields__
    return [
        ItemRecord(
            **{name: getattr(item, name) for name in fields}
            | {"case_id": f"case-{case}", "label": "Normal"}
        )
        for item, case in zip(items, cases, strict=True)
    ]


def write_index(path: Path, cases: np.ndarray, d: int) -> np.ndarray:
    """An index with one row per entry of ``cases``; returns its embeddings."""
    embeddings = unit_embeddings(1, len(cases), d)
    items = with_cases(make_items(0, len(cases)), cases)
    with Index.create(
        path, name="test", bundle_hash="b" * 64, embedding_size=d, is_synthetic=True, salt=SALT
    ) as index:
        index.add(embeddings, items, [b""] * len(items), patient_hashes=[None] * len(items))
    return embeddings


@pytest.mark.parametrize("d", [16, 128, 300])
@pytest.mark.parametrize("n_queries", [1, 33])
@pytest.mark.parametrize("kind", ["one after the other", "in turns", "coming back"])
def test_scores_of_cases_are_those_of_brute_force(
    tmp_path: Path, d: int, n_queries: int, kind: str
) -> None:
    n = 531  # no multiple of a tile, whatever d
    cases = {
        "one after the other": np.arange(n) // 7,
        "in turns": np.arange(n) % 9,
        "coming back": np.arange(n) // 20 % 5,
    }[kind]
    embeddings = write_index(tmp_path / "index", cases, d)
    queries = unit_embeddings(3, n_queries, d)
    is_excluded = np.random.default_rng(4).random(n) < 0.3
    is_excluded[cases == 2] = True
    with Index.open(tmp_path / "index") as index:
        found = index.case_scores(queries, is_excluded)
    dots = np.where(is_excluded[:, None], -np.inf, embeddings.astype(np.float64) @ queries.T)
    assert "case-2" not in found.case_ids
    for column, case in enumerate(found.case_ids):
        rows = np.flatnonzero(cases == int(case.removeprefix("case-")))
        np.testing.assert_allclose(found.scores[:, column], dots[rows].max(axis=0), atol=1e-6)
    assert len(found.case_ids) == len(set(cases.tolist())) - 1


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="BLAS has one thread anyway")
@pytest.mark.parametrize("n_queries", [1, 40])
def test_no_thread_of_blas_is_left_busy(tmp_path: Path, n_queries: int) -> None:
    write_index(tmp_path / "index", np.arange(4000) // 50, 128)
    free = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", SPINNING.format(m=n_queries), tmp_path / "index"],
        capture_output=True, text=True, check=True, env=free,
    )  # fmt: skip
    assert float(done.stdout) < 0.01, "processor time of a process that sleeps for 0.03 s"
