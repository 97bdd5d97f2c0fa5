"""From a table of diagnosed cases to an index."""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ildsdk.bundle import Bundle
from ildsdk.dicom import discover
from ildsdk.encoder import EncodedSlice, Encoder
from ildsdk.errors import ConfigError, IndexFileError, InputError
from ildsdk.explain import LocationCodes, quantized
from ildsdk.index import Index, ItemRecord, make_item_id
from ildsdk.index.threshold import calibrate
from ildsdk.lung import apply_lung_window
from ildsdk.records import SkippedItem
from ildsdk.reports.thumbnail import encode_thumbnail
from ildsdk.settings import RuntimeSettings
from ildsdk.study_encoding import iter_study

REQUIRED_COLUMNS = ("path", "case_id", "label")
OPTIONAL_COLUMNS = ("site", "verification")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow:
    """One diagnosed case: where its images lie and what it is.

    Attributes
    ----------
    path : Path
        Folder, file or zip with the case's study.
    case_id : str
        Key of the patient in the index; choose a pseudonym, it is shown in answers.
    label : str
        Proven diagnosis.
    site, verification : str or None
        Where the case comes from; how the diagnosis was proven.
    """

    path: Path
    case_id: str
    label: str
    site: str | None = None
    verification: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What an index build did: counts and everything left out, by case id.

    Attributes
    ----------
    n_maps : int
        Slices whose activation map is kept.
    threshold_caution : str or None
        Why the threshold is not to be relied on, as in ``IndexInfo``.
    """

    n_cases: int
    n_items: int
    n_maps: int
    skipped: dict[str, tuple[SkippedItem, ...]]
    cases_without_items: tuple[str, ...]
    no_match_threshold: float | None
    threshold_caution: str | None


def read_cases_csv(path: str | Path) -> list[CaseRow]:
    """Read ``cases.csv``: columns path, case_id, label, and optionally site, verification.

    Relative paths start at the folder of the table.

    Raises
    ------
    ConfigError
        A column is missing or unknown, a cell is empty, a path does not exist, or one
        case id carries two labels. Nothing is read before the whole table is right.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"cases table {path.name!r} cannot be read ({type(error).__name__}); expected a "
            "comma-separated UTF-8 file"
        ) from error
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    unknown = [name for name in columns if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    if missing or unknown:
        raise ConfigError(
            f"cases table {path.name!r} has columns {', '.join(columns) or '(none)'}; expected "
            f"{', '.join(REQUIRED_COLUMNS)} and optionally {', '.join(OPTIONAL_COLUMNS)}, "
            "separated by commas"
        )
    cases = [_case_row(path, line, row) for line, row in enumerate(rows, start=2)]
    if not cases:
        raise ConfigError(f"cases table {path.name!r} has no rows")
    labels: dict[str, str] = {}
    for case in cases:
        if labels.setdefault(case.case_id, case.label) != case.label:
            raise ConfigError(
                f"case {case.case_id!r} has two labels, {labels[case.case_id]!r} and "
                f"{case.label!r}; one case is one patient with one proven diagnosis"
            )
    return cases


def _case_row(table: Path, line: int, row: dict[str, str | None]) -> CaseRow:
    cells = {name: (row.get(name) or "").strip() for name in REQUIRED_COLUMNS + OPTIONAL_COLUMNS}
    empty = [name for name in REQUIRED_COLUMNS if not cells[name]]
    if empty:
        raise ConfigError(f"{table.name} line {line}: {', '.join(empty)} is empty")
    case_path = Path(cells["path"])
    if not case_path.is_absolute():
        case_path = table.parent / case_path
    if not case_path.exists():
        raise ConfigError(
            f"{table.name} line {line}: path of case {cells['case_id']!r} does not exist"
        )
    return CaseRow(
        path=case_path,
        case_id=cells["case_id"],
        label=cells["label"],
        site=cells["site"] or None,
        verification=cells["verification"] or None,
    )


def build_index(
    out: str | Path,
    cases: Sequence[CaseRow],
    bundle: Bundle,
    *,
    name: str | None = None,
    settings: RuntimeSettings | None = None,
    every_mm: float = 10.0,
    allow_empty_cases: bool = False,
    calibration: tuple[float, str] | None = None,
    with_maps: bool | None = None,
    is_synthetic: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Build an index from diagnosed cases.

    The index is put together beside its final place and renamed at the end: a failure or a
    kill leaves no index rather than half of one.

    Parameters
    ----------
    out : path
        Folder of the new index; must not exist.
    cases : sequence of CaseRow
    bundle : Bundle
        The model; the index answers only together with it.
    name : str or None
        Name of the index in answers; the folder's name by default.
    settings : RuntimeSettings or None
        Provider and threads.
    every_mm : float
        Slice sampling along the normal, mm; 0 takes all.
    allow_empty_cases : bool
        Go on when a case gives no usable slice (it is reported either way).
    calibration : (float, str) or None
        Threshold of "no similar case" and how it was found, for example on held-out
        cases; None measures it on the index itself (``ildsdk.index.threshold.calibrate``).
    with_maps : bool or None
        Keep what draws the activation map of each slice (3 to 6 KB a slice, and about the time of
        the network once more); None: where the bundle has maps.
    is_synthetic : bool
        The cases are phantoms, not patients; every answer will say so.
    progress : callable or None
        Called with (cases done, cases in all).

    Raises
    ------
    ConfigError, InputError, ModelError, IndexFileError
        Nothing is left on disk.
    """
    out = Path(out)
    if out.exists():
        raise ConfigError(f"{out.name!r} exists already; choose a new folder, or use index add")
    _make_parent(out)
    # Renamed out of a temporary folder that goes away whatever happens.
    with tempfile.TemporaryDirectory(prefix=".index-", dir=out.parent) as parent:
        draft = Path(parent) / "index"
        with Index.create(
            draft,
            name=name or out.name,
            bundle_hash=bundle.bundle_hash,
            embedding_size=bundle.embedding_size,
            is_synthetic=is_synthetic,
        ) as index:
            report = add_cases(
                index,
                cases,
                bundle,
                settings=settings,
                every_mm=every_mm,
                allow_empty_cases=allow_empty_cases,
                calibration=calibration,
                with_maps=with_maps,
                progress=progress,
            )
        draft.rename(out)
    return report


def _make_parent(out: Path) -> None:
    """Make the folder an index goes into; a ConfigError now where it cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(prefix=".index-", dir=out.parent).cleanup()
    except OSError as error:
        raise ConfigError(
            f"the folder of {out.name!r} cannot be written ({error.strerror}); choose another"
        ) from error


def add_cases(
    index: Index,
    cases: Sequence[CaseRow],
    bundle: Bundle,
    *,
    settings: RuntimeSettings | None = None,
    every_mm: float = 10.0,
    allow_empty_cases: bool = False,
    calibration: tuple[float, str] | None = None,
    with_maps: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Add cases to an open index; all are encoded before the first one is written.

    Parameters
    ----------
    with_maps : bool or None
        As for :func:`build_index`; None: where the index has maps of the bundle's graph, or is
        empty and the bundle has maps.

    Raises
    ------
    ConfigError
        Maps are asked for and the bundle has none.
    InputError
        A case gives no usable slice (unless allowed), a row holds two patients, two case ids
        hold one patient, or a slice is in the index already.
    IndexFileError
        The index is damaged or was built with another bundle, has maps made with another graph
        when maps are asked for, or another process is writing.
    """
    if index.bundle_hash != bundle.bundle_hash:
        raise IndexFileError(
            f"index was built with bundle {index.bundle_hash[:12]}, not with {bundle.name!r} "
            f"({bundle.bundle_hash[:12]}): their embeddings do not compare"
        )
    encoder = Encoder(bundle, settings or RuntimeSettings())
    keeps_maps = _keeps_maps(index, bundle, with_maps)
    if keeps_maps:
        encoder.check_explain()
    maps: list[LocationCodes | None] = []
    items: list[ItemRecord] = []
    embeddings: list[npt.NDArray[np.float32]] = []
    thumbnails: list[bytes] = []
    patient_hashes: list[str | None] = []
    skipped: dict[str, tuple[SkippedItem, ...]] = {}
    empty_cases = []
    for n_done, case in enumerate(cases, start=1):
        n_before = len(items)
        left_out: list[SkippedItem] = []
        for found in _iter_case(case, encoder, every_mm, with_locations=keeps_maps):
            if isinstance(found, SkippedItem):
                left_out.append(found)
                continue
            encoded, patient_hash = found
            items.append(_item_record(case, encoded))
            embeddings.append(encoded.embedding)
            thumbnails.append(_thumbnail(encoded, bundle))
            maps.append(_location_codes(encoded))
            patient_hashes.append(patient_hash)
        if left_out:
            skipped[case.case_id] = skipped.get(case.case_id, ()) + tuple(left_out)
        if len(items) == n_before:
            empty_cases.append(case.case_id)
        if progress is not None:
            progress(n_done, len(cases))
    if empty_cases and (len(empty_cases) == len(cases) or not allow_empty_cases):
        shown = ", ".join(repr(case_id) for case_id in empty_cases[:5])
        first = skipped.get(empty_cases[0], ())
        why = f" ({first[0].reason}: {first[0].detail})" if first else ""
        raise InputError(
            f"{len(empty_cases)} of {len(cases)} cases gave no usable slice: {shown}{why}; "
            "nothing was written. Remove them from the table, or allow empty cases "
            "(--allow-empty-cases)"
        )
    _refuse_shared_patients(items, patient_hashes)
    # One step on disk: new slices never stand under an old threshold.
    index.add(
        np.stack(embeddings),
        items,
        thumbnails,
        patient_hashes=patient_hashes,
        maps=maps if keeps_maps else None,
        explain_sha256=bundle.explain_sha256 if keeps_maps else None,
        calibration=calibration or calibrate,
        n_threads=encoder.n_threads,
    )
    return IngestReport(
        n_cases=len({item.case_id for item in items}),
        n_items=len(items),
        n_maps=sum(codes is not None for codes in maps),
        skipped=skipped,
        cases_without_items=tuple(empty_cases),
        no_match_threshold=index.no_match_threshold,
        threshold_caution=index.info().threshold_caution,
    )


def _keeps_maps(index: Index, bundle: Bundle, with_maps: bool | None) -> bool:
    kept = index.maps_format
    is_same = kept is not None and kept.explain_sha256 == bundle.explain_sha256
    if with_maps is None:
        return is_same or (index.n_rows == 0 and bundle.explain is not None)
    if with_maps and kept is not None and bundle.explain is not None and not is_same:
        # The index would refuse them too, but only after hours of encoding.
        raise IndexFileError(
            f"the index has activation maps made with explain.onnx {kept.explain_sha256[:12]}, "
            f"this bundle has {str(bundle.explain_sha256)[:12]}: they do not compare. Add without "
            "maps (--no-maps), or build the index anew"
        )
    return with_maps


def _location_codes(encoded: EncodedSlice) -> LocationCodes | None:
    if encoded.locations is None or encoded.input_box is None:
        return None
    return quantized(encoded.locations, encoded.input_box)


def _iter_case(
    case: CaseRow, encoder: Encoder, every_mm: float, *, with_locations: bool
) -> Iterator[tuple[EncodedSlice, str | None] | SkippedItem]:
    discovery = discover(case.path, every_mm=every_mm)
    yield from discovery.skipped
    patients = {study.patient_hash for study in discovery.studies} - {None}
    if len(patients) > 1:
        raise InputError(
            f"path of case {case.case_id!r} holds studies of {len(patients)} patients, expected "
            "one; give each patient a row of its own"
        )
    for study in discovery.studies:
        yield from study.skipped
        for outcome in iter_study(encoder, study, with_locations=with_locations):
            yield outcome if isinstance(outcome, SkippedItem) else (outcome, study.patient_hash)


def _refuse_shared_patients(items: list[ItemRecord], patient_hashes: list[str | None]) -> None:
    """One patient under two case ids would answer for himself and be counted twice."""
    case_of: dict[str, str] = {}
    for item, patient in zip(items, patient_hashes, strict=True):
        if patient is not None and case_of.setdefault(patient, item.case_id) != item.case_id:
            raise InputError(
                f"cases {case_of[patient]!r} and {item.case_id!r} carry the same PatientID; a case "
                "is one patient: give all studies of a patient the same case id (or, where an "
                "anonymizer wrote one id for everybody, write distinct ids)"
            )


def _item_record(case: CaseRow, encoded: EncodedSlice) -> ItemRecord:
    ct_slice = encoded.ct_slice
    return ItemRecord(
        item_id=make_item_id(ct_slice.sop_instance_uid, ct_slice.frame),
        case_id=case.case_id,
        label=case.label,
        study_instance_uid=ct_slice.study_instance_uid,
        series_instance_uid=ct_slice.series_instance_uid,
        sop_instance_uid=ct_slice.sop_instance_uid,
        frame=ct_slice.frame,
        position_mm=ct_slice.position_mm,
        site=case.site,
        verification=case.verification,
    )


def _thumbnail(encoded: EncodedSlice, bundle: Bundle) -> bytes:
    windowed = apply_lung_window(
        encoded.ct_slice.pixels_hu, bundle.method.window_center_hu, bundle.method.window_width_hu
    )
    return encode_thumbnail(windowed, encoded.ct_slice.pixel_spacing_mm)
