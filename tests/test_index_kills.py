"""Writers killed at any moment leave the state before or after the change they were at."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ildsdk.index import Index, repair_index, verify_index
from ildsdk.index.threshold import calibrate
from tests.index_factory import SALT, add_items, make_index, unit_embeddings

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork and SIGKILL")

N_ADDED = 7
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_FILE_EVENTS = {
    "os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir", "os.truncate", "sqlite3.connect",
}  # fmt: skip

State = tuple[dict[str, bytes], float | None]  # embedding by item id, threshold


def _in_child(work: Callable[[], None]) -> int:
    """Run in a forked process that ends without cleaning up; returns its number."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def _state(path: Path) -> State:
    with Index.open(path, engine="numpy") as index:
        rows = index.rows()
        found = {
            item.item_id: index.embeddings([row]).tobytes()
            for row, item in zip(rows, index.items(rows), strict=True)
        }
        return found, index.no_match_threshold


def _step(number: int, before: State, index: Index | None) -> State:
    """One change, drawn by its number; made to the index too if there is one."""
    draw = random.Random(number)
    items, threshold = dict(before[0]), before[1]
    name = draw.choice(["add", "add", "add and calibrate", "remove", "remove", "compact", "set"])
    if name.startswith("add"):
        first = 10 * number
        threshold = number / 1e6 if name != "add" else threshold
        if index is not None:
            add_items(
                index, first, N_ADDED, with_maps=number % 3 > 0,
                calibration=(threshold, "test") if name != "add" else None,
            )  # fmt: skip
        rows = unit_embeddings(first, N_ADDED)
        items |= {f"1.2.3.{first + i}": row.tobytes() for i, row in enumerate(rows)}
    elif name == "remove" and items:
        chosen = draw.sample(sorted(items), min(4, len(items)))
        items = {key: value for key, value in items.items() if key not in chosen}
        if index is not None:
            assert index.remove(item_ids=chosen) == len(chosen)
    elif name == "compact" and index is not None:
        index.compact()
    elif name == "set":
        threshold = -number / 1e6
        if index is not None:
            index.set_calibration(threshold, "test")
    return items, threshold


def _write_for_ever(path: Path, number: int, state: State, reached: int) -> None:
    """Change again and again, telling after each change."""
    with Index.open(path, engine="numpy") as index:
        os.write(reached, b"o")
        while True:
            number += 1
            state = _step(number, state, index)
            os.write(reached, b"x")


def _check_intact(path: Path) -> None:
    report = verify_index(path, engine="numpy")
    assert report.is_intact, report.problems


@pytest.mark.parametrize("n_kills", [15, pytest.param(250, marks=pytest.mark.slow)])
def test_writer_killed_at_random_moments_leaves_the_state_before_or_after(
    tmp_path: Path, n_kills: int
) -> None:
    path = tmp_path / "index"
    make_index(path).close()
    generator = random.Random(0)
    number, state, n_moved = 0, _state(path), 0
    for _ in range(n_kills):
        reached, reaches = os.pipe()
        pid = _in_child(lambda: _write_for_ever(path, number, state, reaches))  # noqa: B023
        os.close(reaches)
        for event in (b"o", b"x")[: generator.choice([1, 2, 2, 2])]:  # opened, changed
            assert os.read(reached, 1) == event
            n_told = int(event == b"x")
        time.sleep(generator.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status)  # it did not end of its own, in an error
        while told := os.read(reached, 1000):
            n_told += len(told)
        os.close(reached)
        for _ in range(n_told):
            number += 1
            state = _step(number, state, None)
        _check_intact(path)
        found = _state(path)
        if found != state:  # the change it was at was made, but not told
            number += 1
            state = _step(number, state, None)
            n_moved += 1
        assert found == state
    assert number > n_kills / 2
    with Index.open(path, engine="numpy") as index:
        _step(number + 1, state, index)
    assert verify_index(path, engine="numpy").leftovers == ()
    print(
        f"{n_kills} kills during {number} changes, {n_moved} of them between a change and its "
        "telling: always the state before or after, intact"
    )


