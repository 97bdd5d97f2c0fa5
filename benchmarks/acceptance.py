"""The acceptance figures of the speed work, found in a results file.

python -m benchmarks.acceptance RESULTS.json
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.compare_openvino import SHIPPED
from benchmarks.results import Entry, Results, ResultsError, read_results, rival_of, yardstick_of

SLICE_GROUP = "slice|phantom|512x512|pixels to top 10 of 28942"
STAGE_GROUP = "slice stage|phantom|512x512|{}"
STUDY_GROUP = "study|phantom files, 512x512|{} slices"
COLD_GROUP = "cold|fresh process, one file to top 10 of 28942"
MEMORY_GROUP = "memory|study of {} phantom files"
SOCKET_GROUP = "socket|query|one file|warm|socket vs in-process, 28942 slices"

LEAST_SPEED_UP, LEAST_COLD_SPEED_UP = 10.0, 5.0
LONGEST_STAGES_MS, LONGEST_COLD_S = 15.0, 1.5
LEAST_OF_NETWORK = 0.85
LARGEST_PEAK_MB, SAME_MEMORY = 700.0, 1.05
LARGEST_SOCKET_RATIO, LARGEST_ENGINE_RATIO = 1.2, 1.1
NOT_FOUND = "not in this file"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One figure beside what was asked for.

    Attributes
    ----------
    what, found, asked : str
    is_met : bool or None
        None where nothing was asked, or the figure is missing.
    """

    what: str
    found: str
    asked: str
    is_met: bool | None


Found = tuple[str, str, bool | None] | None  # found, asked, is_met; None where it is missing


def acceptance(results: Results) -> tuple[Check, ...]:
    """All figures; those that the file lacks say so."""
    makers: dict[str, Callable[[Results], Found]] = {
        "one slice, default settings, against the reference stack": _one_slice,
        "one slice, all stages but the network": _stages,
        "300 slices from files, share of the network alone": _throughput,
        "peak memory, 300 slices": _peak,
        "peak memory, 600 slices / 300": _growth,
        "cold start": _cold,
        "cold start against the reference stack": _cold_ratio,
        "over the socket / in process": _socket,
        "one slice, int8 / fp32": _int8,
        "backbone of one slice, int8 / fp32": _int8_backbone,
        "int8 network against the best engine measured": _engines,
    }
    checks = []
    for what, make in makers.items():
        found, asked, is_met = make(results) or (NOT_FOUND, "", None)
        checks.append(Check(what=what, found=found, asked=asked, is_met=is_met))
    return tuple(checks)


def default_entry(results: Results, group: str) -> Entry | None:
    """Ours at the settings of a user who says nothing."""
    for entry in results.groups().get(group, []):
        if entry.role == "ours" and entry.facts.get("is_default"):
            return entry
    return None


def speed_up(results: Results, group: str) -> tuple[Entry, Entry, float] | None:
    """Ours by default, the fastest rival, and how many times faster ours is."""
    ours, rival = default_entry(results, group), rival_of(results.groups().get(group, []))
    if ours is None or rival is None:
        return None
    return ours, rival, rival.median / ours.median


def network_alone(results: Results, n_slices: int, precision: str) -> Entry | None:
    """The yardstick of a study: the faster of its arrangements of threads."""
    entries = results.groups().get(STUDY_GROUP.format(n_slices), [])
    return yardstick_of([one for one in entries if one.facts.get("precision") == precision])


def peak_mb(results: Results, n_slices: int) -> float | None:
    """Median of our peak memory, MB."""
    entry = results.find(MEMORY_GROUP.format(n_slices), "ildsdk")
    return None if entry is None else statistics.median(entry.facts["peak_mb"])


def _one_slice(results: Results) -> Found:
    found = speed_up(results, SLICE_GROUP)
    if found is None:
        return None
    ours, rival, ratio = found
    times = f"{ours.median * 1e3:.1f} / {rival.median * 1e3:.0f} ms"
    text = f"{ratio:.1f} x ({times}, {ours.facts['precision']})"
    return text, f">= {LEAST_SPEED_UP:g} x", ratio >= LEAST_SPEED_UP


def _stages(results: Results) -> Found:
    entry = default_entry(results, STAGE_GROUP.format("all but network"))
    if entry is None:
        return None
    ms = entry.median * 1e3
    return f"{ms:.1f} ms", f"< {LONGEST_STAGES_MS:g} ms", ms < LONGEST_STAGES_MS


