"""Order and thinning of one series: majority geometry, positions, duplicates, sampling.

Rules, in this order:

1. Geometry. Slices with the same orientation (components within 0.01), pixel spacing (within
   0.001 mm) and matrix belong together. The largest such group stays (tie: the one that comes
   first by source label), the others are ``mixed-geometry``.
2. Position. ImagePositionPatient projected on the normal, PS3.3 C.7.6.2.1.1. Where at least half
   the slices have it, those without are ``no-position``. Where fewer have it, SliceLocation
   serves if all have one. Else the order is that of InstanceNumber, then source label,
   and positions stay unknown (a lone slice needs none).
3. Duplicates. The same SOPInstanceUID and frame, or a position within 0.05 mm of a kept slice,
   is a ``duplicate-slice``. The best is kept: original before derived, lossless before
   lossy, decodable before not, then by SOPInstanceUID, frame and source label.
4. Sampling. From the lowest position upward each slice at least ``every_mm`` (less 0.1 mm for
   rounded positions) above the last taken one; 0 takes all. Without positions the spacing is
   taken from SpacingBetweenSlices or SliceThickness; where both are missing all are taken.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Final

from ildsdk.dicom import codecs, reasons
from ildsdk.dicom.header import FrameFacts
from ildsdk.dicom.image_rules import normal_of
from ildsdk.dicom.source import Origin
from ildsdk.dicom.study import PixelLayout

ORIENTATION_TOLERANCE: Final = 0.01
SPACING_TOLERANCE_MM: Final = 0.001
SAME_POSITION_MM: Final = 0.05
SAMPLING_TOLERANCE_MM: Final = 0.1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One usable frame on its way into a series.

    Attributes
    ----------
    orientation : tuple of 6 floats
        Checked, or standard axes by rule 6 of :mod:`ildsdk.dicom.image_rules`.
    pixel_spacing_mm : tuple of 2 floats
        Checked.
    """

    source: str
    series_instance_uid: str
    sop_instance_uid: str
    facts: FrameFacts
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    transfer_syntax_uid: str
    is_lossy: bool
    layout: PixelLayout
    origin: Origin

    @property
    def is_original(self) -> bool:
        """Whether ImageType does not call the pixels derived, secondary or reformatted."""
        return not {"DERIVED", "SECONDARY", "REFORMATTED", "MPR", "AVERAGE"}.intersection(
            self.facts.image_type
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A candidate with its position in mm along the normal, None where unknown."""

    candidate: Candidate
    position_mm: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """A candidate that stays out, and why."""

    candidate: Candidate
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True, slots=True)
class OrderedSeries:
    """Slices by ascending position without duplicates, and what was left out."""

    slices: tuple[Placed, ...]
    refused: tuple[Refused, ...]

    @property
    def spacing_mm(self) -> float | None:
        """Median distance between neighboring slices; None for one slice or no positions."""
        positions = [placed.position_mm for placed in self.slices]
        known = [position for position in positions if position is not None]
        if len(known) < 2:
            return None
        gaps = sorted(high - low for low, high in itertools.pairwise(known))
        middle = len(gaps) // 2
        return round((gaps[middle] + gaps[~middle]) / 2, 4)

    @property
    def extent_mm(self) -> float:
        """Distance from the first to the last slice plus one slice thickness."""
        positions = [placed.position_mm for placed in self.slices]
        known = [position for position in positions if position is not None]
        thickness = self.slices[0].candidate.facts.slice_thickness_mm or 0.0
        if known:
            return known[-1] - known[0] + thickness
        return (_nominal_spacing(self.slices) or 0.0) * (len(self.slices) - 1) + thickness


def order_series(candidates: Sequence[Candidate]) -> OrderedSeries:
    """Apply rules 1 to 3 to the usable frames of one series (at least one)."""
    kept, refused = _majority(sorted(candidates, key=lambda candidate: candidate.source))
    placed, unplaced = _place(kept)
    unique, duplicates = _drop_duplicates(placed)
    return OrderedSeries(tuple(unique), tuple(refused + unplaced + duplicates))


def sample(slices: Sequence[Placed], every_mm: float) -> tuple[list[Placed], list[Refused]]:
    """Apply rule 4.

    Parameters
    ----------
    slices : sequence of Placed
        Ordered by position.
    every_mm : float
        Smallest distance in mm; 0 takes all.
    """
    if every_mm <= 0:
        return list(slices), []
    taken: list[Placed] = []
    left: list[Refused] = []
    nominal = _nominal_spacing(slices)
    last = 0.0
    for number, placed in enumerate(slices):
        position = placed.position_mm
        if position is None:
            if nominal is None:
                taken.append(placed)
                continue
            position = number * nominal
        if not taken or position - last >= every_mm - SAMPLING_TOLERANCE_MM:
            taken.append(placed)
            last = position
        else:
            detail = f"{position - last:.2f} mm above the last taken slice, every {every_mm:g} mm"
            left.append(Refused(placed.candidate, reasons.NOT_SAMPLED, detail))
    return taken, left


def _majority(candidates: list[Candidate]) -> tuple[list[Candidate], list[Refused]]:
    groups: list[list[Candidate]] = []
    for candidate in candidates:
        for group in groups:
            if _same_geometry(group[0], candidate):
                group.append(candidate)
                break
        else:
            groups.append([candidate])
    largest = max(groups, key=len)
    refused = [
        Refused(
            candidate,
            reasons.MIXED_GEOMETRY,
            f"{candidate.layout.n_rows} x {candidate.layout.n_columns} pixels of "
            f"{candidate.pixel_spacing_mm[0]:g} x {candidate.pixel_spacing_mm[1]:g} mm; "
            f"{len(largest)} of {len(candidates)} slices of the series share another geometry",
        )
        for group in groups
        if group is not largest
        for candidate in group
    ]
    return largest, refused


def _same_geometry(one: Candidate, other: Candidate) -> bool:
    return (
        (one.layout.n_rows, one.layout.n_columns) == (other.layout.n_rows, other.layout.n_columns)
        and _close(one.pixel_spacing_mm, other.pixel_spacing_mm, SPACING_TOLERANCE_MM)
        and _close(one.orientation, other.orientation, ORIENTATION_TOLERANCE)
    )


def _close(one: Sequence[float], other: Sequence[float], tolerance: float) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def _place(candidates: list[Candidate]) -> tuple[list[Placed], list[Refused]]:
    normal = normal_of(candidates[0].orientation)
    with_position = [candidate for candidate in candidates if candidate.facts.position is not None]
    if 2 * len(with_position) >= len(candidates):
        placed = [
            Placed(candidate, round(_project(candidate.facts.position, normal), 4))
            for candidate in with_position
        ]
        refused = [
            Refused(candidate, reasons.NO_POSITION, "ImagePositionPatient missing or unusable")
            for candidate in candidates
            if candidate.facts.position is None
        ]
        return sorted(placed, key=_place_key), refused
    if all(candidate.facts.slice_location_mm is not None for candidate in candidates):
        placed = [Placed(candidate, candidate.facts.slice_location_mm) for candidate in candidates]
        return sorted(placed, key=_place_key), []
    numbered = sorted(
        candidates,
        key=lambda candidate: (
            candidate.facts.instance_number is None,
            candidate.facts.instance_number or 0,
            candidate.source,
        ),
    )
    return [Placed(candidate, None) for candidate in numbered], []


def _project(position: tuple[float, ...] | None, normal: tuple[float, float, float]) -> float:
    return sum(a * b for a, b in zip(position or (0.0, 0.0, 0.0), normal, strict=True))


def _place_key(placed: Placed) -> tuple[float, str]:
    return placed.position_mm or 0.0, placed.candidate.source


def _drop_duplicates(placed: list[Placed]) -> tuple[list[Placed], list[Refused]]:
    best_first = sorted(placed, key=lambda entry: _quality(entry.candidate))
    kept: list[Placed] = []
    refused: list[Refused] = []
    seen: set[tuple[str, int | None]] = set()
    # Positions by bin of the tolerance: a duplicate lies in the same or a neighboring bin.
    bins: dict[int, list[float]] = {}
    for entry in best_first:
        candidate, position = entry.candidate, entry.position_mm
        key = (candidate.sop_instance_uid, candidate.facts.frame)
        slot = 0 if position is None else int(position // SAME_POSITION_MM)
        if key in seen:
            detail = "same SOPInstanceUID as a kept slice"
            refused.append(Refused(candidate, reasons.DUPLICATE_SLICE, detail))
        elif position is not None and any(
            abs(position - other) <= SAME_POSITION_MM
            for neighbor in (slot - 1, slot, slot + 1)
            for other in bins.get(neighbor, ())
        ):
            detail = f"same position as a kept slice ({position:g} mm)"
            refused.append(Refused(candidate, reasons.DUPLICATE_SLICE, detail))
        else:
            seen.add(key)
            if position is not None:
                bins.setdefault(slot, []).append(position)
            kept.append(entry)
    in_order = {id(entry): number for number, entry in enumerate(placed)}
    return sorted(kept, key=lambda entry: in_order[id(entry)]), refused


def _quality(candidate: Candidate) -> tuple[bool, bool, bool, str, int, str]:
    return (
        not candidate.is_original,
        not codecs.is_decodable(candidate.transfer_syntax_uid),
        candidate.is_lossy,
        candidate.sop_instance_uid,
        candidate.facts.frame or 0,
        candidate.source,
    )


def _nominal_spacing(slices: Sequence[Placed]) -> float | None:
    facts = slices[0].candidate.facts
    return facts.spacing_between_mm or facts.slice_thickness_mm
