"""From an archive to a training set on disk, with ildsdk's own mask, radiomics and model input.

Each case becomes one file in ``cases/`` as soon as it is done, so a killed run goes on where it
stopped; at the end the files are joined (:mod:`export.dataset`) and what was left out is
written to ``skipped.csv``.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from export.dataset import IMAGES_NAME, RADIOMICS_NAME, SCHEMA, TABLE_NAME, SliceSet, load_slice_set
from ildsdk.errors import ConfigError, InputError, SliceUnusableError
from ildsdk.lung import segment_lung
from ildsdk.model_input import model_input
from ildsdk.radiomics import FEATURE_SET_VERSION, RadiomicsExtractor
from ildsdk.settings import MethodSettings, RadiomicsEngine


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceSlice:
    """One slice as it comes from its source.

    Attributes
    ----------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, HU.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    """

    pixels_hu: npt.NDArray[np.float32]
    pixel_spacing_mm: tuple[float, float]
    position_mm: float | None


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
    """

    case_id: str
    label: str
    read: Callable[[], Iterable[SourceSlice | SourceSkip]]


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
        )
        for case_id in paths
    ]


def read_dicom_case(paths: Sequence[Path], every_mm: float) -> Iterator[SourceSlice | SourceSkip]:
    """Slices of a case's studies, by the same discovery and reading as a query."""
    from ildsdk.dicom import discover, read_slice

    for path in paths:
        discovery = discover(path, every_mm=every_mm)
        for skipped in discovery.skipped:
            yield SourceSkip(name=skipped.source, reason=skipped.reason, detail=skipped.detail)
        for study in discovery.studies:
            for skipped in study.skipped:
                yield SourceSkip(name=skipped.source, reason=skipped.reason, detail=skipped.detail)
            for header in study.slices:
                try:
                    ct_slice = read_slice(header)
                except InputError as error:
                    yield SourceSkip(name=header.source, reason=error.code, detail=str(error))
                    continue
                yield SourceSlice(
                    pixels_hu=ct_slice.pixels_hu,
                    pixel_spacing_mm=ct_slice.pixel_spacing_mm,
                    position_mm=ct_slice.position_mm,
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


def prepare(
    sources: Sequence[CaseSource],
    out: Path,
    method: MethodSettings,
    *,
    engine: RadiomicsEngine = "fast",
    n_processes: int = 2,
    show_progress: bool = True,
) -> SliceSet:
    """Prepare every case of the sources into a folder and open it.

    Parameters
    ----------
    sources : sequence of CaseSource
        Each case id once.
    out : Path
        Made if missing. Cases already in it are not read again; delete the folder when the files
        behind a case id have changed.
    method : MethodSettings
        Window, crop and input size; must match what the folder was begun with.
    engine : {"fast", "pyradiomics"}
        Same values either way.
    n_processes : int
        Worker processes; 1 works in this one.

    Raises
    ------
    ConfigError
        A case id stands twice, or the folder was begun with other settings.
    InputError
        No slice at all is usable.
    """
    if len({source.case_id for source in sources}) != len(sources):
        raise ConfigError("a case id stands twice among the sources; join its studies first")
    (out / "cases").mkdir(parents=True, exist_ok=True)
    _check_settings(out, method)
    todo = [source for source in sources if not _case_file(out, source.case_id).exists()]
    work = partial(_prepare_case, out=out, method=method, engine=engine)
    bar = tqdm(
        total=len(sources), initial=len(sources) - len(todo), desc="prepare", unit="case",
        disable=not show_progress,
    )  # fmt: skip
    with bar:
        if n_processes == 1:
            for source in todo:
                work(source)
                bar.update()
        else:
            # spawn: a forked child of a process that has run numba or torch threads can hang.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(n_processes, mp_context=context) as pool:
                futures = [pool.submit(work, source) for source in todo]
                try:
                    for future in as_completed(futures):
                        future.result()
                        bar.update()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    _join(sources, out, method)
    return load_slice_set(out)


def _case_file(out: Path, case_id: str) -> Path:
    # A hash, because a case id may hold characters a file name must not.
    return out / "cases" / f"{hashlib.sha256(case_id.encode()).hexdigest()[:20]}.npz"


def _check_settings(out: Path, method: MethodSettings) -> None:
    path = out / "settings.json"
    ours = {"method": dataclasses.asdict(method), "feature_set_version": FEATURE_SET_VERSION}
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if theirs != ours:
            raise ConfigError(
                f"{out.name!r} was begun with {theirs}, now asked for {ours}; use another folder "
                "or delete it"
            )
    else:
        path.write_text(json.dumps(ours, indent=1) + "\n", encoding="utf-8")


def _prepare_case(
    source: CaseSource, *, out: Path, method: MethodSettings, engine: RadiomicsEngine
) -> None:
    extractor = RadiomicsExtractor(engine=engine)
    images: list[npt.NDArray[np.float16]] = []
    features: list[npt.NDArray[np.float64]] = []
    positions: list[float] = []
    skipped: list[tuple[str, str, str]] = []
    for number, found in enumerate(source.read(), start=1):
        if isinstance(found, SourceSkip):
            skipped.append((found.name, found.reason, found.detail))
            continue
        try:
            lung = segment_lung(
                found.pixels_hu, found.pixel_spacing_mm, min_area_mm2=method.min_lung_area_mm2
            )
            values = extractor.extract(
                found.pixels_hu, lung.lung_mask, found.pixel_spacing_mm
            ).values
            image = model_input(found.pixels_hu, found.pixel_spacing_mm, lung.lung_mask, method)
        except SliceUnusableError as error:
            skipped.append((f"slice {number}", error.reason, error.detail))
            continue
        images.append(image.astype(np.float16))
        features.append(values)
        positions.append(np.nan if found.position_mm is None else found.position_mm)
    size = method.input_size
    path = _case_file(out, source.case_id)
    draft = path.with_suffix(".partial")
    with draft.open("wb") as stream:
        np.savez(
            stream,
            images=np.stack(images) if images else np.zeros((0, 1, size, size), np.float16),
            radiomics=np.stack(features) if features else np.zeros((0, 0)),
            position_mm=np.array(positions, dtype=np.float64),
            skipped=np.array(skipped, dtype=str).reshape(-1, 3),
        )
    os.replace(draft, path)


def _join(sources: Sequence[CaseSource], out: Path, method: MethodSettings) -> None:
    ordered = sorted(sources, key=lambda source: source.case_id)
    entries: list[dict[str, Any]] = []
    radiomics: list[npt.NDArray[np.float64]] = []
    skipped_rows: list[tuple[str, str, str, str]] = []
    for source in ordered:
        with np.load(_case_file(out, source.case_id), allow_pickle=False) as case:
            skipped_rows += [(source.case_id, *row) for row in case["skipped"].tolist()]
            positions = case["position_mm"]
            if positions.size:
                radiomics.append(case["radiomics"])
            entries += [
                {
                    "case_id": source.case_id,
                    "label": source.label,
                    "position_mm": None if np.isnan(position) else float(position),
                }
                for position in positions
            ]
    with (out / "skipped.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case_id", "name", "reason", "detail"])
        writer.writerows(skipped_rows)
    if not entries:
        raise InputError(
            f"none of the {len(ordered)} cases gave a usable slice; the reasons are in skipped.csv"
        )
    size = method.input_size
    draft = out / "images.partial"
    images = np.lib.format.open_memmap(
        draft, mode="w+", dtype=np.float16, shape=(len(entries), 1, size, size)
    )
    start = 0
    for source in ordered:
        with np.load(_case_file(out, source.case_id), allow_pickle=False) as case:
            part = case["images"]
        images[start : start + len(part)] = part
        start += len(part)
    images.flush()
    del images
    os.replace(draft, out / IMAGES_NAME)
    np.save(out / RADIOMICS_NAME, np.concatenate(radiomics))
    table = {
        "schema": SCHEMA,
        "method": dataclasses.asdict(method),
        "feature_set_version": FEATURE_SET_VERSION,
        "n_skipped": len(skipped_rows),
        "slices": entries,
    }
    draft = out / "table.partial"
    draft.write_text(json.dumps(table, indent=0) + "\n", encoding="utf-8")
    os.replace(draft, out / TABLE_NAME)  # last: its presence says the folder is complete
