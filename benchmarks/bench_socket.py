"""One query over the resident server's socket beside the same query in process; the fresh client.

    python -m pytest benchmarks/bench_socket.py --benchmark-enable

The server is a process of its own. Both sides are warm and remember no slices (or both would
answer from memory); every answer is compared. Queries come in bursts of four on each side, and the
last one counts: two processes in turn push each other's networks out of the processor's caches and
off its cores, which makes neither of them warm. What a first query after such a break costs is
measured too, beside it.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contest import PAUSE_S, Contender, Report, Role, Rounds, interleaved
from benchmarks.pinned import N_THREADS, users_environment
from ildsdk import Retriever
from ildsdk.serve.client import Client

GROUP = "socket|query|one file|warm|socket vs in-process, 28942 slices"
GROUP_BREAK = "socket|query|one file|after a break of both|socket vs in-process, 28942 slices"
GROUP_FRESH = "socket|query|one file|fresh client process"
N_ROUNDS, N_FRESH_ROUNDS = 40, 11
SOCKET, UPLOAD, IN_PROCESS = "over the socket", "over the socket, uploaded", "in process"
ROLES: dict[str, Role] = {SOCKET: "ours", UPLOAD: "variant", IN_PROCESS: "rival"}
FRESH, BARE = "ildsdk query --socket", "python -c 'import click'"

Contest = tuple[dict[str, Contender], dict[str, Rounds]]


@pytest.fixture(scope="module")
def one_file(phantom_files: Path) -> Path:
    """A slice in the middle of the phantom."""
    paths = sorted(phantom_files.iterdir())
    return paths[len(paths) // 2]


@pytest.fixture(scope="module")
def socket_path(large_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a warm server listens."""
    path = tmp_path_factory.mktemp("s") / "s.sock"
    server = subprocess.Popen(
        [sys.executable, "-m", "ildsdk", "serve", "--socket", str(path), "--index",
         str(large_index), "--provider", "cpu", "--threads", str(N_THREADS),
         "--remembered-slices", "0", "--no-log"],
        stderr=subprocess.PIPE, text=True, env=users_environment(is_pinned=False),
    )  # fmt: skip
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert line.startswith("ready on"), line + server.stderr.read()
        yield path
    finally:
        server.terminate()
        assert server.wait(60) == 0


@pytest.fixture(scope="module")
def contests(
    one_file: Path, socket_path: Path, large_index: Path, rounds: Callable[[int], int]
) -> dict[str, Contest]:
    """The ways in turn, by group."""
    with (
        Retriever.open(
            index=large_index, provider="cpu", n_threads=N_THREADS, remembered_slices=0
        ) as retriever,
        Client(socket_path) as client,
    ):
        facts = {"precision": client.info().get("precision", "fp32")}
        ways: dict[str, Callable[[Any], Any]] = {
            SOCKET: lambda _: client.query(one_file),
            UPLOAD: lambda _: client.upload(one_file),
            IN_PROCESS: lambda _: retriever.query(one_file),
        }
        made = {}
        for group, n_uncounted, pause in ((GROUP, 3, 0.0), (GROUP_BREAK, 0, PAUSE_S)):
            contenders = {
                name: Contender(
                    act=ask, prepare=functools.partial(_burst, ask, n_uncounted),
                    role=ROLES[name],
                    facts=facts | ({"is_default": True} if name == SOCKET else {}),
                )
                for name, ask in ways.items()
            }  # fmt: skip
            resting = functools.partial(_rest, pause)
            found = interleaved(contenders, rounds(N_ROUNDS), pause=resting)
            _check(found)
            made[group] = contenders, found
    return made


def _check(found: dict[str, Rounds]) -> None:
    """All ways must answer alike."""
    expected = untimed(json.loads(found[IN_PROCESS].results[0].to_json()))
    for answer in found[SOCKET].results:
        assert untimed(json.loads(answer)) == expected
    expected["studies"][0]["slices"][0]["source"] = "upload.dcm"
    for answer in found[UPLOAD].results:
        assert untimed(json.loads(answer)) == expected


def _rest(seconds: float, _: float) -> None:
    if seconds:
        time.sleep(seconds)


def _burst(ask: Callable[[Any], Any], n_uncounted: int, number: int) -> int:
    for _ in range(n_uncounted):
        ask(number)
    return number


@pytest.fixture(scope="module")
def fresh_contest(one_file: Path, socket_path: Path, rounds: Callable[[int], int]) -> Contest:
    """A process that asks, beside one that only starts."""
    ask = ["-m", "ildsdk", "query", str(one_file), "--socket", str(socket_path), "--format", "json"]
    contenders = {
        FRESH: Contender(act=lambda _: run(ask), role="ours", facts={"is_default": True}),
        BARE: Contender(act=lambda _: run(["-c", "import click"]), role="yardstick"),
    }
    found = interleaved(contenders, rounds(N_FRESH_ROUNDS), n_warm=1)
    with Client(socket_path) as client:
        expected = untimed(json.loads(client.query(one_file)))
    for answer in found[FRESH].results:
        assert untimed(json.loads(answer)) == expected
    return contenders, found


def run(arguments: list[str]) -> bytes:
    """Stdout of a fresh interpreter."""
    return subprocess.run(
        [sys.executable, *arguments],
        check=True, capture_output=True, env=users_environment(is_pinned=False),
    ).stdout  # fmt: skip


def untimed(answer: Any) -> Any:
    """An answer without its timings."""
    if isinstance(answer, dict):
        return {key: untimed(value) for key, value in answer.items() if key != "timings_ms"}
    return [untimed(value) for value in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize("name", [SOCKET, UPLOAD, IN_PROCESS])
@pytest.mark.parametrize("group", [GROUP, GROUP_BREAK])
def test_one_query(report: Report, contests: dict[str, Contest], group: str, name: str) -> None:
    contenders, found = contests[group]
    report(group, name, contenders[name], found[name].seconds)


@pytest.mark.parametrize("name", [FRESH, BARE])
def test_fresh_client(report: Report, fresh_contest: Contest, name: str) -> None:
    contenders, found = fresh_contest
    report(GROUP_FRESH, name, contenders[name], found[name].seconds)
