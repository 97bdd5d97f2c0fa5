"""Contenders take turns, round by round, so that a busy moment of the machine hits them alike."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from benchmarks.elsewhere import Elsewhere

Role = Literal["ours", "rival", "variant", "yardstick"]

# Worker threads of OpenMP spin for a while after their work: not into the next contender's time.
PAUSE_S = 0.01


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to do the work of a group.

    Attributes
    ----------
    act : callable
        What is timed. Gets what ``prepare`` made.
    role : {"ours", "rival", "variant", "yardstick"}
        Rivals are what our ratios are taken against. A variant of a rival and a yardstick stand
        beside them for comparison only.
    prepare : callable
        Makes the work of a round from its number, not timed; equal numbers mean equal work for all
        contenders. By default the number itself.
    facts : dict
        For ``extra_info``: precision, equality figures.
    """

    act: Callable[[Any], Any]
    role: Role
    prepare: Callable[[int], Any] = lambda number: number
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Rounds:
    """Seconds of each round of a contender, and what it returned."""

    seconds: list[float]
    results: list[Any]


def interleaved(
    contenders: Mapping[str, Contender],
    n_rounds: int,
    *,
    n_warm: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], object] = time.sleep,
) -> dict[str, Rounds]:
    """Let all contenders act in each round.

    The order turns with the rounds, so that nobody always comes after the same other. Rounds
    with negative numbers warm up and are not counted. How busy the machine was with other work
    stands in the facts afterwards (``busy_elsewhere``).
    """
    found = {name: Rounds([], []) for name in contenders}
    elsewhere = Elsewhere()
    names = list(contenders)
    for number in range(-n_warm, n_rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            contender = contenders[name]
            # Before what is prepared, which may warm caches: it walks through all of the heap.
            gc.collect()
            work = contender.prepare(number)
            pause(PAUSE_S)
            started = clock()
            result = contender.act(work)
            elapsed = clock() - started
            if number >= 0:
                found[name].seconds.append(elapsed)
                found[name].results.append(result)
    share = elsewhere.share()
    if share is not None:
        for contender in contenders.values():
            contender.facts["busy_elsewhere"] = round(share, 3)
    return found


Report = Callable[[str, str, Contender, list[float]], None]
"""Hands the rounds of one contender to pytest-benchmark: group, name, contender, seconds."""


class ReplayClock:
    """A clock that pytest-benchmark reads, moved by durations that were measured in a contest."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Seconds, as ``time.perf_counter`` gives them."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let this time pass."""
        self._now += seconds
