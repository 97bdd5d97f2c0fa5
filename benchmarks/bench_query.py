"""One slice by stage and end to end, and the cold start, on the embedded demo study.

    python -m pytest benchmarks/bench_query.py -s --benchmark-enable

These are figures of this software alone; rivals stand beside the stages that have one
(``bench_radiomics.py``, ``bench_lung.py``, ``bench_search.py``).
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ildsdk import QuerySettings, Retriever, defaults

EVERY_SLICE = QuerySettings(every_mm=0)


@pytest.fixture(scope="module")
def retriever() -> Iterator[Retriever]:
    with Retriever.open(provider="cpu") as opened:
        opened.query(defaults.demo_study_path())  # kernels compiled, files mapped
        yield opened


def test_study(benchmark, retriever: Retriever) -> None:
    result = benchmark.pedantic(
        lambda: retriever.query(defaults.demo_study_path(), EVERY_SLICE), rounds=3
    )
    slices = result.studies[0].slices
    stages = {
        stage: statistics.median(answer.timings_ms[stage] for answer in slices)
        for stage in slices[0].timings_ms
    }
    benchmark.group = f"query|study|n={len(slices)}|threads={result.provenance.n_threads}"
    benchmark.extra_info["median_ms_by_stage"] = stages
    benchmark.extra_info["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert all(len(answer.neighbors) == 10 for answer in slices)
    print("\nmedian ms by stage:", {stage: round(ms, 2) for stage, ms in stages.items()})
    print("peak resident memory of this process, MB:", benchmark.extra_info["peak_rss_mb"])


def test_cold_start(benchmark, tmp_path: Path) -> None:
    with zipfile.ZipFile(defaults.demo_study_path()) as archive:
        name = archive.namelist()[len(archive.namelist()) // 2]
        one = tmp_path / "one.dcm"
        one.write_bytes(archive.read(name))
    command = [sys.executable, "-m", "ildsdk", "query", str(one), "--format", "json", "-q"]
    subprocess.run(command, check=True, capture_output=True)  # bakes the kernel cache
    benchmark.group = "query|cold start|one file|warm kernel cache"
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=5)
