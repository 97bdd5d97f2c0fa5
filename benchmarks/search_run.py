"""Builds, tunes, checks and times the contenders on one set of vectors.

Tuning sees one half of the queries only; recall and time are those of the other half. All
contenders live in one process and take turns, so that a busy moment hits them alike;
answers are checked before anything is timed.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.search_data import (
    SearchData,
    difficulty,
    exact_neighbors,
    recall_at_n,
)
from benchmarks.search_peers import (
    BuildTooLongError,
    Contender,
    Float32,
    Int64,
    Ladder,
    Setting,
)

TOP_N = 10
TARGETS = (0.99, 0.995)
BATCH = 300
CHUNK, WARM = 24, 4  # queries in a turn that are timed; least number asked before them
WARM_S = 0.02  # a turn begins with this long of queries that are not timed: "hot" is what we report
CURVE_STRIDE = 4  # steps of a fine ladder between two points of a curve
ROUNDING = 1e-3  # recall an exact contender may lose to float32 sums on near ties


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure.

    Attributes
    ----------
    build_limit_s : float
        A contender whose build takes longer is left out, and the report says so.
    seconds : float
        Rough time for each of the four timings (all contenders together).
    build_threads : int
        Threads every contender may build with.
    least_rounds, most_rounds : int
        Turns of each point in each timing.
    with_curve : bool
        Also measure settings around the tuned ones, for the figure.
    batch_limit_s : float
        A point whose single queries say that a batch takes longer is not timed on batches, nor
        with two clients.
    """

    build_limit_s: float = 900.0
    seconds: float = 45.0
    build_threads: int = 1
    least_rounds: int = 3
    most_rounds: int = 60
    with_curve: bool = True
    batch_limit_s: float = float("inf")


LIGHT = {"least_rounds": 1, "with_curve": False, "batch_limit_s": 1.5}
"""For large sets where the whole measurement takes hours."""


@dataclasses.dataclass(slots=True)
class Point:
    """One contender at one setting, and what was measured."""

    contender: Contender
    setting: Setting
    roles: list[str]  # of "exact", "fixed", "asked", "0.99", "0.995", "curve"
    measured: dict[str, Any] = dataclasses.field(default_factory=dict)

    def enter(self, n_threads: int) -> None:
        """Make the contender ready for this point."""
        self.contender.use(self.setting)
        self.contender.use_threads(n_threads)


@contextlib.contextmanager
def pinned(n_threads: int) -> Iterator[None]:
    """Limit BLAS and OpenMP of every library in this process."""
    with threadpool_limits(limits=n_threads):
        faiss.omp_set_num_threads(n_threads)
        yield


