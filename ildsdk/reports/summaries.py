"""Figures the text and the HTML report share: skipped items by reason, time by stage."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence

from ildsdk.records import SkippedItem, SliceAnswer

STAGES: tuple[str, ...] = (
    "decode", "mask", "radiomics", "model_input", "backbone", "fusion", "map_backbone", "explain",
    "search", "maps",
)  # fmt: skip
"""Order in which a slice passes the stages; stages named otherwise follow, as met."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SkippedGroup:
    """Items skipped for one reason, in the order they were met."""

    reason: str
    n_files: int
    n_slices: int
    items: tuple[SkippedItem, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """Milliseconds of one stage over the answered slices."""

    stage: str
    n_slices: int
    median_ms: float
    total_ms: float


def group_skipped(items: Iterable[SkippedItem]) -> tuple[SkippedGroup, ...]:
    """Group skipped items by reason, largest group first, then by reason."""
    by_reason: dict[str, list[SkippedItem]] = {}
    for item in items:
        by_reason.setdefault(item.reason, []).append(item)
    groups = [
        SkippedGroup(
            reason=reason,
            n_files=sum(item.level == "file" for item in members),
            n_slices=sum(item.level == "slice" for item in members),
            items=tuple(members),
        )
        for reason, members in by_reason.items()
    ]
    return tuple(sorted(groups, key=lambda group: (-len(group.items), group.reason)))


def time_stages(slices: Sequence[SliceAnswer]) -> tuple[StageTiming, ...]:
    """Median and total time of each stage over ``slices``, in the order of :data:`STAGES`."""
    by_stage: dict[str, list[float]] = {}
    for answer in slices:
        for stage, milliseconds in answer.timings_ms.items():
            by_stage.setdefault(stage, []).append(milliseconds)
    known = [stage for stage in STAGES if stage in by_stage]
    others = [stage for stage in by_stage if stage not in STAGES]
    return tuple(
        StageTiming(
            stage=stage,
            n_slices=len(by_stage[stage]),
            median_ms=statistics.median(by_stage[stage]),
            total_ms=sum(by_stage[stage]),
        )
        for stage in known + others
    )


def format_duration(milliseconds: float) -> str:
    """``0.06 ms``, ``8.4 ms``, ``120 ms`` or ``1.24 s``: two or three digits are enough to read."""
    if milliseconds < 0.995:
        return f"{milliseconds:.2f} ms"
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.2f} s"


def count_noun(count: int, noun: str, plural: str | None = None) -> str:
    """``1 slice``, ``2 slices``, ``3 series``: a count with its noun."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
