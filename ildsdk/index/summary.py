"""What an index holds, in numbers."""

from __future__ import annotations

import dataclasses
from collections import Counter

from ildsdk.index.snapshot import Snapshot


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """Description of an index for people and programs; serializes with ``dataclasses.asdict``.

    Attributes
    ----------
    revision : int
        Counts the changes made to the index.
    n_patients : int
        Distinct patient keys; items added without a patient hash are not counted.
    n_bytes : int
        Size of all files the manifest names.
    items_by_label, cases_by_label, items_by_site : dict of str to int
        Sorted by name; items without a site are not in ``items_by_site``.
    no_match_threshold : float or None
        Best score below which nothing in the index counts as similar.
    threshold_how : str
        How the threshold was found.
    """

    name: str
    index_hash: str
    bundle_hash: str
    created_with: str
    is_synthetic: bool
    revision: int
    embedding_size: int
    n_items: int
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


def summarize(snapshot: Snapshot) -> IndexInfo:
    """Count what a snapshot holds."""
    manifest = snapshot.manifest
    items_by_label: Counter[str] = Counter()
    items_by_site: Counter[str] = Counter()
    label_of_case: dict[str, str] = {}
    patients: set[str] = set()
    for segment in snapshot.segments:
        names, codes = segment.coded("label")
        for i, name in enumerate(names):
            items_by_label[name] += int((codes == i).sum())
        items_by_site.update(segment.store.sites())
        label_of_case.update(segment.store.labels_of_cases())
        patients.update(key for key in segment.store.column("patient_key") if key is not None)
    return IndexInfo(
        name=manifest.name,
        index_hash=manifest.content_hash(),
        bundle_hash=manifest.bundle_hash,
        created_with=manifest.created_with,
        is_synthetic=manifest.is_synthetic,
        revision=manifest.revision,
        embedding_size=manifest.embedding_size,
        n_items=snapshot.n_items,
        n_cases=len(label_of_case),
        n_patients=len(patients),
        n_segments=len(snapshot.segments),
        n_bytes=sum(entry.n_bytes for entry in manifest.files()),
        items_by_label=dict(sorted(items_by_label.items())),
        cases_by_label=dict(sorted(Counter(label_of_case.values()).items())),
        items_by_site=dict(sorted(items_by_site.items())),
        n_tables=manifest.hashing.n_tables,
        n_bits=manifest.hashing.n_bits,
        n_probes=manifest.hashing.n_probes,
        hyperplane_seed=manifest.hashing.seed,
        no_match_threshold=manifest.calibration.no_match_threshold,
        threshold_how=manifest.calibration.how,
    )
