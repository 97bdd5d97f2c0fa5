"""Threads pinned first; then the fixtures that the benchmarks share."""

from __future__ import annotations

from benchmarks import pinned  # isort: skip  # before anything imports numpy

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import peers
from benchmarks.contest import Contender, ReplayClock, Report

if TYPE_CHECKING:
    from benchmarks.ours import Ours
    from benchmarks.reference_stack import ReferenceStack


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    """CPU, threads and versions, once for the file; the host's name is nobody's business."""
    from benchmarks.machine import describe_machine

    machine_info.pop("node", None)
    machine_info["ildsdk"] = describe_machine(pinned.N_THREADS)


@pytest.fixture
def replay_clock(request: pytest.FixtureRequest) -> ReplayClock:
    """Make pytest-benchmark read a clock that ``report`` moves."""
    clock = ReplayClock()
    request.node.add_marker(pytest.mark.benchmark(timer=clock))
    return clock


@pytest.fixture
def report(replay_clock: ReplayClock, benchmark: Any) -> Report:
    """Hand the rounds of one contender to pytest-benchmark: group, name, contender, seconds."""

    def hand_over(group: str, name: str, contender: Contender, seconds: list[float]) -> None:
        benchmark.group, benchmark.name = group, name
        facts = {"role": contender.role, "threads": pinned.N_THREADS}
        benchmark.extra_info.update(facts | contender.facts)
        turns = iter(seconds)
        benchmark.pedantic(lambda: replay_clock.advance(next(turns)), rounds=len(seconds))

    return hand_over


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """Rounds to take: the number asked for, 1 where benchmarks are disabled."""
    options = request.config.option
    is_measured = options.benchmark_enable or not options.benchmark_disable
    return lambda n: n if is_measured else 1


@pytest.fixture(scope="session")
def large_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the index of 28,942 slices."""
    from benchmarks.large_index import make_large_index
    from ildsdk import defaults
    from ildsdk.bundle import Bundle

    folder = tmp_path_factory.mktemp("large") / "index"
    make_large_index(folder, Bundle.open(defaults.bundle_path()).bundle_hash)
    return folder


@pytest.fixture(scope="session")
def ours_by_precision(large_index: Path) -> Iterator[dict[str, Ours]]:
    """Our retrievers, fp32 and, where the bundle has it, int8."""
    from benchmarks.ours import Ours, has_int8
    from ildsdk import defaults
    from ildsdk.bundle import Bundle

    precisions = ["fp32"]
    if has_int8(Bundle.open(defaults.bundle_path())):
        precisions.append("int8")
    opened = {
        precision: Ours(large_index, n_threads=pinned.N_THREADS, precision=precision)
        for precision in precisions
    }
    yield opened
    for one in opened.values():
        one.close()


@pytest.fixture(scope="session")
def default_precision(large_index: Path) -> str:
    """The precision a user gets who says nothing."""
    from benchmarks.ours import Ours

    ours = Ours(large_index, n_threads=pinned.N_THREADS)
    ours.close()
    return ours.precision


@pytest.fixture(scope="session")
def phantom_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a healthy phantom's DICOM files."""
    peers.need("scipy")
    from benchmarks.study_files import write_phantom

    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder)
    return folder


@pytest.fixture(scope="session")
def reference_files(
    tmp_path_factory: pytest.TempPathFactory, ours_by_precision: dict[str, Ours]
) -> Path:
    """Folder of the reference stack's weights, settings and index."""
    peers.need(*peers.REFERENCE_STACK)
    from benchmarks.reference_files import write_reference_files

    folder = tmp_path_factory.mktemp("reference")
    ours = ours_by_precision["fp32"]
    write_reference_files(folder, ours.bundle, ours.retriever.index)
    return folder


@pytest.fixture(scope="session")
def reference_stack(reference_files: Path) -> ReferenceStack:
    """The rival, open."""
    from benchmarks.reference_stack import ReferenceStack

    return ReferenceStack.open(reference_files, n_threads=pinned.N_THREADS)
