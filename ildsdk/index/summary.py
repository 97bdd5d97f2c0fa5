"""What an index holds, in numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ildsdk.index.kept_aside import kept_aside
from ildsdk.index.snapshot import Snapshot
from ildsdk.index.threshold import threshold_caution


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """Description of an index for people and programs; serializes with ``dataclasses.asdict``.

    Attributes
    ----------
    revision : int
        Grows with every change made to the index.
    n_removed : int
        Rows removed that ``compact`` has not dropped yet; they are in no other count.
    n_patients : int
        Distinct patient keys; items added without a patient hash are not counted.
    n_bytes : int
        Size of all files the manifest names: itself and its copy not counted.
    items_by_label, cases_by_label, items_by_site : dict of str to int
        Sorted by name; items without a site are not in ``items_by_site``.
    no_match_threshold : float or None
        Best score below which nothing in the index counts as similar.
    threshold_how : str
        How the threshold was found.
    threshold_caution : str or None
        Why it is not to be relied on: it was measured on too few cases (``index/threshold.py``).
    n_maps : int
        Items with an activation map.
    explain_sha256 : str or None
        SHA-256 (hex) of the ``explain.onnx`` that made the maps; None without any.
    kept_aside : dict of str to int
        Folders in the index with damaged files of what a repair dropped, and their bytes. They are
        no part of the index and in no other count; delete them once nobody wants them.
    """

    name: str
    index_hash: str
    bundle_hash: str
    created_with: str
    is_synthetic: bool
    revision: int
    embedding_size: int
    n_items: int
    n_removed: int
    n_cases: int
    n_patients: int
    n_segments: int
    n_bytes: int
    items_by_label: dict[str, int]
    cases_by_label: dict[str, int]
    items_by_site: dict[str, int]
    n_tables: int
    n_bits: int
    n_probes: int
    hyperplane_seed: int
    no_match_threshold: float | None
    threshold_how: str
    threshold_caution: str | None
    n_maps: int
    explain_sha256: str | None
    kept_aside: dict[str, int]


def summarize(snapshot: Snapshot) -> IndexInfo:
    """Count what a snapshot holds."""
    manifest = snapshot.manifest
    live = snapshot.live
    labels, label_of_row = snapshot.column("label")
    sites, site_of_row = snapshot.column("site")
    patients, patient_of_row = snapshot.column("patient_key")
    cases, case_of_row = snapshot.column("case_id")
    label_of_case = np.full(len(cases), -1, np.int32)
    label_of_case[case_of_row[live]] = label_of_row[live]
    cases_by_label = _counts(labels, label_of_case)
    is_live_patient = counted(patient_of_row[live], len(patients)) > 0
    return IndexInfo(
        name=manifest.name,
        index_hash=manifest.content_hash(),
        bundle_hash=manifest.bundle_hash,
        created_with=manifest.created_with,
        is_synthetic=manifest.is_synthetic,
        revision=manifest.revision,
        embedding_size=manifest.embedding_size,
        n_items=manifest.n_live,
        n_removed=snapshot.n_items - manifest.n_live,
        n_cases=int((label_of_case >= 0).sum()),
        n_patients=int(is_live_patient.sum()),
        n_segments=len(snapshot.segments),
        n_bytes=sum(entry.n_bytes for entry in manifest.files()),
        items_by_label=_counts(labels, label_of_row[live]),
        cases_by_label=cases_by_label,
        items_by_site=_counts(sites, site_of_row[live]),
        n_tables=manifest.hashing.n_tables,
        n_bits=manifest.hashing.n_bits,
        n_probes=manifest.hashing.n_probes,
        hyperplane_seed=manifest.hashing.seed,
        no_match_threshold=manifest.calibration.no_match_threshold,
        threshold_how=manifest.calibration.how,
        threshold_caution=threshold_caution(
            manifest.calibration.no_match_threshold,
            manifest.calibration.how,
            n_items=manifest.n_live,
            cases_by_label=cases_by_label,
        ),
        n_maps=sum(
            int((segment.maps.has_map & live[first_row : first_row + segment.n_items]).sum())
            for first_row, segment in snapshot.placed()
            if segment.maps is not None
        ),
        explain_sha256=manifest.maps.explain_sha256 if manifest.maps else None,
        kept_aside=kept_aside(snapshot.folder),
    )


def counted(numbers: npt.NDArray[np.int32], n: int) -> npt.NDArray[np.int64]:
    """How often each of the numbers 0 to n - 1 is there; -1 is not counted."""
    return np.bincount(numbers + 1, minlength=n + 1)[1:]


def _counts(names: list[str], numbers: npt.NDArray[np.int32]) -> dict[str, int]:
    found = counted(numbers, len(names)).tolist()
    return {name: n for name, n in zip(names, found, strict=True) if n}
