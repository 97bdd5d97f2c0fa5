"""Contenders act in turn on the same work, and pytest-benchmark gets the rounds as they were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contest import Contender, ReplayClock, interleaved
from benchmarks.elsewhere import Elsewhere


def test_turns_rotate_and_work_is_the_same() -> None:
    seen: list[tuple[str, int]] = []
    contenders = {
        name: Contender(
            prepare=lambda number: number * 10,
            act=lambda work, name=name: seen.append((name, work)),
            role="ours",
        )
        for name in "abc"
    }
    found = interleaved(contenders, 3, n_warm=1, pause=lambda seconds: None)
    works = [work for _, work in seen]
    assert works == [-10] * 3 + [0] * 3 + [10] * 3 + [20] * 3
    assert [name for name, work in seen if work == 10] == ["b", "c", "a"]
    assert {len(rounds.seconds) for rounds in found.values()} == {3}


def test_only_the_act_is_timed() -> None:
    now = [0.0]

    def pass_time(seconds: float) -> float:
        now[0] += seconds
        return seconds

    contender = Contender(
        prepare=lambda number: pass_time(5), act=lambda work: pass_time(2), role="ours"
    )
    found = interleaved({"one": contender}, 2, clock=lambda: now[0], pause=pass_time)
    assert found["one"].seconds == [2, 2]
    assert found["one"].results == [2, 2]


def test_replayed_rounds_are_those_measured() -> None:
    clock, seconds = ReplayClock(), [0.25, 0.5]
    for one in seconds:
        started = clock()
        clock.advance(one)
        assert clock() - started == one


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="reads Linux's /proc")
def test_time_of_processes_below_is_own(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Elsewhere()
    before = watch._own_seconds()
    spin = "import time\nwhile time.process_time() < 0.5: pass\nprint(1, flush=True)\ninput()"
    command = [sys.executable, "-c", spin]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        alive = watch._own_seconds() - before
        worker.communicate(b"\n")
    reaped = watch._own_seconds() - before
    assert alive >= 0.45
    assert reaped >= 0.45


def test_share_is_what_others_took(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(0.0, 100.0, 10.0), (10.0, 100.0 + 4.0 + 3.0, 14.0)])
    monkeypatch.setattr(Elsewhere, "_now", lambda self: next(times))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert Elsewhere().share() == pytest.approx(3.0 / (10.0 * 2))
