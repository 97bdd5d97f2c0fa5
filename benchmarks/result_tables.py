"""Markdown of a results file: machine, acceptance figures, every group, the README's table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from benchmarks.acceptance import (
    COLD_GROUP,
    SLICE_GROUP,
    STUDY_GROUP,
    acceptance,
    default_entry,
    network_alone,
    peak_mb,
    speed_up,
)
from benchmarks.results import Entry, Results, rival_of

N_FOR_P99 = 100


def machine_line(results: Results) -> str:
    """Processor, threads, date and versions in one paragraph."""
    machine = results.machine
    extensions = ", ".join(machine.get("vector_extensions", [])) or "no AVX2 or AVX-512"
    versions = ", ".join(f"{k} {v}" for k, v in machine.get("versions", {}).items())
    shares = [
        one.facts["busy_elsewhere"] for one in results.entries if "busy_elsewhere" in one.facts
    ]
    busy = f"; other work took {max(shares):.1%} of the processors at most" if shares else ""
    commit = f", commit {results.commit}" if results.commit else ""
    return (
        f"{machine['cpu']} ({extensions}), {machine.get('n_cpus', '?')} cores, "
        f"**{machine['threads']} threads** for ours and for the rivals; taken "
        f"{results.taken[:10]}{commit}{busy}. Python {machine.get('python', '?')}; {versions}."
    )


def acceptance_table(results: Results) -> str:
    """What was asked for beside what was found."""
    words = {True: "met", False: "**missed**", None: ""}
    rows = [
        (check.what, check.found, check.asked, words[check.is_met]) for check in acceptance(results)
    ]
    return table(("figure", "found", "asked", ""), rows)


def group_tables(results: Results) -> str:
    """A table for each group: median, spread, and how many times faster than the rival."""
    parts = []
    for group, entries in results.groups().items():
        rival = rival_of(entries)
        rows = [_row(entry, rival) for entry in entries]
        head = ("", "median", "middle half", "slowest 1 %", "rounds", "rival / this", "beside it")
        parts.append(f"**{group}**\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def readme_table(results: Results) -> str:
    """The README's figures: what a reader asks first, ours beside the reference stack."""
    rows = [
        row
        for row in (
            _compared("one slice, pixels in memory to top 10 of 28,942", results, SLICE_GROUP),
            _compared("30-slice study from files", results, STUDY_GROUP.format(30)),
            _study_row(results),
            _compared("`ildsdk query one.dcm`, new process, warm caches", results, COLD_GROUP),
            _memory_row(results),
        )
        if row is not None
    ]
    head = table(("what", "ildsdk", "reference stack", "times faster"), rows)
    machine = results.machine
    note = (
        f"Medians of one interleaved run on {machine['cpu']}, {machine['threads']} threads for "
        "both; the reference stack is pydicom, scikit-learn, scikit-image, pyradiomics, torch and "
        "faiss with the same weights. With our lung mask handed to it, its features, embeddings "
        "and neighbors were checked equal in that run; the times are of each with its own mask, "
        "which gives other neighbors. `make bench` measures your machine; what each figure means, "
        "and all others: [docs/performance.md](docs/performance.md)."
    )
    return f"{head}\n\n{note}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table; text in the first column, figures flush right."""
    rule = ["---", *("---:" for _ in head[1:])]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def duration(seconds: float) -> str:
    """Three digits with the unit that suits."""
    for unit, factor in (("us", 1e6), ("ms", 1e3), ("s", 1.0)):
        if seconds * factor < 1000 or unit == "s":
            value = seconds * factor
            return f"{value:.{_digits(value)}f} {unit}"
    raise AssertionError("unreachable")


def _digits(value: float) -> int:
    return 0 if value >= 99.95 else 1 if value >= 9.995 else 2


def _row(entry: Entry, rival: Entry | None) -> tuple[str, ...]:
    low, high = np.percentile(entry.seconds, [25, 75])
    n_rounds = len(entry.seconds)
    slowest = np.percentile(entry.seconds, 99) if n_rounds >= N_FOR_P99 else max(entry.seconds)
    ratio = ""
    if rival is not None and entry is not rival:
        ratio = f"{rival.median / entry.median:.2f} x"
    return (
        f"**{entry.name}**" if entry.role == "ours" else entry.name,
        duration(entry.median),
        f"{duration(low)} to {duration(high)}",
        duration(float(slowest)) + ("" if n_rounds >= N_FOR_P99 else " (max)"),
        str(n_rounds),
        ratio,
        _facts(entry),
    )


def _facts(entry: Entry) -> str:
    facts = entry.facts
    parts = []
    if facts.get("is_default"):
        parts.append("default")
    if "n_slices" in facts and entry.group.startswith("study"):
        parts.append(f"{facts['n_slices'] / entry.median:.1f} slices/s")
    if "peak_mb" in facts:
        parts.append(f"peak {statistics.median(facts['peak_mb']):.0f} MB")
    if "recall" in facts:
        parts.append(f"recall {facts['recall']:.4f}")
    if "equality" in facts and not entry.group.startswith("slice stage"):
        found = facts["equality"]
        parts.append(
            f"same mask: cosine >= {found['cosine_min']:.6f}, "
            f"top-10 overlap {found['top10_overlap']:.3f}; own masks (Dice >= "
            f"{found['mask_dice_min']:.3f}): cosine >= {found['own_mask_cosine_min']:.4f}, "
            f"overlap {found['own_mask_top10_overlap']:.2f}, same label of the best "
            f"{found['own_mask_same_label']:.0%}"
        )
    return "; ".join(parts)


def _compared(what: str, results: Results, group: str) -> tuple[str, ...] | None:
    ours = default_entry(results, group)
    found = speed_up(results, group)
    if ours is None or found is None:
        return None
    _, rival, ratio = found
    return what, duration(ours.median), duration(rival.median), f"{ratio:.1f}"


def _study_row(results: Results) -> tuple[str, ...] | None:
    entry = default_entry(results, STUDY_GROUP.format(300))
    if entry is None:
        return None
    alone = network_alone(results, 300, entry.facts["precision"])
    share = "" if alone is None else f", {alone.median / entry.median:.0%} of the network alone"
    return "300-slice study from files", f"{300 / entry.median:.1f} slices/s{share}", "", ""


def _memory_row(results: Results) -> tuple[str, ...] | None:
    few, many = peak_mb(results, 300), peak_mb(results, 600)
    if few is None or many is None:
        return None
    return "peak memory of a new process, 300 / 600 slices", f"{few:.0f} / {many:.0f} MB", "", ""
