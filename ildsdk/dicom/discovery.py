"""From a path to studies: read headers, choose a series per study, account for every file.

Rules for what is missing
-------------------------
- StudyInstanceUID missing or invalid: files of one PatientID, StudyDate and frame of reference
  count as one study, under a derived ``2.25.`` UID.
- SeriesInstanceUID missing or invalid: files of one study, SeriesNumber and kernel count
  as one series.
- SOPInstanceUID missing or invalid: derived from the file's bytes.
- Two patients under one StudyInstanceUID (broken de-identification): one :class:`Study` each; files
  without PatientID join the patient if there is only one.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from ildsdk.dicom import reasons
from ildsdk.dicom.geometry import Candidate, OrderedSeries, Placed, Refused, order_series, sample
from ildsdk.dicom.header import FrameFacts
from ildsdk.dicom.image_rules import orientation_of, refuse_frame
from ildsdk.dicom.objects import FoundFile, Identity, read_file
from ildsdk.dicom.redact import Redactor
from ildsdk.dicom.series_rules import SeriesFacts, choose
from ildsdk.dicom.source import StudySource
from ildsdk.dicom.study import Discovery, SliceHeader, Study
from ildsdk.errors import ConfigError
from ildsdk.records import SeriesSummary, SkippedItem

_MAX_LISTED_SERIES: Final = 20


def discover(
    path: str | os.PathLike[str],
    *,
    series_uid: str | None = None,
    every_mm: float = 10.0,
    check: Callable[[], None] | None = None,
) -> Discovery:
    """Find the chest CT slices to answer under a path, from headers alone.

    Parameters
    ----------
    path : path-like
        Folder (nested, any file names), single DICOM file, or zip archive (read in place).
    series_uid : str or None
        Answer this SeriesInstanceUID instead of the one the rules choose; other studies are
        then listed as skipped.
    every_mm : float
        Take slices at least this far apart along the normal, in mm; 0 takes all.
    check : callable, optional
        Called before each file is opened; what it raises ends the discovery.

    Returns
    -------
    Discovery
        Every file is either in a study's slices or in one of the ``skipped`` lists.

    Raises
    ------
    ConfigError
        The path does not exist, ``every_mm`` is negative, or ``series_uid`` is not there or not
        usable (the usable ones are listed).
    InputError
        A zip archive is damaged or beyond the limits.

    Notes
    -----
    The rules stand in :mod:`~ildsdk.dicom.image_rules` (one image),
    :mod:`~ildsdk.dicom.geometry` (one series) and :mod:`~ildsdk.dicom.series_rules`
    (one study). Only headers are read. Safe to call from many threads.
    """
    if not (math.isfinite(every_mm) and every_mm >= 0):
        raise ConfigError(f"every_mm is {every_mm!r}, expected 0 or more (mm)")
    with StudySource(Path(path)) as source:
        found = []
        for entry in source.entries:
            if check is not None:
                check()
            found.append(read_file(source, entry))
    tokens: set[str] = set()
    for item in found:
        tokens |= item.tokens
    redactor = Redactor(tokens, (item.entry.parts for item in found))
    groups = _group_by_study(found)
    _check_series_uid(series_uid, groups)
    studies: list[Study] = []
    stray = [
        _file_skip(item, redactor, item.refusal)
        for item in found
        if item.identity is None and item.refusal is not None
    ]
    for items in groups:
        study, skipped = _build_study(items, redactor, series_uid, every_mm)
        if study is None:
            stray.extend(skipped)
        else:
            studies.append(study)
    return Discovery(studies=tuple(studies), skipped=_sorted(stray))


# ---------------------------------------------------------------- one study


def _group_by_study(found: Iterable[FoundFile]) -> list[list[FoundFile]]:
    by_uid: dict[str, list[FoundFile]] = {}
    for item in found:
        if item.identity is not None:
            by_uid.setdefault(item.identity.study_instance_uid, []).append(item)
    groups: list[list[FoundFile]] = []
    for items in by_uid.values():
        hashes = {item.identity.patient_hash for item in items if item.identity} - {None}
        if len(hashes) <= 1:
            groups.append(items)
            continue
        by_patient: dict[str | None, list[FoundFile]] = {}
        for item in items:
            if item.identity is not None:
                by_patient.setdefault(item.identity.patient_hash, []).append(item)
        groups.extend(by_patient.values())
    return groups


def _usable_series(items: Iterable[FoundFile]) -> dict[str, str]:
    """Series with at least one frame that is not refused -> empty text; others -> why not."""
    verdicts: dict[str, str] = {}
    for item in items:
        if item.identity is None:
            continue
        uid = item.identity.series_instance_uid
        refusals = [item.refusal] if item.refusal else [refuse_frame(f) for f in item.frames]
        if any(refusal is None for refusal in refusals):
            verdicts[uid] = ""
        elif refusals and refusals[0]:
            verdicts.setdefault(uid, refusals[0][0])
    return verdicts


def _check_series_uid(series_uid: str | None, groups: Sequence[Sequence[FoundFile]]) -> None:
    if series_uid is None:
        return
    verdicts: dict[str, str] = {}
    for items in groups:
        for uid, verdict in _usable_series(items).items():
            verdicts[uid] = verdicts.get(uid, verdict) and verdict
    if verdicts.get(series_uid) == "":
        return
    usable = sorted(uid for uid, verdict in verdicts.items() if not verdict)
    listed = ", ".join(usable[:_MAX_LISTED_SERIES]) or "none"
    more = (
        f" and {len(usable) - _MAX_LISTED_SERIES} more" if len(usable) > _MAX_LISTED_SERIES else ""
    )
    why = (
        f"cannot be answered ({verdicts[series_uid]})"
        if series_uid in verdicts
        else "is not in the study"
    )
    raise ConfigError(f"series {series_uid[:64]!r} {why}; usable series: {listed}{more}")


def _build_study(
    items: list[FoundFile], redactor: Redactor, series_uid: str | None, every_mm: float
) -> tuple[Study | None, list[SkippedItem]]:
    candidates, skipped = _split_usable(items, redactor)
    first = items[0].identity
    if first is None or not candidates:
        return None, skipped
    descriptions: dict[str, str] = {}
    for item in items:
        if item.identity is not None:
            descriptions.setdefault(item.identity.series_instance_uid, item.description)
    usable: list[SeriesFacts] = []
    for uid, members in candidates.items():
        ordered = order_series(members)
        skipped.extend(_frame_skip(refused) for refused in ordered.refused)
        usable.append(
            SeriesFacts(series_instance_uid=uid, description=descriptions[uid], ordered=ordered)
        )
    chosen: SeriesFacts | None
    if series_uid is None:
        chosen, because = choose(usable)
    else:
        chosen, because = _override(usable, series_uid)
    if chosen is None:
        for facts in usable:
            skipped.extend(_not_chosen(facts.ordered, "a series of another study was asked for"))
        return None, skipped
    for facts in usable:
        if facts is not chosen:
            skipped.extend(_not_chosen(facts.ordered, because[facts.series_instance_uid]))
    taken, left = sample(chosen.ordered.slices, every_mm)
    skipped.extend(_frame_skip(refused) for refused in left)
    patient = next(
        (
            item.identity.patient_hash
            for item in items
            if item.identity and item.identity.patient_hash
        ),
        None,
    )
    study = Study(
        study_instance_uid=first.study_instance_uid,
        patient_hash=patient,
        series=_summaries(items, usable, chosen, because),
        slices=tuple(_slice_header(placed, first.study_instance_uid) for placed in taken),
        skipped=_sorted(skipped),
    )
    return study, []


def _split_usable(
    items: Iterable[FoundFile], redactor: Redactor
) -> tuple[dict[str, list[Candidate]], list[SkippedItem]]:
    """Usable frames by series, and skips for all others."""
    candidates: dict[str, list[Candidate]] = {}
    skipped: list[SkippedItem] = []
    for item in items:
        if item.identity is None:
            continue
        if item.refusal is not None:
            skipped.append(_file_skip(item, redactor, item.refusal))
            continue
        label = redactor.label(item.entry.parts)
        for facts in item.frames:
            source = label if facts.frame is None else f"{label}#{facts.frame}"
            refusal = refuse_frame(facts)
            orientation = orientation_of(facts)
            if refusal is not None or orientation is None or item.layout is None:
                reason, detail = refusal or (reasons.NOT_AXIAL, "orientation unusable")
                skipped.append(_skip(source, reason, detail, item.identity))
                continue
            uid = item.identity.series_instance_uid
            candidates.setdefault(uid, []).append(_candidate(item, facts, orientation, source))
    return candidates, skipped


def _candidate(
    item: FoundFile, facts: FrameFacts, orientation: tuple[float, ...], source: str
) -> Candidate:
    if item.identity is None or item.layout is None or facts.pixel_spacing_mm is None:
        raise ValueError("a candidate needs identity, layout and pixel spacing")
    layout = dataclasses.replace(
        item.layout,
        frame_index=(facts.frame or 1) - 1,
        slope=facts.slope if facts.slope is not None else 1.0,
        intercept=facts.intercept if facts.intercept is not None else 0.0,
    )
    return Candidate(
        source=source,
        series_instance_uid=item.identity.series_instance_uid,
        sop_instance_uid=item.identity.sop_instance_uid,
        facts=facts,
        orientation=orientation,
        pixel_spacing_mm=facts.pixel_spacing_mm,
        transfer_syntax_uid=item.transfer_syntax_uid,
        is_lossy=item.is_lossy,
        layout=layout,
        origin=item.entry.origin,
    )


def _override(
    usable: Sequence[SeriesFacts], series_uid: str
) -> tuple[SeriesFacts | None, dict[str, str]]:
    because = {facts.series_instance_uid: "another series was asked for" for facts in usable}
    chosen = next((facts for facts in usable if facts.series_instance_uid == series_uid), None)
    if chosen is not None:
        because[series_uid] = "chosen: asked for by its SeriesInstanceUID"
    return chosen, because


def _summaries(
    items: Iterable[FoundFile],
    usable: Sequence[SeriesFacts],
    chosen: SeriesFacts,
    because: dict[str, str],
) -> tuple[SeriesSummary, ...]:
    summaries = [
        SeriesSummary(
            series_instance_uid=facts.series_instance_uid,
            n_slices=len(facts.ordered.slices),
            slice_thickness_mm=facts.slice_thickness_mm,
            spacing_mm=facts.ordered.spacing_mm,
            kernel=facts.kernel,
            is_chosen=facts is chosen,
            reason=because[facts.series_instance_uid],
        )
        for facts in usable
    ]
    known = {facts.series_instance_uid for facts in usable}
    refused: dict[str, list[FoundFile]] = {}
    for item in items:
        if item.identity is not None and item.identity.series_instance_uid not in known:
            refused.setdefault(item.identity.series_instance_uid, []).append(item)
    for uid, members in refused.items():
        reasons_found = Counter(_first_reason(item) for item in members)
        reason = min(reasons_found, key=lambda name: (-reasons_found[name], name))
        summaries.append(
            SeriesSummary(
                series_instance_uid=uid,
                n_slices=0,
                slice_thickness_mm=members[0].slice_thickness_mm,
                spacing_mm=None,
                kernel=members[0].kernel,
                is_chosen=False,
                reason=f"not usable: {reason} ({reasons.MEANINGS.get(reason, reason)})",
            )
        )
    return tuple(sorted(summaries, key=lambda s: (not s.is_chosen, s.series_instance_uid)))


def _first_reason(item: FoundFile) -> str:
    refusal = item.refusal or next((r for r in map(refuse_frame, item.frames) if r), None)
    return refusal[0] if refusal else reasons.BAD_IMAGE_DESCRIPTION


# ---------------------------------------------------------------- records


def _slice_header(placed: Placed, study_instance_uid: str) -> SliceHeader:
    candidate = placed.candidate
    return SliceHeader(
        source=candidate.source,
        study_instance_uid=study_instance_uid,
        series_instance_uid=candidate.series_instance_uid,
        sop_instance_uid=candidate.sop_instance_uid,
        frame=candidate.facts.frame,
        position_mm=placed.position_mm,
        n_rows=candidate.layout.n_rows,
        n_columns=candidate.layout.n_columns,
        pixel_spacing_mm=candidate.pixel_spacing_mm,
        slice_thickness_mm=candidate.facts.slice_thickness_mm,
        transfer_syntax_uid=candidate.transfer_syntax_uid,
        layout=candidate.layout,
        origin=candidate.origin,
    )


def _skip(source: str, reason: str, detail: str, who: Identity | None) -> SkippedItem:
    return SkippedItem(
        level="file",
        source=source,
        reason=reason,
        detail=detail,
        series_instance_uid=who.series_instance_uid if who else None,
        sop_instance_uid=who.sop_instance_uid if who else None,
    )


def _file_skip(item: FoundFile, redactor: Redactor, refusal: tuple[str, str]) -> SkippedItem:
    return _skip(redactor.label(item.entry.parts), *refusal, item.identity)


def _frame_skip(refused: Refused) -> SkippedItem:
    return SkippedItem(
        level="file",
        source=refused.candidate.source,
        reason=refused.reason,
        detail=refused.detail,
        series_instance_uid=refused.candidate.series_instance_uid,
        sop_instance_uid=refused.candidate.sop_instance_uid,
    )


def _not_chosen(ordered: OrderedSeries, detail: str) -> list[SkippedItem]:
    return [
        _frame_skip(Refused(placed.candidate, reasons.SERIES_NOT_CHOSEN, detail))
        for placed in ordered.slices
    ]


def _sorted(skipped: Iterable[SkippedItem]) -> tuple[SkippedItem, ...]:
    return tuple(sorted(skipped, key=lambda item: (item.source, item.reason)))
