"""Where cases come from: DICOM studies named in a table, or phantoms made in memory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ildsdk.errors import InputError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceSlice:
    """One slice as it comes from its source.

    Attributes
    ----------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, HU.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    patient, study : str or None
        Whose it is, in whatever words; kept as a keyed hash only. None where unknown.
    name : str or None
        What a report may call it; None counts.
    """

    pixels_hu: npt.NDArray[np.float32]
    pixel_spacing_mm: tuple[float, float]
    position_mm: float | None
    patient: str | None = None
    study: str | None = None
    name: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceSkip:
    """A slice or file that the source itself left out, and why."""

    name: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaseSource:
    """A case and how to read it.

    Attributes
    ----------
    read : callable
        Without arguments, yields :class:`SourceSlice` and :class:`SourceSkip`; must be picklable
        (a module-level function, or a ``functools.partial`` of one).
    origin : str
        What decides the slices (paths, sampling, seed); a case prepared from another origin is
        prepared again. Kept as a keyed hash only.
    """

    case_id: str
    label: str
    read: Callable[[], Iterable[SourceSlice | SourceSkip]]
    origin: str = ""


def archive_sources(cases_csv: Path, every_mm: float = 10.0) -> list[CaseSource]:
    """Cases of a ``cases.csv`` (path, case_id, label[, site, verification]) of DICOM studies.

    Rows of one case (several studies of a patient) are joined.
    """
    from ildsdk.ingest import read_cases_csv

    paths: dict[str, list[Path]] = {}
    labels: dict[str, str] = {}
    for row in read_cases_csv(cases_csv):
        paths.setdefault(row.case_id, []).append(row.path)
        labels[row.case_id] = row.label
    return [
        CaseSource(
            case_id=case_id,
            label=labels[case_id],
            read=partial(read_dicom_case, tuple(paths[case_id]), every_mm),
            # As the table writes them, so that an archive may move together with its table.
            origin=json.dumps([[_written(path, cases_csv) for path in paths[case_id]], every_mm]),
        )
        for case_id in paths
    ]


def _written(path: Path, cases_csv: Path) -> str:
    return (
        path.relative_to(cases_csv.parent) if path.is_relative_to(cases_csv.parent) else path
    ).as_posix()


def read_dicom_case(paths: Sequence[Path], every_mm: float) -> Iterator[SourceSlice | SourceSkip]:
    """Slices of a case's studies, by the same discovery and reading as a query."""
    from ildsdk.dicom import discover, read_slice

    for number, path in enumerate(paths, start=1):
        try:
            discovery = discover(path, every_mm=every_mm)
        except InputError as error:
            # A damaged zip among a thousand cases is listed like a damaged file in it.
            yield SourceSkip(name=f"path {number}", reason=error.code, detail=str(error))
            continue
        for skipped in discovery.skipped:
            yield SourceSkip(name=skipped.source, reason=skipped.reason, detail=skipped.detail)
        for study in discovery.studies:
            for skipped in study.skipped:
                yield SourceSkip(name=skipped.source, reason=skipped.reason, detail=skipped.detail)
            for header in study.slices:
                try:
                    ct_slice = read_slice(header)
                except InputError as error:
                    reason = getattr(error, "reason", error.code)
                    yield SourceSkip(name=header.source, reason=reason, detail=str(error))
                    continue
                yield SourceSlice(
                    pixels_hu=ct_slice.pixels_hu,
                    pixel_spacing_mm=ct_slice.pixel_spacing_mm,
                    position_mm=ct_slice.position_mm,
                    patient=study.patient_hash,
                    study=study.study_instance_uid,
                    name=ct_slice.source,
                )


def phantom_sources(
    n_cases_per_label: int, seed: int = 0, size: int = 512, difficulty: float = 0.5
) -> list[CaseSource]:
    """Phantom cases made in memory as they are prepared, without a DICOM archive between."""
    from export.phantom import LABELS, case_id_of

    return [
        CaseSource(
            case_id=case_id_of(label, seed + number),
            label=label,
            read=partial(read_phantom_case, label, seed + number, size, difficulty),
            origin=json.dumps(["phantom", label, seed + number, size, difficulty]),
        )
        for label in LABELS
        for number in range(n_cases_per_label)
    ]


def read_phantom_case(label: str, seed: int, size: int, difficulty: float) -> Iterator[SourceSlice]:
    """Slices of one phantom case."""
    from export.phantom import PhantomSettings, generate_case

    case = generate_case(label, seed, PhantomSettings(size=size, difficulty=difficulty))
    for pixels_hu, position_mm in zip(case.pixels_hu, case.position_mm, strict=True):
        yield SourceSlice(
            # As ildsdk.dicom does with what lies outside the reconstruction circle.
            pixels_hu=np.maximum(pixels_hu, -1024).astype(np.float32),
            pixel_spacing_mm=case.pixel_spacing_mm,
            position_mm=float(position_mm),
        )
