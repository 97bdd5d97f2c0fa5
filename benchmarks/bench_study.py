"""Studies from DICOM files to all answers: 30 slices beside the reference stack, and 300 slices.

    python -m pytest benchmarks/bench_study.py --benchmark-enable

The yardstick is the network alone: the same sessions on inputs that lie ready, as many times as
the study has slices. "2 x 1 thread" runs two at a time with one thread each, which gives more
slices a second and a longer wait for each. The reference stack takes the 30 slices only (300 would
take a minute or more a round), once slice by slice, as it would be written first, and once in two
processes of one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers

peers.need(*peers.REFERENCE_STACK)

from benchmarks.contest import Contender, Report, Rounds, interleaved  # noqa: E402
from benchmarks.ours import EVERY_SLICE, Ours  # noqa: E402
from benchmarks.pinned import N_THREADS  # noqa: E402
from benchmarks.reference_processes import ReferenceProcesses  # noqa: E402
from benchmarks.reference_stack import ReferenceStack  # noqa: E402
from benchmarks.study_files import write_study  # noqa: E402
from ildsdk.dicom import discover, read_slice  # noqa: E402

N_ROUNDS = {30: 7, 300: 5}
OURS = ("ildsdk fp32", "ildsdk int8")
NETWORK, NETWORK_SPLIT = "network alone, {}", "network alone, {}, 2 x 1 thread"
STACK, STACK_PROCESSES = "reference stack", "reference stack, 2 processes"
NAMES = [
    *OURS,
    *(name.format(kind) for kind in ("fp32", "int8") for name in (NETWORK, NETWORK_SPLIT)),
    STACK,
    STACK_PROCESSES,
]  # fmt: skip

Contest = tuple[dict[str, Contender], dict[str, Rounds]]


@pytest.fixture(scope="module", params=N_ROUNDS)
def n_slices(request: pytest.FixtureRequest) -> int:
    """Slices of the study."""
    return request.param


@pytest.fixture(scope="module")
def contest(
    n_slices: int,
    tmp_path_factory: pytest.TempPathFactory,
    large_index: Path,
    ours_by_precision: dict[str, Ours],
    default_precision: str,
    reference_stack: ReferenceStack,
    reference_files: Path,
    phantom_files: Path,
    rounds: Callable[[int], int],
) -> Iterator[Contest]:
    """All contenders in turn, once for all tests of a study."""
    study = tmp_path_factory.mktemp("study") / str(n_slices)
    write_study(study, n_slices, phantom_files)
    contenders: dict[str, Contender] = {}
    for precision, ours in ours_by_precision.items():
        facts = {
            "precision": precision,
            "is_default": precision == default_precision,
            "n_slices": n_slices,
        }
        contenders[f"ildsdk {precision}"] = Contender(
            act=lambda _, ours=ours: _query(ours, study, n_slices), role="ours", facts=facts
        )
        inputs = _inputs(ours, study)
        alone = Ours(large_index, n_threads=1, precision=precision)
        for name, one, n_workers in ((NETWORK, ours, 1), (NETWORK_SPLIT, alone, N_THREADS)):
            contenders[name.format(precision)] = Contender(
                act=lambda _, one=one, inputs=inputs, n=n_workers: _network(
                    one, inputs, n_slices, n
                ),
                role="yardstick",
                facts=facts,
            )
    with ReferenceProcesses(reference_files, N_THREADS) as processes:
        if n_slices == 30:
            paths = sorted(study.iterdir())
            facts = {"n_slices": n_slices}
            contenders[STACK] = Contender(
                act=lambda _: [reference_stack.query_file(path).rows for path in paths],
                role="rival",
                facts=facts,
            )
            contenders[STACK_PROCESSES] = Contender(
                act=lambda _: processes.query_files(paths), role="rival", facts=facts
            )
        yield contenders, interleaved(contenders, rounds(N_ROUNDS[n_slices]), n_warm=1)


def _query(ours: Ours, study: Path, n_slices: int) -> None:
    answers = ours.retriever.query(study, EVERY_SLICE).studies[0].slices
    assert len(answers) == n_slices, f"{len(answers)} of {n_slices} slices answered"
    assert all(len(answer.neighbors) == 10 for answer in answers)


def _inputs(ours: Ours, study: Path, n: int = 12) -> list[tuple[Any, Any]]:
    """Model inputs and features of some slices of the study."""
    headers = discover(study, every_mm=0).studies[0].slices
    found = []
    for header in headers[:: max(1, len(headers) // n)]:
        found.append(ours.network_input(read_slice(header)))
    return found


def _network(ours: Ours, inputs: list[tuple[Any, Any]], n: int, n_workers: int) -> None:
    turns = [inputs[i % len(inputs)] for i in range(n)]
    if n_workers == 1:
        for turn in turns:
            ours.run_network(*turn)
        return
    with ThreadPoolExecutor(n_workers) as pool:
        list(pool.map(lambda turn: ours.run_network(*turn), turns))


@pytest.mark.parametrize("name", NAMES)
def test_study(report: Report, n_slices: int, contest: Contest, name: str) -> None:
    contenders, found = contest
    if name not in contenders:
        pytest.skip("not a contender of this study")
    group = f"study|phantom files, 512x512|{n_slices} slices"
    report(group, name, contenders[name], found[name].seconds)