def measure(
    data: SearchData,
    kinds: Sequence[type[Contender]],
    effort: Effort,
    *,
    tell: Callable[[str], None] = print,
    quiet: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> dict[str, Any]:
    """Measure contenders on one set; the answer is made for JSON.

    Parameters
    ----------
    tell : callable
        Told what goes on.
    quiet : callable
        Makes the context in which the timings run, for machines shared with others.

    Raises
    ------
    AssertionError
        A contender gives a wrong answer.
    """
    with pinned(2):
        exact = {
            name: exact_neighbors(data.vectors, queries, TOP_N)
            for name, queries in (("tuning", data.tuning), ("scored", data.scored))
        }
    builds, points = {}, []
    for kind in kinds:
        contender = kind()
        built = _build(contender, data.vectors, effort)
        builds[contender.name] = built
        tell(f"{contender.name}: {built}")
        if "seconds" not in built:
            continue
        with pinned(2):
            points += tuned_points(
                contender, data.vectors, data.tuning, exact["tuning"][1], effort.with_curve
            )
    with pinned(1):
        for point in points:
            check(point, data, *exact["scored"])
            tell(f"  {point.contender.name} {dict(point.setting)}: {point.measured}")
    with quiet():
        _time_everything(points, data.scored, effort, tell)
    n, dimension = data.vectors.shape
    return {
        "kind": data.kind,
        "n": n,
        "dimension": dimension,
        "n_tuning": len(data.tuning),
        "n_scored": len(data.scored),
        "n_cases": len(np.unique(data.cases)),
        "build_threads": effort.build_threads,
        "is_light": not effort.with_curve,
        "difficulty": dataclasses.asdict(difficulty(data, exact["scored"][1])),
        "builds": builds,
        "points": [
            {
                "name": point.contender.name,
                "is_exact": point.contender.is_exact,
                "setting": dict(point.setting),
                "roles": point.roles,
                **point.measured,
            }
            for point in points
        ],
    }


def _build(contender: Contender, vectors: Float32, effort: Effort) -> dict[str, Any]:
    gc.collect()
    with pinned(effort.build_threads):
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            contender.build(vectors, effort.build_threads, effort.build_limit_s)
        except BuildTooLongError as error:
            return {"left_out": str(error)}
        return {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "extra_bytes": contender.extra_bytes(),
        }


# ---------------------------------------------------------------------- tuning


def tuned_points(
    contender: Contender,
    vectors: Float32,
    tuning: Float32,
    exact_scores: Float32,
    with_curve: bool = True,
) -> list[Point]:
    """Settings to measure: the cheapest one of each target recall, and some around it if wanted.

    A ladder is searched by bisection: recall is taken to rise from step to step.
    """
    if contender.is_exact or all(len(ladder) == 1 for ladder in contender.ladders):
        role = "exact" if contender.is_exact else "fixed"
        return [Point(contender, contender.ladders[0][0], [role])]
    contender.use_threads(2)

    def reaches(target: float, setting: Setting) -> bool:
        contender.use(setting)
        found = contender.search(tuning, TOP_N)
        return recall_at_n(vectors, tuning, found, exact_scores) >= target

    chosen: dict[float, tuple[Ladder, int]] = {}
    for target in TARGETS:
        candidates = []
        for ladder in contender.ladders:
            step = bisect.bisect_left(ladder, True, key=functools.partial(reaches, target))
            if step < len(ladder):
                candidates.append((ladder, step))
        if candidates:
            chosen[target] = _cheapest(contender, tuning, candidates)
    ladder, step = chosen.get(TARGETS[0], (contender.ladders[0], len(contender.ladders[0]) - 1))
    stride = CURVE_STRIDE if len(ladder) > 20 else 1
    steps = [step + i * stride for i in range(-4, 3)]
    points = [
        Point(contender, ladder[i], ["curve"]) for i in steps if with_curve and 0 <= i < len(ladder)
    ]
    wanted = [
        (its_ladder[its_step], str(target)) for target, (its_ladder, its_step) in chosen.items()
    ]
    for setting, role in [*wanted, *((setting, "asked") for setting in contender.asked)]:
        known = next((point for point in points if point.setting == setting), None)
        if known is None:
            points.append(known := Point(contender, setting, []))
        known.roles.append(role)
    return points


def _cheapest(
    contender: Contender, tuning: Float32, candidates: list[tuple[Ladder, int]]
) -> tuple[Ladder, int]:
    """Of several ladders' steps the one that answers single queries fastest."""
    if len(candidates) == 1:
        return candidates[0]
    contender.use_threads(1)
    medians = []
    with pinned(1):
        for ladder, step in candidates:
            contender.use(ladder[step])
            medians.append(np.median([_timed(contender, tuning[i : i + 1]) for i in range(40)]))
    contender.use_threads(2)
    return candidates[int(np.argmin(medians))]


# -------------------------------------------------------------------- checking


def check(point: Point, data: SearchData, exact_rows: Int64, exact_scores: Float32) -> None:
    """Fill in recall and rows read; refuse a wrong answer.

    Raises
    ------
    AssertionError
        An exact contender's answer is not the exact one, or single queries and a batch differ.
    """
    contender, queries = point.contender, data.scored
    point.enter(1)
    found = contender.search(queries, TOP_N)
    recall = recall_at_n(data.vectors, queries, found, exact_scores)
    expected = contender.expected(queries, exact_rows)
    if expected is not None and not np.array_equal(found, expected):
        raise AssertionError(f"{contender.name}: not the answers it must give")
    if contender.is_exact and recall < 1 - ROUNDING:
        raise AssertionError(f"{contender.name}: recall {recall}, it should be exact")
    few = queries[:50]
    single = np.concatenate([contender.search(few[i : i + 1], TOP_N) for i in range(len(few))])
    same = recall_at_n(data.vectors, few, single, exact_scores[: len(few)])
    if abs(same - recall_at_n(data.vectors, few, found[: len(few)], exact_scores[:50])) > 0.02:
        raise AssertionError(f"{contender.name}: single queries and a batch differ")
    point.measured.update(
        recall=recall,
        n_read=contender.n_read(few, TOP_N),
        answers_sha256=hashlib.sha256(found.tobytes()).hexdigest(),
    )


# ---------------------------------------------------------------------- timing


def _timed(contender: Contender, queries: Float32) -> int:
    start = time.perf_counter_ns()
    contender.search(queries, TOP_N)
    return time.perf_counter_ns() - start


def _time_everything(
    points: Sequence[Point],
    queries: Float32,
    effort: Effort,
    tell: Callable[[str], None],
) -> None:
    """Single queries by one thread (all points); the rest for the points that are no curve."""
    repeats = -(-max(BATCH, CHUNK * effort.most_rounds) // len(queries))
    stream = np.ascontiguousarray(np.tile(queries, (repeats, 1)))
    batch = stream[:BATCH]

    def single(point: Point, number: int) -> list[float]:
        start = number * CHUNK % (len(stream) - CHUNK)
        warmed, n_warmed = 0, 0
        while n_warmed < WARM or warmed < WARM_S * 1e9:
            i = (start + CHUNK + n_warmed) % len(stream)
            warmed += _timed(point.contender, stream[i : i + 1])
            n_warmed += 1
        part = stream[start : start + CHUNK]
        return [_timed(point.contender, part[i : i + 1]) / 1e3 for i in range(CHUNK)]

    def clients(point: Point, number: int) -> list[float]:
        both = pool.map(lambda offset: single(point, number + offset), (0, 7))
        return [float(np.mean([np.mean(times) for times in both])) / 2]

    def whole(point: Point, number: int) -> list[float]:
        return [_timed(point.contender, batch) / 1e3]

    # OpenMP counts threads per calling thread.
    with ThreadPoolExecutor(2, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        for name, task, only_ends, n_threads, blas in (
            ("single_us", single, False, 1, 1),
            ("clients_us", clients, True, 1, 1),
            ("batch_us", whole, True, 1, 1),
            ("batch_two_threads_us", whole, True, 2, 2),
        ):
            who = [point for point in points if not only_ends or _has_more(point, effort)]
            with pinned(blas):
                times = _in_turns(task, who, n_threads, effort)
            for point, found in zip(who, times, strict=True):
                point.measured[name] = float(np.median(found))
                if name == "single_us":
                    point.measured["single_p99_us"] = float(np.percentile(found, 99))
                    point.measured["n_timed"] = len(found)
            tell(f"  {name}: {len(times[0]) if times else 0} samples each")


def _has_more(point: Point, effort: Effort) -> bool:
    """Whether a point is timed beyond single queries."""
    return (
        point.roles != ["curve"]
        and point.measured["single_us"] * BATCH <= effort.batch_limit_s * 1e6
    )


def _in_turns(
    task: Callable[[Point, int], list[float]],
    points: Sequence[Point],
    n_threads: int,
    effort: Effort,
) -> list[list[float]]:
    """Samples of each point; points take turns in an order that rotates."""
    times: list[list[float]] = [[] for _ in points]
    started = time.perf_counter()
    for number in range(-1, effort.most_rounds):  # round -1 warms up
        for turn in range(len(points)):
            i = (turn + number) % len(points)
            points[i].enter(n_threads)
            found = task(points[i], max(number, 0))
            if number >= 0:
                times[i] += found
        if number + 1 >= effort.least_rounds and time.perf_counter() - started > effort.seconds:
            break
    return times