def _throughput(results: Results) -> Found:
    entry = default_entry(results, STUDY_GROUP.format(300))
    alone = entry and network_alone(results, 300, entry.facts["precision"])
    if entry is None or alone is None:
        return None
    share = alone.median / entry.median
    text = f"{share:.2f} ({300 / entry.median:.1f} of {300 / alone.median:.1f} slices/s)"
    return text, f">= {LEAST_OF_NETWORK:g}", share >= LEAST_OF_NETWORK


def _peak(results: Results) -> Found:
    peak = peak_mb(results, 300)
    if peak is None:
        return None
    return f"{peak:.0f} MB", f"< {LARGEST_PEAK_MB:g} MB", peak < LARGEST_PEAK_MB


def _growth(results: Results) -> Found:
    few, many = peak_mb(results, 300), peak_mb(results, 600)
    if few is None or many is None:
        return None
    text = f"{many / few:.3f} ({many:.0f} / {few:.0f} MB)"
    return text, f"<= {SAME_MEMORY:g}", many / few <= SAME_MEMORY


def _cold(results: Results) -> Found:
    entry = default_entry(results, COLD_GROUP)
    if entry is None:
        return None
    text = f"{entry.median:.2f} s"
    return text, f"< {LONGEST_COLD_S:g} s", entry.median < LONGEST_COLD_S


def _cold_ratio(results: Results) -> Found:
    found = speed_up(results, COLD_GROUP)
    if found is None:
        return None
    ours, rival, ratio = found
    text = f"{ratio:.1f} x ({ours.median:.2f} / {rival.median:.2f} s)"
    return text, f">= {LEAST_COLD_SPEED_UP:g} x", ratio >= LEAST_COLD_SPEED_UP


def _socket(results: Results) -> Found:
    entries = results.groups().get(SOCKET_GROUP, [])
    ours, rival = default_entry(results, SOCKET_GROUP), rival_of(entries)
    if ours is None or rival is None:
        return None
    ratio = ours.median / rival.median
    text = f"{ratio:.2f} ({ours.median * 1e3:.1f} / {rival.median * 1e3:.1f} ms)"
    return text, f"< {LARGEST_SOCKET_RATIO:g}", ratio < LARGEST_SOCKET_RATIO


def _int8(results: Results) -> Found:
    return _by_precision(results, SLICE_GROUP)


def _int8_backbone(results: Results) -> Found:
    return _by_precision(results, STAGE_GROUP.format("backbone"))


def _engines(results: Results) -> Found:
    if results.engines is None:
        return None
    medians = {row["name"]: float(row["median_ms"]) for row in results.engines["engines"]}
    ours = medians[SHIPPED]  # variants of its options are in the table, and are not what runs
    best = min(medians, key=lambda name: medians[name])
    ratio = ours / medians[best]
    text = f"{ratio:.2f} ({ours:.1f} / {medians[best]:.1f} ms, {best})"
    return text, f"<= {LARGEST_ENGINE_RATIO:g}", ratio <= LARGEST_ENGINE_RATIO


def _by_precision(results: Results, group: str) -> Found:
    int8, fp32 = (results.find(group, f"ildsdk {kind}") for kind in ("int8", "fp32"))
    if int8 is None or fp32 is None:
        return None
    times = " / ".join(f"{one.median * 1e3:.1f}" for one in (int8, fp32))
    return f"{int8.median / fp32.median:.2f} ({times} ms)", "", None


def as_text(checks: tuple[Check, ...]) -> str:
    """Lines of plain text."""
    marks = {True: "met", False: "MISSED", None: ""}
    return "\n".join(
        f"{marks[check.is_met]:7} {check.what}: {check.found}"
        + (f"; asked {check.asked}" if check.asked else "")
        for check in checks
    )


@click.command()
@click.argument("path", metavar="RESULTS", type=click.Path(path_type=Path))
def main(path: Path) -> None:
    """Print the acceptance figures of RESULTS; exit status 1 where one is missed or missing."""
    try:
        checks = acceptance(read_results(path))
    except ResultsError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    click.echo(as_text(checks))
    is_complete = all(check.found != NOT_FOUND for check in checks)
    sys.exit(0 if is_complete and all(check.is_met is not False for check in checks) else 1)


if __name__ == "__main__":
    main()
