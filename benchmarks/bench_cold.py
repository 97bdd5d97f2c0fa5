"""Cold start: one DICOM file answered by a fresh process, with warm caches.

    python -m pytest benchmarks/bench_cold.py --benchmark-enable

Both processes answer the same file from 28,942 slices and print JSON. The first run of each fills
the disk cache, writes bytecode and, for ours, the kernel cache; it is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import peers

peers.need(*peers.REFERENCE_STACK)

from benchmarks.contest import Contender, Report, Rounds, interleaved  # noqa: E402
from benchmarks.ours import Ours  # noqa: E402
from benchmarks.pinned import N_THREADS, users_environment  # noqa: E402
from benchmarks.reference_stack import ReferenceStack  # noqa: E402

N_ROUNDS = 11
OURS, STACK = "ildsdk query", "reference stack"

Contest = tuple[dict[str, Contender], dict[str, Rounds]]


@pytest.fixture(scope="module")
def contest(
    large_index: Path,
    reference_files: Path,
    phantom_files: Path,
    ours_by_precision: dict[str, Ours],
    default_precision: str,
    reference_stack: ReferenceStack,
    rounds: Callable[[int], int],
) -> Contest:
    """Both processes in turn."""
    paths = sorted(phantom_files.iterdir())
    one = paths[len(paths) // 2]
    commands = {
        OURS: [
            "ildsdk", "query", str(one), "--index", str(large_index), "--format", "json", "-q",
            "--threads", str(N_THREADS),
        ],
        STACK: [
            "benchmarks.reference_stack", str(one), "--files", str(reference_files),
            "--threads", str(N_THREADS),
        ],
    }  # fmt: skip
    # A fresh process must answer as a warm one; that the warm ones agree, bench_slice.py shows.
    ours, theirs = (json.loads(_run(commands, name)) for name in (OURS, STACK))
    warm = ours_by_precision[default_precision].retriever.query(one).studies[0].slices[0]
    found = ours["studies"][0]["slices"][0]["neighbors"]
    assert [n["item_id"] for n in found] == [n.item_id for n in warm.neighbors]
    warm_ids = [item_id for item_id, *_ in reference_stack.query_file(one).neighbors]
    assert [n["item_id"] for n in theirs["neighbors"]] == warm_ids
    facts = {"precision": default_precision, "is_default": True}
    contenders = {
        OURS: Contender(act=lambda _: _run(commands, OURS), role="ours", facts=facts),
        STACK: Contender(act=lambda _: _run(commands, STACK), role="rival"),
    }
    return contenders, interleaved(contenders, rounds(N_ROUNDS), n_warm=1)


def _run(commands: dict[str, list[str]], name: str) -> bytes:
    return subprocess.run(
        [sys.executable, "-m", *commands[name]],
        check=True, capture_output=True, env=users_environment(is_pinned=name == STACK),
    ).stdout  # fmt: skip


@pytest.mark.parametrize("name", [OURS, STACK])
def test_cold_start(report: Report, contest: Contest, name: str) -> None:
    contenders, found = contest
    group = "cold|fresh process, one file to top 10 of 28942"
    report(group, name, contenders[name], found[name].seconds)
