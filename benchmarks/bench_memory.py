"""Peak resident memory of a fresh process that answers a study from files.

    python -m pytest benchmarks/bench_memory.py --benchmark-enable

The time that stands beside it is that of the whole process. The reference stack takes 30 slices.
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
if not sys.platform.startswith("linux"):
    pytest.skip("peak memory is read from Linux's /proc", allow_module_level=True)

from benchmarks.contest import Contender, Report, interleaved  # noqa: E402
from benchmarks.pinned import N_THREADS  # noqa: E402
from benchmarks.study_files import write_study  # noqa: E402

N_ROUNDS = {30: 2, 300: 2, 600: 2}
OURS, STACK = "ildsdk", "reference stack"


@pytest.mark.parametrize("name", [OURS, STACK])
@pytest.mark.parametrize("n_slices", N_ROUNDS)
def test_peak_memory(
    report: Report,
    tmp_path: Path,
    large_index: Path,
    reference_files: Path,
    phantom_files: Path,
    rounds: Callable[[int], int],
    n_slices: int,
    name: str,
) -> None:
    if name == STACK and n_slices > 30:
        pytest.skip("the reference stack takes 30 slices only")
    study = tmp_path / "study"
    write_study(study, n_slices, phantom_files)
    side = ["--index", large_index] if name == OURS else ["--reference", reference_files]
    command = ["-m", "benchmarks.study_memory", study, *side, "--threads", N_THREADS]

    def act(_: int) -> dict[str, float]:
        words = [sys.executable, *map(str, command)]
        done = subprocess.run(words, check=True, capture_output=True)
        return json.loads(done.stdout)

    contender = Contender(act=act, role="ours" if name == OURS else "rival")
    found = interleaved({name: contender}, rounds(N_ROUNDS[n_slices]), n_warm=0)[name]
    assert all(result["n_slices"] == n_slices for result in found.results)
    peaks = [round(result["peak_mb"], 1) for result in found.results]
    contender.facts.update(n_slices=n_slices, peak_mb=peaks)
    report(f"memory|study of {n_slices} phantom files", name, contender, found.seconds)
