"""From case files to one training set, case by case, with an account of what was left out."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from export.case_files import (
    CaseSummary,
    keyed,
    read_images,
    read_summary,
)
from export.dataset import IMAGES_NAME, RADIOMICS_NAME, SCHEMA, TABLE_NAME
from export.sources import CaseSource
from export.whole_files import write_whole
from ildsdk.dicom import reasons
from ildsdk.errors import InputError
from ildsdk.radiomics import FEATURE_SET_VERSION
from ildsdk.settings import MethodSettings

SKIPPED_NAME: Final = "skipped.csv"

EXPECTED_SKIPS: Final = frozenset(
    {
        reasons.DICOMDIR, reasons.NOT_DICOM, reasons.DOSE_REPORT, reasons.NOT_CT,
        reasons.SECONDARY_CAPTURE, reasons.RGB, reasons.LOCALIZER, reasons.DERIVED,
        reasons.REFORMAT, reasons.SERIES_NOT_CHOSEN, reasons.DUPLICATE_SLICE, reasons.NOT_SAMPLED,
    }
)  # fmt: skip
"""Reasons that take no chest slice away: other objects, and slices that were not asked for."""


def is_complete(sources: Sequence[CaseSource], out: Path, salt: bytes) -> bool:
    """Whether the folder holds exactly these cases, from these origins, under these labels."""
    path = out / TABLE_NAME
    if not path.is_file():
        return False
    cases = json.loads(path.read_text(encoding="utf-8")).get("cases", {})
    ours = {s.case_id: (s.label, keyed(salt, "origin", s.origin)) for s in sources}
    return ours == {case_id: (case["label"], case["origin_key"]) for case_id, case in cases.items()}


def join(
    sources: Sequence[CaseSource],
    out: Path,
    method: MethodSettings,
    warn_above: float,
    say: Callable[[str], None],
) -> None:
    """Join the case files of the sources into arrays, table and ``skipped.csv``.

    One case's images are in memory at a time; the table is written last, and its presence says
    that the folder is complete.

    Raises
    ------
    InputError
        No slice at all is usable.
    """
    ordered = sorted(sources, key=lambda source: source.case_id)
    summaries = [read_summary(out, source.case_id) for source in ordered]
    (out / TABLE_NAME).unlink(missing_ok=True)
    _write_skipped(out, ordered, summaries)
    counts = Counter(reason for summary in summaries for _, reason, _ in summary.skipped)
    lines, classes = _account(ordered, summaries, counts, warn_above)
    for line in lines:
        say(line)
    n_slices = sum(summary.position_mm.size for summary in summaries)
    if n_slices == 0:
        raise InputError(
            f"none of the {len(ordered)} cases gave a usable slice; the reasons are in "
            f"{SKIPPED_NAME}"
        )
    _write_images(out, ordered, summaries, n_slices, method.input_size)
    radiomics = io.BytesIO()
    np.save(radiomics, np.concatenate([s.radiomics for s in summaries if s.position_mm.size]))
    write_whole(out / RADIOMICS_NAME, radiomics.getvalue())
    table = {
        "schema": SCHEMA,
        "method": dataclasses.asdict(method),
        "feature_set_version": FEATURE_SET_VERSION,
        "n_skipped": sum(counts.values()),
        "skipped": dict(counts.most_common()),
        "classes": classes,
        "cases": {
            source.case_id: {
                "label": source.label,
                "patient_keys": summary.patient_keys,
                "study_keys": summary.study_keys,
                "origin_key": summary.origin_key,
            }
            for source, summary in zip(ordered, summaries, strict=True)
        },
        "slices": [
            {
                "case_id": source.case_id,
                "position_mm": None if np.isnan(position) else float(position),
                "perceptual_hash": f"{fingerprint:016x}",
            }
            for source, summary in zip(ordered, summaries, strict=True)
            for position, fingerprint in zip(
                summary.position_mm, summary.perceptual_hashes.tolist(), strict=True
            )
        ],
    }
    write_whole(out / TABLE_NAME, (json.dumps(table, indent=0) + "\n").encode())
    for leftover in (*out.glob("*.partial"), *(out / "cases").glob("*.partial")):
        leftover.unlink()  # of runs that were killed


def _write_skipped(
    out: Path, ordered: Sequence[CaseSource], summaries: Sequence[CaseSummary]
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["case_id", "name", "reason", "detail"])
    for source, summary in zip(ordered, summaries, strict=True):
        writer.writerows((source.case_id, *row) for row in summary.skipped)
    write_whole(out / SKIPPED_NAME, text.getvalue().encode())


def _write_images(
    out: Path,
    ordered: Sequence[CaseSource],
    summaries: Sequence[CaseSummary],
    n_slices: int,
    size: int,
) -> None:
    draft = out / f"{IMAGES_NAME}.{os.getpid()}.partial"
    images = np.lib.format.open_memmap(
        draft, mode="w+", dtype=np.float16, shape=(n_slices, 1, size, size)
    )
    start = 0
    for source, summary in zip(ordered, summaries, strict=True):
        stop = start + summary.position_mm.size
        if stop > start:
            images[start:stop] = read_images(out, source.case_id)
        start = stop
    images.flush()
    del images
    os.replace(draft, out / IMAGES_NAME)


def _account(
    ordered: Sequence[CaseSource],
    summaries: Sequence[CaseSummary],
    counts: Counter[str],
    warn_above: float,
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Lines for the reader, and the same by class for the table."""
    listed = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    lines = [f"skipped {sum(counts.values())} (details in {SKIPPED_NAME}): {listed or 'nothing'}"]
    classes: dict[str, dict[str, Any]] = {}
    for label in sorted({source.label for source in ordered}):
        own = [
            summary
            for source, summary in zip(ordered, summaries, strict=True)
            if source.label == label
        ]
        n_used = sum(summary.position_mm.size for summary in own)
        n_lost = sum(
            reason not in EXPECTED_SKIPS for summary in own for _, reason, _ in summary.skipped
        )
        n_empty = sum(summary.position_mm.size == 0 for summary in own)
        classes[label] = {
            "n_cases": len(own), "n_cases_without_slices": n_empty,
            "n_slices": n_used, "n_lost": n_lost,
        }  # fmt: skip
        lines.append(f"{label}: {n_used} slices of {len(own) - n_empty} cases, {n_lost} lost")
        if n_empty:
            lines.append(f"warning: {n_empty} of {len(own)} cases of {label} gave no slice")
        if n_lost > warn_above * (n_lost + n_used):
            lines.append(
                f"warning: {label} lost {n_lost} of {n_lost + n_used} slices, more than "
                f"{warn_above:.0%}: what is left may not stand for the class"
            )
    holders: dict[str, list[str]] = {}
    for source, summary in zip(ordered, summaries, strict=True):
        for key in summary.patient_keys:
            holders.setdefault(key, []).append(source.case_id)
    lines += [
        f"warning: cases {', '.join(cases)} carry one PatientID; a patient is one case"
        for cases in holders.values()
        if len(cases) > 1
    ]
    return lines, classes
