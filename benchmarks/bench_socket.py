"""One query over the resident server's socket beside the same query in process; the fresh client.

    python -m pytest benchmarks/bench_socket.py --benchmark-enable

The server is a process of its own. Both sides are warm and remember no slices (or both would
answer from memory); every answer is compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contest import Contender, Report, Rounds, interleaved
from benchmarks.pinned import N_THREADS, users_environment
from ildsdk import Retriever
from ildsdk.serve.client import Client

GROUP = "socket|query|one file|warm|socket vs in-process, 28942 slices"
GROUP_FRESH = "socket|query|one file|fresh client process"
N_ROUNDS, N_FRESH_ROUNDS = 60, 11
SOCKET, UPLOAD, IN_PROCESS = "over the socket", "over the socket, uploaded", "in process"
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
def contest(
    one_file: Path, socket_path: Path, large_index: Path, rounds: Callable[[int], int]
) -> Contest:
    """The ways in turn."""
    with (
        Retriever.open(
            index=large_index, provider="cpu", n_threads=N_THREADS, remembered_slices=0
        ) as retriever,
        Client(socket_path) as client,
    ):
        precision = client.info().get("precision", "fp32")
        facts = {"precision": precision}
        contenders = {
            SOCKET: Contender(
                act=lambda _: client.query(one_file), role="ours",
                facts={**facts, "is_default": True},
            ),
            UPLOAD: Contender(act=lambda _: client.upload(one_file), role="variant", facts=facts),
            IN_PROCESS: Contender(
                act=lambda _: retriever.query(one_file), role="rival", facts=facts
            ),
        }  # fmt: skip
        found = interleaved(contenders, rounds(N_ROUNDS))
    expected = untimed(json.loads(found[IN_PROCESS].results[0].to_json()))
    for answer in found[SOCKET].results:
        assert untimed(json.loads(answer)) == expected
    expected["studies"][0]["slices"][0]["source"] = "upload.dcm"
    for answer in found[UPLOAD].results:
        assert untimed(json.loads(answer)) == expected
    return contenders, found


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
def test_one_query(report: Report, contest: Contest, name: str) -> None:
    contenders, found = contest
    report(GROUP, name, contenders[name], found[name].seconds)


@pytest.mark.parametrize("name", [FRESH, BARE])
def test_fresh_client(report: Report, fresh_contest: Contest, name: str) -> None:
    contenders, found = fresh_contest
    report(GROUP_FRESH, name, contenders[name], found[name].seconds)
