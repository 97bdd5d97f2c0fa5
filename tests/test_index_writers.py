"""Writers that meet, or run out of disk (those that die: test_index_kills.py)."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ildsdk.errors import IndexFileError
from ildsdk.index import Index, repair_index, verify_index
from ildsdk.index.locking import writer_lock
from ildsdk.index.manifest import COPY_NAME, read_manifest
from tests.index_factory import add_items, make_index

REPO = Path(__file__).parents[1]


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
    path = tmp_path / "index"
    with make_index(path, 5) as first, Index.open(path) as second:
        with writer_lock(path):
            for write in (
                lambda: add_items(first, 5, 1),
                lambda: second.set_calibration(0.1, ""),
                lambda: second.remove(case_ids=["case-0"]),
                second.compact,
                lambda: repair_index(path),
            ):
                with pytest.raises(
                    IndexFileError, match=f"being written by process {os.getpid()} on"
                ):
                    write()
            assert len(second) == 5
        assert not (path / "write.lock").exists()
        add_items(second, 5, 1)
        assert verify_index(path).n_items == 6


def test_a_lock_left_behind_hinders_nobody(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 5) as index:
        for n_items, content in enumerate(("", json.dumps({"pid": 1, "host": "x"}), "[]"), start=5):
            (tmp_path / "index" / "write.lock").write_text(content)
            add_items(index, n_items, 1)
        assert not (tmp_path / "index" / "write.lock").exists()


def test_a_lock_dies_with_its_process_and_names_it_until_then(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from ildsdk.index.locking import writer_lock\n"
        "with writer_lock(pathlib.Path(sys.argv[1])): print('locked', flush=True); input()\n"
    )
    with make_index(tmp_path / "index", 5) as index:
        owner = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "index")],
            cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        with pytest.raises(IndexFileError, match=f"process {owner.pid} on host") as caught:
            add_items(index, 5, 1)
        assert socket.gethostname() in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
        owner.kill()
        owner.communicate()
        add_items(index, 5, 1)


WRITES: dict[str, tuple[Callable[[Index], object], int]] = {  # what, and items after it
    "add": (lambda index: add_items(index, 15, 5), 18),
    "remove": (lambda index: index.remove(case_ids=["case-1"]), 9),
    "compact": (lambda index: index.compact(), 13),
    "set_calibration": (lambda index: index.set_calibration(0.5, "test"), 13),
}


def _index_to_change(path: Path) -> Index:
    """Fifteen items in two segments, two of them removed."""
    index = make_index(path, 10, 5)
    index.remove(item_ids=["1.2.3.1", "1.2.3.7"])
    return index


@pytest.mark.parametrize("operation", ["fsync", "replace"])
@pytest.mark.parametrize("name", WRITES)
def test_a_failing_system_call_at_any_step_leaves_a_complete_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, operation: str
) -> None:
    write, n_after = WRITES[name]
    is_done = False
    n_good = 0
    while not is_done:
        path = tmp_path / f"index-{n_good}"
        index = _index_to_change(path)
        before = {file.name: file.read_bytes() for file in path.iterdir()}
        real, calls = getattr(os, operation), []

        def full(*arguments: object) -> None:
            calls.append(arguments)  # noqa: B023
            if len(calls) > n_good:  # noqa: B023 (used within the round)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(*arguments)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(os, operation, full)
            try:
                write(index)
                is_done, told = True, ""
            except IndexFileError as error:
                told = str(error)
        assert is_done or "No space left on device" in told
        report = verify_index(path, engine="numpy")
        assert report.is_intact, report.problems
        is_committed = (path / "manifest.json").read_bytes() != before["manifest.json"]
        if not is_committed:
            found = {file.name: file.read_bytes() for file in path.iterdir()}
            copy = found["manifest.copy.json"]
            if copy != before["manifest.copy.json"]:  # could not be taken back: its files stay
                assert all(entry.file in found for entry in read_manifest(path, COPY_NAME).files())
                assert found.items() >= {**before, "manifest.copy.json": copy}.items()
            else:
                assert found == before
            assert len(index) == 13
            write(index)
        with Index.open(path) as reader:
            assert len(reader) == n_after
        with Index.open(path) as later:
            later.set_calibration(0.7, "later")
        assert verify_index(path).leftovers == ()
        n_good += 1
    # How often the write calls it up to the manifest; what comes after that need not work.
    assert n_good > {"fsync": 2, "replace": 1}[operation] * (1 if name == "set_calibration" else 2)


@pytest.mark.skipif(os.name != "posix", reason="file size limit")
@pytest.mark.parametrize("limit", [300, 2_000, 6_000, 20_000])
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
            if not file.name.startswith("manifest")
        }
        add_items(index, 5, 5)
    for name, facts in before.items():
        assert ((path / name).stat().st_ino, (path / name).stat().st_mtime_ns) == facts


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 400 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, check=False, capture_output=True)
    except OSError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("a small file system cannot be mounted (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_leaves_the_old_state(small_disk: Path) -> None:
    path = small_disk / "index"
    with make_index(path, 40) as index:

        def fill() -> None:
            while True:
                add_items(index, len(index), 40)

        with pytest.raises(IndexFileError, match="could not be written"):
            fill()
        assert verify_index(path).is_intact
        assert verify_index(path).leftovers == ()
        assert len(index) == verify_index(path).n_items
        with pytest.raises(IndexFileError, match="could not be written"):
            index.compact()
        assert index.search(index.embeddings([3]), 1).rows[0, 0] == 3
        assert index.remove(item_ids=["1.2.3.3"]) == 1  # a bitmap still fits
        assert verify_index(path).is_intact
