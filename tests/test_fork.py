"""Forked workers: opened before or after the fork, each answers, and each ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from ildsdk import QuerySettings, Retriever
from ildsdk.ingest import build_index, read_cases_csv
from ildsdk.per_process import PerProcess
from ildsdk.runtime.threads import available_cpus
from ildsdk.settings import RuntimeSettings
from tests.archive_factory import write_query_study, write_small_archive
from tests.bundle_factory import write_tiny_bundle

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

LIMIT_S = 60
EVERY_SLICE = QuerySettings(every_mm=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fork")
    bundle = write_tiny_bundle(folder / "bundle", with_maps=True)
    table = write_small_archive(folder / "archive", ("IPF-ILD", "Normal"), 2)
    build_index(
        folder / "index", read_cases_csv(table), bundle, settings=RuntimeSettings(provider="cpu")
    )
    write_query_study(folder / "study")
    return folder


def opened(world: Path) -> Retriever:
    return Retriever.open(world / "bundle", world / "index", provider="cpu", n_threads=2)


def answers_of(retriever: Retriever, world: Path) -> list[object]:
    (study,) = retriever.query(world / "study", EVERY_SLICE).studies
    return [[[one.item_id, one.score] for one in each.neighbors] for each in study.slices]


def in_child(work: Callable[[], object]) -> object:
    """What ``work`` gives in a forked child, which leaves as those of multiprocessing do."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT_S)  # a child that hangs is killed by the system
        status = 1
        try:
            os.close(readable)
            with os.fdopen(writable, "w") as stream:
                json.dump(work(), stream)
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.close(writable)
    with os.fdopen(readable) as stream:
        text = stream.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return json.loads(text)


@pytest.fixture
def retriever(world: Path) -> Retriever:
    with opened(world) as one:
        yield one


def test_opened_before_the_fork(world: Path, retriever: Retriever) -> None:
    expected = answers_of(retriever, world)
    assert in_child(lambda: answers_of(retriever, world)) == expected
    assert answers_of(retriever, world) == expected


def test_opened_after_the_fork(world: Path, retriever: Retriever) -> None:
    expected = answers_of(retriever, world)

    def work() -> object:
        with opened(world) as own:
            return answers_of(own, world)

    assert in_child(work) == expected


def test_a_child_of_a_child(world: Path, retriever: Retriever) -> None:
    expected = answers_of(retriever, world)

    def work() -> object:
        own = answers_of(retriever, world)
        return [own, in_child(lambda: answers_of(retriever, world))]

    assert in_child(work) == [expected, expected]


