"""How long the 102 features take, beside pyradiomics in the same process, one thread.

    python -m pytest benchmarks/bench_radiomics.py -s --benchmark-enable

Real lungs where ILDSDK_TEST_DATA (or ../shared/data) has them, a texture of the same size
otherwise. Answers are compared before they are timed; the two engines take turns, and the
processor time of the thread stands beside the wall clock, so that a busy machine does not
decide. The figures stand in ``extra_info`` and are printed.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_limits

from benchmarks.contest import Contender, Report, Rounds
from benchmarks.contest import interleaved as interleaved_rounds
from ildsdk.radiomics import RadiomicsExtractor, RadiomicsScratch, RadiomicsSettings
from tests.radiomics_parity import compare
from tests.radiomics_slices import blob, real_lungs, texture

SPACING = (0.7, 0.7)
Region = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def of_size(n_pixels: int) -> Region:
    """A textured ellipse of about that many pixels."""
    side = int(np.sqrt(n_pixels / (np.pi * 0.45**2)) * 1.03)
    return texture(1, (side, side)), blob((side, side), 0.45)


@pytest.fixture(scope="module")
def lung() -> Region:
    """The real lung whose mask is nearest to 70,000 pixels."""
    folder = Path(os.environ.get("ILDSDK_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        return of_size(70_000)
    lungs = ((pixels, mask) for _, pixels, mask, _ in real_lungs(folder))
    return min(lungs, key=lambda region: abs(np.count_nonzero(region[1]) - 70_000))


def interleaved(
    actions: dict[str, Callable[[], Any]],
    n_rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of each action by the given clock; the actions take turns."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(n_rounds):
        for name, action in actions.items():
            start = clock()
            action()
            times[name].append((clock() - start) * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


@pytest.fixture(scope="module")
def contest(
    lung: Region, rounds: Callable[[int], int]
) -> tuple[dict[str, Contender], dict[str, Rounds]]:
    """Both engines in turn, after their values were compared."""
    fast, reference = RadiomicsExtractor(), RadiomicsExtractor(engine="pyradiomics")
    scratch = RadiomicsScratch()
    theirs = reference.extract(*lung, SPACING).values
    differences = compare(theirs, fast.extract(*lung, SPACING).values)
    facts = {
        "n_pixels": int(np.count_nonzero(lung[1])),
        "scratch_mib": scratch.n_bytes / 2**20,
        "largest_relative_difference": max(differences.values()),
        "threads": 1,
    }
    contenders = {
        "fast": Contender(
            act=lambda _: fast.extract(*lung, SPACING, scratch=scratch), role="ours", facts=facts
        ),
        "fast, new scratch": Contender(
            act=lambda _: fast.extract(*lung, SPACING), role="ours", facts=facts
        ),
        "fast, two threads": Contender(
            act=lambda _: fast.extract(*lung, SPACING, scratch=scratch, n_threads=2),
            role="ours",
            facts={**facts, "threads": 2},
        ),
        "pyradiomics": Contender(
            act=lambda _: reference.extract(*lung, SPACING), role="rival", facts={"threads": 1}
        ),
    }
    with threadpool_limits(1):
        return contenders, interleaved_rounds(contenders, rounds(25))


@pytest.mark.parametrize("name", ["fast", "fast, new scratch", "fast, two threads", "pyradiomics"])
def test_against_pyradiomics(
    report: Report, contest: tuple[dict[str, Contender], dict[str, Rounds]], name: str
) -> None:
    contenders, found = contest
    group = f"radiomics|features=102|lung of {contenders['fast'].facts['n_pixels']} pixels"
    report(group, name, contenders[name], found[name].seconds)


@pytest.mark.benchmark(group="radiomics|features=102|growth with pixels")
@pytest.mark.parametrize("n_pixels", [5_000, 20_000, 70_000, 250_000])
def test_growth_with_pixels(benchmark: Any, n_pixels: int) -> None:
    region, scratch, fast = of_size(n_pixels), RadiomicsScratch(), RadiomicsExtractor()
    n_true = int(np.count_nonzero(region[1]))
    result = benchmark(lambda: fast.extract(*region, SPACING, scratch=scratch))
    assert result.is_valid.all()
    found = interleaved(
        {"fast": lambda: fast.extract(*region, SPACING, scratch=scratch)}, 15, time.thread_time
    )
    benchmark.extra_info.update(
        n_pixels=n_true,
        processor_ms=found["fast"],
        processor_ns_per_pixel=found["fast"] * 1e6 / n_true,
        scratch_bytes_per_pixel=scratch.n_bytes / n_true,
    )
    print(f"\n{benchmark.extra_info}")


@pytest.mark.benchmark(group="radiomics|features=102|growth with gray levels")
@pytest.mark.parametrize("n_levels", [60, 500, 2000])
def test_growth_with_gray_levels(benchmark: Any, n_levels: int) -> None:
    pixels, mask = of_size(70_000)
    noise = np.random.default_rng(2).uniform(-1000.0, 1000.0, pixels.shape).astype(np.float32)
    fast = RadiomicsExtractor(RadiomicsSettings(bin_width=2000.0 / n_levels))
    scratch = RadiomicsScratch()
    result = benchmark(lambda: fast.extract(noise, mask, SPACING, scratch=scratch))
    assert result.is_valid.all()
    found = interleaved(
        {"fast": lambda: fast.extract(noise, mask, SPACING, scratch=scratch)}, 9, time.thread_time
    )
    benchmark.extra_info.update(found, n_levels=n_levels, scratch_mib=scratch.n_bytes / 2**20)
    print(f"\n{benchmark.extra_info}")


def slices_on_request(request: Connection, lung: Region) -> None:
    """Work of a process of its own: a round for each message."""
    fast, scratch = RadiomicsExtractor(), RadiomicsScratch()
    while request.recv():
        for _ in range(12):
            fast.extract(*lung, SPACING, scratch=scratch)
        request.send(True)


@pytest.mark.benchmark(group="radiomics|features=102|threads")
def test_two_threads(benchmark: Any, lung: Region) -> None:
    """Two processes, which share no lock, tell what two cores of this machine can give."""
    fast = RadiomicsExtractor()
    scratches = [RadiomicsScratch(), RadiomicsScratch()]
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=slices_on_request, args=(theirs, lung), daemon=True)
        for _, theirs in pipes
    ]
    for process in processes:
        process.start()

    def work(scratch: RadiomicsScratch) -> None:
        for _ in range(12):
            fast.extract(*lung, SPACING, scratch=scratch)

    def in_processes() -> None:
        for ours, _ in pipes:
            ours.send(True)
        for ours, _ in pipes:
            ours.recv()

    with ThreadPoolExecutor(2) as pool:
        found = interleaved(
            {
                "one": lambda: [work(scratch) for scratch in scratches],
                "two threads": lambda: list(pool.map(work, scratches)),
                "two processes": in_processes,
            },
            31,
        )
    for ours, _ in pipes:
        ours.send(False)
    benchmark.extra_info.update(
        found,
        scaling_of_threads=found["one"] / found["two threads"],
        scaling_of_processes=found["one"] / found["two processes"],
    )
    print(f"\n{benchmark.extra_info}")
    benchmark(lambda: work(scratches[0]))


@pytest.mark.benchmark(group="radiomics|features=102|memory and cold start")
def test_memory_and_cold_start(benchmark: Any, lung: Region) -> None:
    fast = RadiomicsExtractor()
    fast.extract(*lung, SPACING)
    tracemalloc.start()
    fast.extract(*lung, SPACING)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    code = (
        "import time; t = time.perf_counter();"
        "from ildsdk.radiomics import RadiomicsExtractor; import numpy as np;"
        "n = time.perf_counter(); m = np.zeros((64, 64), bool); m[8:50, 8:50] = True;"
        "p = (np.indices((64, 64)).sum(axis=0) * 7 % 500 - 900).astype('f4');"
        "RadiomicsExtractor().extract(p, m, (0.7, 0.7));"
        "print(n - t, time.perf_counter() - n)"
    )
    runs = []
    for _ in range(6):
        text = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        runs.append([float(second) for second in text.split()])
    imported, first = np.median(runs[1:], axis=0)
    benchmark.extra_info.update(
        peak_mib=peak / 2**20, import_ms=imported * 1e3, first_call_ms=first * 1e3
    )
    print(f"\n{benchmark.extra_info}")
    benchmark(lambda: fast.extract(*lung, SPACING))
