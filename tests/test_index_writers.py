"""Writers that meet, die, or run out of disk."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ildsdk.errors import IndexFileError
from ildsdk.index import Index, verify_index
from ildsdk.index import writing as writing_module
from tests.index_factory import add_items, make_index

REPO = Path(__file__).parents[1]
N_KILLS = 15
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork and SIGKILL")

_FILE_EVENTS = {"open", "os.rename", "os.remove", "os.listdir", "os.scandir", "sqlite3.connect"}


def _in_child(work: Callable[[], None]) -> int:
    """Run in a forked process that ends without cleaning up; returns its number."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def _die_at_event(path: Path, number: int) -> None:
    """Add once, but be killed just before the given file operation."""
    n_events = 0

    def count(event: str, arguments: object) -> None:
        nonlocal n_events
        if event in _FILE_EVENTS:
            n_events += 1
            if n_events == number:
                os.kill(os.getpid(), signal.SIGKILL)

    with Index.open(path, engine="numpy") as index:
        sys.addaudithook(count)
        add_items(index, len(index), 7)


def _add_for_ever(path: Path, reached: int) -> None:
    """Add again and again, telling after each addition."""
    with Index.open(path, engine="numpy") as index:
        while True:
            add_items(index, len(index), 7)
            os.write(reached, b"x")


def _check_after_kill(path: Path, n_least: int) -> int:
    """Intact, at least the confirmed items there, lock explained; clears the lock."""
    report = verify_index(path, engine="numpy")
    assert report.is_intact, report.problems
    assert report.n_items % 7 == 5
    assert report.n_items >= n_least
    if (path / "write.lock").exists():
        with (
            Index.open(path, engine="numpy") as index,
            pytest.raises(IndexFileError, match=r"delete write\.lock"),
        ):
            add_items(index, len(index), 1)
        (path / "write.lock").unlink()
    return report.n_items


@needs_fork
def test_writer_killed_at_each_file_operation_leaves_a_complete_state(tmp_path: Path) -> None:
    path = tmp_path / "index"
    make_index(path, 5).close()
    n_items, number, is_done = 5, 0, False
    while not is_done:
        number += 1
        pid = _in_child(lambda: _die_at_event(path, number))  # noqa: B023 (runs at once)
        _, status = os.waitpid(pid, 0)
        is_done = os.WIFEXITED(status)
        n_items = _check_after_kill(path, n_items + 7 * is_done)
    assert number > 10  # several operations were interrupted, and then an addition went through
    with Index.open(path, engine="numpy") as index:
        index.set_calibration(0.5, "clean up")
    assert verify_index(path, engine="numpy").leftovers == ()


@needs_fork
def test_writer_killed_at_random_moments_leaves_a_complete_state(tmp_path: Path) -> None:
    path = tmp_path / "index"
    started = time.perf_counter()
    make_index(path, 5).close()
    one_addition_s = time.perf_counter() - started
    generator = random.Random(0)
    n_items = 5
    for _ in range(N_KILLS):
        reached, reaches = os.pipe()
        pid = _in_child(lambda: _add_for_ever(path, reaches))  # noqa: B023 (runs at once)
        os.close(reaches)
        os.read(reached, 1)
        time.sleep(generator.uniform(0, 2 * one_addition_s))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        n_told = 1
        while told := os.read(reached, 1000):
            n_told += len(told)
        os.close(reached)
        n_items = _check_after_kill(path, n_items + 7 * n_told)


def test_leftovers_are_ignored_by_readers_and_deleted_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "index"
    make_index(path, 5).close()
    names = (
        "arrays-000003.safetensors", "items-000003.sqlite.tmp",
        "manifest.json.tmp", "arrays-000003.safetensors.tmp",
    )  # fmt: skip
    for name in (*names, "notes.txt"):
        (path / name).write_bytes(b"half")
    report = verify_index(path)
    assert report.is_intact
    assert set(report.leftovers) == set(names)
    with Index.open(path) as index:
        add_items(index, 5, 5)
        assert len(index) == 10
    assert verify_index(path).leftovers == ()
    assert (path / "notes.txt").exists()


def test_two_writers_exclude_each_other(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 5) as first, Index.open(tmp_path / "index") as second:
        with writing_module.writer_lock(tmp_path / "index"):
            with pytest.raises(IndexFileError, match=f"being written by process {os.getpid()} on"):
                add_items(first, 5, 1)
            with pytest.raises(IndexFileError, match="being written"):
                second.set_calibration(0.1, "")
            assert len(second) == 5
        add_items(second, 5, 1)
        assert verify_index(tmp_path / "index").n_items == 6


@pytest.mark.skipif(os.name != "posix", reason="the owner is looked up on POSIX only")
def test_stale_lock_message_tells_the_owner_is_gone(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 5) as index:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        owner = {"pid": gone.pid, "host": socket.gethostname()}
        for content, told in (
            (json.dumps(owner), "no longer runs: delete write.lock"),
            (json.dumps({**owner, "host": "elsewhere"}), "wait until it is done"),
            ("", "unknown process"),
            ("[]", "unknown process"),
        ):
            (tmp_path / "index" / "write.lock").write_text(content)
            with pytest.raises(IndexFileError, match=told):
                add_items(index, 5, 1)


@pytest.mark.parametrize("n_good", range(6))
def test_full_disk_leaves_a_complete_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_good: int
) -> None:
    """Each sync of an addition in turn fails: arrays, folder, items, folder, manifest, folder."""
    path = tmp_path / "index"
    index = make_index(path, 5)
    before = sorted(path.iterdir())
    real, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > n_good:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(IndexFileError, match="No space left on device"):
            add_items(index, 5, 5)
    assert len(index) == 5
    report = verify_index(path)
    assert report.is_intact, report.problems
    assert report.leftovers == ()
    if n_good < 5:
        assert sorted(path.iterdir()) == before
        add_items(index, 5, 5)
    assert verify_index(path).n_items == 10


@pytest.mark.skipif(os.name != "posix", reason="file size limit")
@pytest.mark.parametrize("limit", [300, 2_000, 6_000, 30_000])
def test_system_that_refuses_bytes_leaves_the_old_state(tmp_path: Path, limit: int) -> None:
    """A file size limit makes real writes fail midway, in our code and inside SQLite."""
    path = tmp_path / "index"
    make_index(path, 5).close()
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    program = (
        "import resource, sys; from ildsdk.index import Index; from ildsdk.errors import IldError\n"
        "from tests.index_factory import add_items\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "with Index.open(sys.argv[1], engine='numpy') as index:\n"
        "    try: add_items(index, 5, 60)\n"
        "    except IldError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(path)], cwd=REPO, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("index could not be written: "), done.stdout + done.stderr
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_failed_creation_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "fsync", full)
        with pytest.raises(IndexFileError, match="No space left"):
            make_index(tmp_path / "index")
    assert list((tmp_path / "index").iterdir()) == []
    (tmp_path / "index" / "hyperplanes.safetensors").write_bytes(b"of a killed creation")
    make_index(tmp_path / "index", 5).close()
    assert verify_index(tmp_path / "index").is_intact


def test_adding_does_not_touch_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with make_index(path, 5) as index:
        before = {
            file.name: (file.stat().st_ino, file.stat().st_mtime_ns)
            for file in path.iterdir()
            if file.name != "manifest.json"
        }
        add_items(index, 5, 5)
    for name, facts in before.items():
        assert ((path / name).stat().st_ino, (path / name).stat().st_mtime_ns) == facts
