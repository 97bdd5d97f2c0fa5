"""Tells whether NEW is slower than OLD, beyond the noise that both runs measured.

    python -m benchmarks.compare OLD.json NEW.json        # or: make bench-compare OLD=... NEW=...

Groups with a rival compare the ratio to it, or else to their yardstick, so that the files may come
from different machines. Groups with neither are compared only where processor and threads are the
same. Exit status 1 for a regression, 2 for a file that cannot be used.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
from pathlib import Path
from typing import Literal

import click

from benchmarks.machine import RIVAL_PACKAGES
from benchmarks.noise import Level, level_of
from benchmarks.results import Entry, Results, ResultsError, read_results, rival_of, yardstick_of

LEAST_CHANGE = 1.05
Verdict = Literal["slower", "unsure", "faster", "same"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One contender of ours, old and new.

    Attributes
    ----------
    group, name : str
    against : str
        The rival or yardstick, "seconds" or "memory".
    old, new : float
        Ratio to it (ours / rival), seconds, or MB: less is better.
    noise : float
        By which factor new / old may differ from 1 for nothing.
    verdict : {"slower", "unsure", "faster", "same"}
        Unsure: another level, but the machine was busy with other work in one of the runs.
    """

    group: str
    name: str
    against: str
    old: float
    new: float
    noise: float
    verdict: Verdict


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All that was compared, and what could not be.

    Attributes
    ----------
    changes : tuple of Change
    missing, added : tuple of str
        Groups and contenders of OLD that NEW lacks, and the other way round.
    not_comparable : tuple of str
        Without rival and yardstick, on different machines.
    remarks : tuple of str
    """

    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    not_comparable: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """Changes for the worse."""
        return tuple(change for change in self.changes if change.verdict == "slower")


def compare(old: Results, new: Results, *, least_change: float = LEAST_CHANGE) -> Comparison:
    """Compare our contenders of two runs.

    Parameters
    ----------
    least_change : float
        A factor below which a change is nobody's concern, however well it was resolved: code that
        is placed differently in memory moves by some percent from build to build.
    """
    same_machine = _machine(old) == _machine(new)
    old_groups, new_groups = old.groups(), new.groups()
    changes, missing, not_comparable = [], [], []
    for group, entries in old_groups.items():
        if group not in new_groups:
            missing.append(group)
            continue
        found = {entry.name: entry for entry in new_groups[group]}
        rival = rival_of(entries) or yardstick_of(entries)
        new_rival = None if rival is None else found.get(rival.name)
        if rival is not None and new_rival is None:
            missing.append(f"{group}: {rival.role} {rival.name}")
            continue
        for entry in entries:
            if entry.role != "ours":
                continue
            if entry.name not in found:
                missing.append(f"{group}: {entry.name}")
                continue
            other = found[entry.name]
            if entry.facts.get("peak_mb") and other.facts.get("peak_mb"):
                changes.append(_memory_change(entry, other, least_change))
            if rival is not None and new_rival is not None:
                levels = [
                    level_of(one.seconds, against.seconds)
                    for one, against in ((entry, rival), (other, new_rival))
                ]
                disturbed = any(one.is_disturbed for one in (entry, other, rival, new_rival))
                changes.append(_change(entry, rival.name, *levels, least_change, disturbed))
            elif same_machine:
                levels = [level_of(one.seconds) for one in (entry, other)]
                disturbed = entry.is_disturbed or other.is_disturbed
                changes.append(_change(entry, "seconds", *levels, least_change, disturbed))
            else:
                not_comparable.append(f"{group}: {entry.name}")
    return Comparison(
        changes=tuple(changes),
        missing=tuple(missing),
        added=tuple(group for group in new_groups if group not in old_groups),
        not_comparable=tuple(not_comparable),
        remarks=_remarks(old, new),
    )


def _change(
    entry: Entry, against: str, old: Level, new: Level, least_change: float, disturbed: bool
) -> Change:
    noise = old.noise + new.noise
    moved = new.log - old.log
    threshold = max(noise, math.log(least_change))
    verdict: Verdict = "same"
    if abs(moved) > threshold:
        verdict = "unsure" if disturbed else "slower" if moved > 0 else "faster"
    return Change(
        group=entry.group,
        name=entry.name,
        against=against,
        old=math.exp(old.log),
        new=math.exp(new.log),
        noise=math.exp(noise),
        verdict=verdict,
    )


def _memory_change(entry: Entry, other: Entry, least_change: float) -> Change:
    """Peak memory is no matter of time: compared across machines, by the spread of its rounds."""
    levels = []
    for one in (entry, other):
        peaks = [float(peak) for peak in one.facts["peak_mb"]]
        spread = math.log(max(peaks) / min(peaks))
        levels.append(Level(math.log(statistics.median(peaks)), spread))
    return _change(entry, "memory", *levels, least_change, disturbed=False)


def _machine(results: Results) -> tuple[object, object]:
    return results.machine["cpu"], results.machine["threads"]


def _remarks(old: Results, new: Results) -> tuple[str, ...]:
    remarks = []
    if _machine(old) != _machine(new):
        before, after = (
            f"{results.machine['cpu']}, {results.machine['threads']} threads"
            for results in (old, new)
        )
        remarks.append(f"different machines: {before} / {after}; ratios only")
    versions = [results.machine.get("versions", {}) for results in (old, new)]
    for package in RIVAL_PACKAGES:
        before, after = (found.get(package) for found in versions)
        if before != after:
            remarks.append(f"rival's {package} is another version: {before} / {after}")
    return tuple(remarks)


def as_text(comparison: Comparison) -> str:
    """Comparison as lines of plain text."""
    lines = [f"note: {remark}" for remark in comparison.remarks]
    order = ("slower", "unsure", "faster", "same")
    for change in sorted(comparison.changes, key=lambda one: order.index(one.verdict)):
        lines.append(
            f"{change.verdict:7} {change.new / change.old:6.2f} x (noise {change.noise:.2f} x)  "
            f"{_level(change.old, change.against)} -> {_level(change.new, change.against)}  "
            f"{change.group}: {change.name}"
        )
    for what, names in (
        ("missing in NEW", comparison.missing),
        ("only in NEW", comparison.added),
        ("not comparable (no rival, other machine)", comparison.not_comparable),
    ):
        lines += [f"{what}: {name}" for name in names]
    n_slower = len(comparison.regressions)
    lines.append(f"{len(comparison.changes)} compared, {n_slower} slower beyond the noise")
    n_unsure = sum(change.verdict == "unsure" for change in comparison.changes)
    if n_unsure:
        lines.append(
            f"{n_unsure} unsure: the machine was busy with other work; measure again when it rests"
        )
    return "\n".join(lines)


def _level(value: float, against: str) -> str:
    if against == "seconds":
        return f"{value * 1e3:.4g} ms"
    if against == "memory":
        return f"{value:.0f} MB"
    return f"{1 / value:.3g} x as fast as {against}"


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--least-change", default=LEAST_CHANGE, show_default=True, type=click.FloatRange(min=1),
    help="Smaller changes are none, however well they were resolved.",
)  # fmt: skip
def main(old: Path, new: Path, least_change: float) -> None:
    """Compare NEW with OLD; exit status 1 where something got slower or is missing in NEW."""
    try:
        comparison = compare(read_results(old), read_results(new), least_change=least_change)
    except ResultsError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    click.echo(as_text(comparison))
    sys.exit(1 if comparison.regressions or comparison.missing else 0)


if __name__ == "__main__":
    main()