def test_threads_of_a_child_share_what_it_opens(world: Path, retriever: Retriever) -> None:
    expected = answers_of(retriever, world)

    def work() -> object:
        found: list[object] = []
        threads = [
            threading.Thread(target=lambda: found.append(answers_of(retriever, world)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    assert in_child(work) == [expected] * 4


def test_forked_while_another_thread_queries(world: Path, retriever: Retriever) -> None:
    """Locks that are held at the moment of the fork do not stop the child."""
    expected = answers_of(retriever, world)
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.is_set():
            answers_of(retriever, world)

    threads = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            time.sleep(0.01)
            assert in_child(lambda: answers_of(retriever, world)) == expected
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_a_closed_retriever_stays_closed_for_its_own_process(
    world: Path, retriever: Retriever
) -> None:
    expected = answers_of(retriever, world)

    def work() -> object:
        found = answers_of(retriever, world)
        retriever.close()
        return found

    assert in_child(work) == expected
    assert answers_of(retriever, world) == expected


def test_closing_in_a_child_opens_nothing(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("opened to be closed")

    monkeypatch.setattr(retriever._opened, "_reopen", refuse)
    assert in_child(retriever.close) is None


def test_pool_of_multiprocessing(world: Path, retriever: Retriever) -> None:
    expected = answers_of(retriever, world)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    workers = [
        context.Process(target=lambda: results.put(answers_of(retriever, world))) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LIMIT_S)
        assert worker.exitcode == 0
    assert [results.get() for _ in workers] == [expected] * 3


_PREFORK = """
import os, signal, sys
sys.path.insert(0, {repo!r})
from tests.test_fork import answers_of, opened
from pathlib import Path
import json

world = Path(sys.argv[1])
when, n_queries = sys.argv[2], int(sys.argv[3])
retriever = opened(world)
if when == "used":
    answers_of(retriever, world)
pids = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        signal.alarm({limit})
        found = [answers_of(retriever, world) for _ in range(n_queries)]
        (world / f"worker-{{number}}.json").write_text(json.dumps(found))
        sys.exit(0)  # through the whole end of an interpreter
    pids.append(pid)
states = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
print(json.dumps([states, answers_of(retriever, world)]))
"""


@pytest.mark.parametrize(("when", "n_queries"), [("used", 2), ("unused", 0)])
def test_preloaded_workers_answer_and_end(
    world: Path, repo: Path, when: str, n_queries: int
) -> None:
    """As gunicorn does it with --preload: open, fork workers, each serves, each exits."""
    code = _PREFORK.format(repo=str(repo), limit=LIMIT_S)
    done = subprocess.run(
        [sys.executable, "-c", code, str(world), when, str(n_queries)],
        capture_output=True,
        text=True,
        check=True,
        timeout=4 * LIMIT_S,
    )
    states, expected = json.loads(done.stdout)
    assert states == [0, 0, 0], done.stderr
    for number in range(3):
        found = json.loads((world / f"worker-{number}.json").read_text())
        assert found == [expected] * n_queries
        (world / f"worker-{number}.json").unlink()


class TestPerProcess:
    def test_a_process_keeps_its_value(self) -> None:
        value = PerProcess(["first"], lambda parent: [*parent, "again"])
        assert value.get() is value.get()
        assert value.get() == ["first"]

    def test_a_child_makes_one_of_its_own(self) -> None:
        value = PerProcess(["first"], lambda parent: [*parent, "again"])
        assert in_child(lambda: [value.get(), value.get() is value.get()]) == [
            ["first", "again"],
            True,
        ]
        assert value.get() == ["first"]

    def test_an_error_is_not_kept(self) -> None:
        errors = [OSError("made up")]

        def reopen(parent: int) -> int:
            if errors:
                raise errors.pop()
            return parent + 1

        value = PerProcess(1, reopen)

        def work() -> object:
            with pytest.raises(OSError, match="made up"):
                value.get()
            return value.get()

        assert in_child(work) == 2


_TELEMETRY = """
import os, sys
import ildsdk.runtime.session
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def test_onnxruntime_starts_no_telemetry_client(tmp_path: Path) -> None:
    """Its device id would lie in the user's cache, and its threads outlive no fork."""
    hidden = {"CI", "ORT_DISABLE_TELEMETRY", "GITHUB_ACTIONS", "TF_BUILD"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _TELEMETRY],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
    assert not any("icrosoft" in path.name for path in tmp_path.rglob("*"))


class TestCpuBudget:
    def test_affinity(self) -> None:
        cpu = min(os.sched_getaffinity(0))
        code = (
            f"import os; os.sched_setaffinity(0, {{{cpu}}})\n"
            "from ildsdk.runtime.threads import available_cpus\n"
            "print(available_cpus())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "1"

    def test_quota_of_the_own_group_and_of_those_above(self, tmp_path: Path) -> None:
        membership = tmp_path / "membership"
        membership.write_text("3:cpuset:/other\n1:cpu,cpuacct:/a/b\n0::/slice/service\n")
        everything = available_cpus(tmp_path / "absent", membership)
        assert available_cpus(tmp_path, membership) == everything
        for group in ("slice/service", "slice"):
            folder = tmp_path / group
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cpu.max").write_text("90000 100000\n")
            assert available_cpus(tmp_path, membership) == 1
            (folder / "cpu.max").write_text("max 100000\n")
            assert available_cpus(tmp_path, membership) == everything
        for group in ("cpu/a/b", "cpu/a"):
            folder = tmp_path / group
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cpu.cfs_quota_us").write_text("100000\n")
            (folder / "cpu.cfs_period_us").write_text("100000\n")
            assert available_cpus(tmp_path, membership) == 1
            (folder / "cpu.cfs_quota_us").write_text("-1\n")
            assert available_cpus(tmp_path, membership) == everything

    def test_a_real_group(self) -> None:
        """A process put into a group of one CPU opens with one thread."""
        group = own_cpu_group()
        try:
            code = (
                f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
                "from ildsdk.runtime.threads import available_cpus\n"
                "print(available_cpus())"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            assert done.stdout.strip() == "1"
        finally:
            group.rmdir()


def own_cpu_group() -> Path:
    """A new group limited to one CPU; skips where this process may not make one."""
    for root, limits in (
        (Path("/sys/fs/cgroup"), {"cpu.max": "100000 100000"}),
        (
            Path("/sys/fs/cgroup/cpu"),
            {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"},
        ),
    ):
        group = root / f"ildsdk-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for name, value in limits.items():
                # Opened for update: in a folder that is no group nothing must come into being.
                with (group / name).open("r+") as file:
                    file.write(value)
            return group
        except OSError:
            group.rmdir()
    pytest.skip("no cgroup can be made here")