def _damaged(path: Path) -> None:
    content = bytearray((path / "items-000002.sqlite").read_bytes())
    content[content.index(b"picture 4")] ^= 1
    (path / "items-000002.sqlite").write_bytes(content)
    (path / "columns-000003.safetensors").unlink()
    (path / "maps-000003.safetensors").write_bytes(b"no maps")


def _prepared(path: Path) -> None:
    with make_index(path, 10, 5, with_maps=True) as index:
        index.remove(item_ids=["1.2.3.1", "1.2.3.7"])


CHANGES: dict[str, Callable[[Path], object]] = {
    "add": lambda path: add_items(
        Index.open(path, engine="numpy"), 20, 3, with_maps=True, calibration=(0.1, "")
    ),
    "add and measure": lambda path: add_items(
        Index.open(path, engine="numpy"), 20, 3, calibration=calibrate
    ),
    "remove": lambda path: Index.open(path, engine="numpy").remove(case_ids=["case-0", "case-2"]),
    "compact": lambda path: Index.open(path, engine="numpy").compact(),
    "compact into one": lambda path: Index.open(path, engine="numpy").compact(into_one=True),
    "set_calibration": lambda path: Index.open(path, engine="numpy").set_calibration(0.1, ""),
}


def _die_at_event(change: Callable[[], object], number: int) -> None:
    """Change, but be killed just before the given file operation."""
    n_events = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n_events
        if event in _FILE_EVENTS or (event == "open" and arguments[2] & _WRITING):
            n_events += 1
            if n_events == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    change()


def _kill_at_each_event(change: Callable[[], object], check: Callable[[bool], None]) -> int:
    """Calls ``check`` after each kill, and at last after the whole change; counts the kills."""
    number = 0
    while True:
        number += 1
        pid = _in_child(functools.partial(_die_at_event, change, number))
        _, status = os.waitpid(pid, 0)
        is_done = os.WIFEXITED(status)
        assert not is_done or os.WEXITSTATUS(status) == 0
        check(is_done)
        if is_done:
            return number


@pytest.mark.parametrize("name", CHANGES)
def test_writer_killed_at_each_file_operation_leaves_the_state_before_or_after(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "index"
    _prepared(tmp_path / "prepared")
    shutil.copytree(tmp_path / "prepared", path)
    before = _state(path)
    shutil.copytree(path, tmp_path / "changed")
    CHANGES[name](tmp_path / "changed")
    after = _state(tmp_path / "changed")
    states = []

    def check(is_done: bool) -> None:
        _check_intact(path)
        states.append(_state(path))
        assert states[-1] in ([after] if is_done else [before, after])
        if states[-1] == after and before != after and not is_done:
            shutil.rmtree(path)  # it was made: begin anew, but die at the next event
            shutil.copytree(tmp_path / "prepared", path)

    n_kills = _kill_at_each_event(lambda: CHANGES[name](path), check)
    assert n_kills > 8
    assert states[0] == before
    assert states[-2] == after  # what is left after the moment of change is only tidying up


def test_repair_killed_at_each_file_operation_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "index"
    _prepared(path)
    whole = _state(path)[0]
    _damaged(path)
    n_items = set()

    def check(is_done: bool) -> None:
        report = verify_index(path, engine="numpy")
        assert report.is_intact or not is_done
        if report.is_intact:
            found = _state(path)[0]
            assert found.items() <= whole.items()
            n_items.add(len(found))

    assert _kill_at_each_event(lambda: repair_index(path, engine="numpy"), check) > 20
    assert n_items == {12}


def test_creation_killed_at_each_file_operation_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "index"

    def create() -> None:
        Index.create(
            path, name="t", bundle_hash="b", embedding_size=4, is_synthetic=True, salt=SALT
        )

    def check(is_done: bool) -> None:
        if (path / "manifest.json").exists():
            _check_intact(path)
            if not is_done:
                for file in path.iterdir():
                    file.unlink()

    assert _kill_at_each_event(create, check) > 5
    _check_intact(path)
