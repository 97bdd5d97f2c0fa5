"""The results file: what pytest-benchmark writes and our fixtures add, read and checked."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.elsewhere import MOST

ROLES = ("ours", "rival", "variant", "yardstick")


class ResultsError(Exception):
    """A results file cannot be used: what was found, what was expected."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One contender in one group.

    Attributes
    ----------
    group, name, role : str
    seconds : tuple of float
        One per round, in the order of the rounds.
    facts : dict
        ``extra_info``: threads, precision, equality figures.
    """

    group: str
    name: str
    role: str
    seconds: tuple[float, ...]
    facts: dict[str, Any]

    @property
    def is_disturbed(self) -> bool:
        """Whether the machine had so much other work that the rounds tell little."""
        return float(self.facts.get("busy_elsewhere", 0.0)) > MOST

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A run of the suite.

    Attributes
    ----------
    machine : dict
        cpu, threads, versions and more, see :mod:`benchmarks.machine`.
    taken : str
        Date and time, ISO 8601.
    commit : str
        Short id of the commit, "" where it is not known.
    entries : tuple of Entry
    engines : dict or None
        What ``benchmarks.compare_openvino`` measured, None where the file holds none.
    """

    machine: dict[str, Any]
    taken: str
    commit: str
    entries: tuple[Entry, ...]
    engines: dict[str, Any] | None = None

    def groups(self) -> dict[str, list[Entry]]:
        """Entries by group, in the order of the file."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.group, []).append(entry)
        return found

    def find(self, group: str, name: str) -> Entry | None:
        """One entry, None where there is none."""
        for entry in self.entries:
            if (entry.group, entry.name) == (group, name):
                return entry
        return None


def rival_of(entries: list[Entry]) -> Entry | None:
    """The fastest rival of a group, None where nobody competes."""
    return _fastest(entries, "rival")


def yardstick_of(entries: list[Entry]) -> Entry | None:
    """The fastest yardstick of a group, None where it has none."""
    return _fastest(entries, "yardstick")


def _fastest(entries: list[Entry], role: str) -> Entry | None:
    found = [entry for entry in entries if entry.role == role]
    return min(found, key=lambda entry: entry.median) if found else None


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises
    ------
    ResultsError
        No such file, no JSON, or not what the suite writes; the message names the field.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path.name} is no JSON: {error}") from error
    try:
        machine = _of_type(document["machine_info"]["ildsdk"], dict, "machine_info.ildsdk")
        for key in ("cpu", "threads"):
            if key not in machine:
                raise ResultsError(f"machine_info.ildsdk has no {key!r}")
        commit = document.get("commit_info") or {}
        return Results(
            machine=machine,
            taken=str(document["datetime"]),
            commit=str(commit.get("id") or "")[:12],
            entries=tuple(_entries(document["benchmarks"])),
            engines=document.get("engines"),
        )
    except ResultsError as error:
        raise ResultsError(f"{path.name}: {error}; expected a file of `make bench`") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path.name} lacks {error}: expected a file of `make bench`") from error


def _entries(benchmarks: Any) -> Iterator[Entry]:
    seen = set()
    for place, one in enumerate(_of_type(benchmarks, list, "benchmarks")):
        where = f"benchmarks[{place}]"
        facts = _of_type(one["extra_info"], dict, f"{where}.extra_info")
        role = facts.get("role", "ours")
        if role not in ROLES:
            raise ResultsError(f"{where} has the role {role!r}, expected one of {ROLES}")
        group, name = one["group"] or one["fullname"], one["name"]
        if (group, name) in seen:
            raise ResultsError(f"{where}: {name!r} stands twice in group {group!r}")
        seen.add((group, name))
        yield Entry(
            group=group,
            name=name,
            role=role,
            seconds=_seconds(one["stats"]["data"], f"{where}.stats.data"),
            facts=facts,
        )


def _seconds(data: Any, where: str) -> tuple[float, ...]:
    values = tuple(_of_type(data, list, where))
    if not values:
        raise ResultsError(f"{where} is empty, expected seconds of each round")
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value <= 0:
            raise ResultsError(f"{where} holds {value!r}, expected seconds above 0")
    return tuple(float(value) for value in values)


def _of_type(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise ResultsError(f"{where} is a {type(value).__name__}, expected a {kind.__name__}")
    return value
