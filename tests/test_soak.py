"""Many queries in one process: memory, files and threads stay where they are, answers too.

python -m pytest tests/test_soak.py            # a short one
python -m pytest tests/test_soak.py -m slow -s # 2,000 queries, then 2,000 in four threads
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ildsdk import QuerySettings, Retriever, defaults
from ildsdk.ingest import build_index, read_cases_csv
from ildsdk.settings import RuntimeSettings
from tests.archive_factory import write_query_study, write_small_archive
from tests.bundle_factory import write_tiny_bundle

N_CLIENTS = 4
# A query of one 512 x 512 slice holds about 10 MB for a moment. What grew by a hundredth of that
# with each query would have passed 200 MB after 2,000; what the allocator moves about stays under.
MAX_GROWTH_KB_PER_QUERY = 4.0
MAX_GROWTH_MB = 16.0
EVERY_SLICE = QuerySettings(every_mm=0)
Answer = list[tuple[str, float]]


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


M_ARENA_MAX = -8  # malloc.h


def n_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def n_system_threads() -> int:
    """Threads the kernel knows: those of the network too."""
    return len(os.listdir("/proc/self/task"))


def answer_of(retriever: Retriever, study: Path) -> Answer:
    (found,) = retriever.query(study, EVERY_SLICE).studies
    return [(one.item_id, one.score) for answer in found.slices for one in answer.neighbors]


def keep_to_two_arenas() -> None:
    """Let glibc share two heaps among all threads, where it is glibc.

    By default each thread that meets another gets a heap of its own, up to eight per core, and what
    they keep in pieces moves by some 20 MB: too much to tell a leak from.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 2)


class Watch:
    """Resident memory after each of many steps; files and threads at both ends."""

    def __init__(self) -> None:
        gc.collect()
        self._lock = threading.Lock()
        self.memory_mb = [resident_mb()]
        self.n_files, self.n_threads = n_open_files(), n_system_threads()

    def step(self) -> None:
        with self._lock:
            self.memory_mb.append(resident_mb())

    def growth_kb_per_step(self) -> float:
        """Slope of a line through the memory, the first fifth left out as warm-up."""
        kept = np.array(self.memory_mb[len(self.memory_mb) // 5 :])
        return float(np.polyfit(np.arange(len(kept)), kept, 1)[0]) * 1024

    def check(self, name: str, seconds: float) -> None:
        gc.collect()
        quarter = len(self.memory_mb) // 4
        first, last = (
            float(np.median(part))
            for part in (self.memory_mb[quarter : 2 * quarter], self.memory_mb[-quarter:])
        )
        files, threads = n_open_files(), n_system_threads()
        print(
            f"\n{name}: {len(self.memory_mb) - 1} queries in {seconds:.1f} s; resident memory "
            f"{first:.1f} MB in the second quarter, {last:.1f} MB in the last, "
            f"{self.growth_kb_per_step():+.2f} KB a query; files {self.n_files} -> {files}, "
            f"threads {self.n_threads} -> {threads}"
        )
        assert files <= self.n_files
        assert threads <= self.n_threads
        assert last - first <= MAX_GROWTH_MB
        if len(self.memory_mb) > 1000:  # the slope of a few queries is noise
            assert self.growth_kb_per_step() <= MAX_GROWTH_KB_PER_QUERY


def soak(retriever: Retriever, studies: list[Path], n_queries: int, n_warm: int) -> None:
    """``n_queries`` one after another, then as many in four threads."""
    keep_to_two_arenas()
    expected = {study: answer_of(retriever, study) for study in studies}
    for number in range(n_warm):
        answer_of(retriever, studies[number % len(studies)])
    watch = Watch()
    started = time.perf_counter()
    for number in range(n_queries):
        study = studies[number % len(studies)]
        assert answer_of(retriever, study) == expected[study]
        watch.step()
    watch.check("serial", time.perf_counter() - started)

    numbers = iter(range(n_warm))
    lock = threading.Lock()
    wrong: list[object] = []

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            study = studies[number % len(studies)]
            try:
                if answer_of(retriever, study) != expected[study]:
                    wrong.append(number)
            except Exception as error:
                wrong.append(error)
            watch.step()

    run_clients(client)  # each thread's own memory is not growth
    numbers = iter(range(n_queries))
    watch = Watch()
    started = time.perf_counter()
    run_clients(client)
    watch.check(f"{N_CLIENTS} threads", time.perf_counter() - started)
    assert wrong == []


def run_clients(client: object) -> None:
    threads = [threading.Thread(target=client) for _ in range(N_CLIENTS)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soak")
    bundle = write_tiny_bundle(folder / "bundle")
    table = write_small_archive(folder / "archive", ("IPF-ILD", "Normal"), 1)
    build_index(
        folder / "index", read_cases_csv(table), bundle, settings=RuntimeSettings(provider="cpu")
    )
    for seed in (98, 99):
        write_query_study(folder / f"study-{seed}", seed=seed)
    return folder


@pytest.mark.parametrize("remembered_slices", [0, 3])
def test_a_short_soak(tiny: Path, remembered_slices: int) -> None:
    with Retriever.open(
        tiny / "bundle",
        tiny / "index",
        provider="cpu",
        n_threads=2,
        remembered_slices=remembered_slices,
    ) as retriever:
        soak(retriever, [tiny / "study-98", tiny / "study-99"], n_queries=12, n_warm=4)


def test_opening_and_closing_leaves_nothing(tiny: Path) -> None:
    def once() -> None:
        with Retriever.open(
            tiny / "bundle", tiny / "index", provider="cpu", n_threads=2
        ) as retriever:
            answer_of(retriever, tiny / "study-98")

    once()
    gc.collect()
    files, threads = n_open_files(), n_system_threads()
    for _ in range(5):
        once()
    gc.collect()
    assert n_open_files() <= files
    assert n_system_threads() <= threads


@pytest.fixture
def slices_of_the_demo(tmp_path: Path) -> Iterator[list[Path]]:
    with zipfile.ZipFile(defaults.demo_study_path()) as archive:
        names = sorted(archive.namelist())[4:12:2]
        yield [Path(archive.extract(name, tmp_path)) for name in names]


@pytest.mark.slow
def test_two_thousand_queries(slices_of_the_demo: list[Path]) -> None:
    """Queries of one 512 x 512 slice each with the embedded bundle; nothing is remembered."""
    with Retriever.open(provider="cpu", remembered_slices=0) as retriever:
        soak(retriever, slices_of_the_demo, n_queries=2000, n_warm=100)
