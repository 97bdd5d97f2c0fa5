"""Several indexes into one, without splitting a patient or joining two."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ConfigError, IndexFileError, InputError
from ildsdk.index.building import add_batches
from ildsdk.index.database import Index
from ildsdk.index.drafting import draft_beside
from ildsdk.index.items import ItemRecord
from ildsdk.index.iterating import CHUNK_ROWS, ItemBatch, iter_batches, kept_rows

OnDuplicate = Literal["refuse", "skip"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MergeReport:
    """What a merge did.

    Attributes
    ----------
    n_sources, n_items, n_cases : int
        Indexes merged; items and cases of the new one.
    n_skipped_items : int
        Items that stood in an earlier source already.
    n_joined_cases : int
        Cases of which several sources had items, of the same patient by key or study.
    has_patient_keys : bool
        Whether the new index recognizes a patient by PatientID; else by study and case only.
    n_rehashed_sources : int
        Sources that had other hyperplanes than the first, which the new index took.
    n_maps, n_maps_dropped : int
        Activation maps taken over, and left out because the sources' were made with different
        graphs.
    """

    n_sources: int
    n_items: int
    n_cases: int
    n_skipped_items: int
    n_joined_cases: int
    has_patient_keys: bool
    n_rehashed_sources: int = 0
    n_maps: int = 0
    n_maps_dropped: int = 0


def merge_indexes(
    path: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]],
    *,
    name: str | None = None,
    on_duplicate: OnDuplicate = "refuse",
    case_prefixes: Sequence[str] | None = None,
    drop_patient_keys: bool = False,
) -> MergeReport:
    """Make a new index of all items of several; the sources are left as they are.

    Everything is checked before the first item is written. The new index is not calibrated
    (what counts as "no similar case" depends on all items). It has the hyperplanes of the first
    source, and every item's signature is computed anew from them: ``mode="paper"`` may answer
    otherwise than a source with other hyperplanes did. Activation maps are taken over where one
    graph made all of them, else left out: they do not compare. About 200 bytes of memory per item
    are needed beside a part of the embeddings.

    Parameters
    ----------
    path : path-like
        Folder of the new index; must not exist.
    sources : sequence of path-like
        Two indexes or more, made with one bundle.
    name : str, optional
        Name of the new index; the folder's name by default.
    on_duplicate : {"refuse", "skip"}
        What to do with an item that two sources have: stop, or keep that of the earlier source.
    case_prefixes : sequence of str, optional
        One text per source, put before its case ids, for hospitals that number cases alike.
    drop_patient_keys : bool
        Merge sources whose patient keys have different salts by leaving all keys out. Keys
        cannot be re-keyed: the hash of the PatientID they were made from is not stored. The new
        index then keeps a patient's own items out of an answer by study and case only: **a query
        with a new study of an indexed patient finds that patient's earlier ones**, and a patient
        whom two sources have under two case ids stays unnoticed.

    Raises
    ------
    ValueError
        Fewer than two sources, another count of prefixes, or an unknown ``on_duplicate``.
    ConfigError
        ``path`` exists; patients and phantoms would be mixed; or salts differ and
        ``drop_patient_keys`` is not set.
    IndexFileError
        A source is damaged, sources were made with different bundles, or the disk is full.
    InputError
        An item stands in two sources; one case id stands for what may be two patients, or one
        patient or study has two case ids; or a case has two labels.
    """
    if len(sources) < 2:
        raise ValueError(f"{len(sources)} sources to merge, expected at least 2")
    prefixes = [""] * len(sources) if case_prefixes is None else list(case_prefixes)
    if len(prefixes) != len(sources):
        raise ValueError(f"{len(prefixes)} case prefixes for {len(sources)} sources")
    if on_duplicate not in get_args(OnDuplicate):
        raise ValueError(f"on_duplicate is {on_duplicate!r}, expected 'refuse' or 'skip'")
    out = Path(path)
    with contextlib.ExitStack() as stack:
        indexes = [stack.enter_context(Index.open(source)) for source in sources]
        salt = _checked_salt(indexes, drop_patient_keys)
        plan = _Plan(on_duplicate, has_keys=salt is not None)
        skipped = [
            plan.take(index, number, prefix)
            for number, (index, prefix) in enumerate(zip(indexes, prefixes, strict=True), start=1)
        ]
        first = indexes[0].info()
        formats = {index.maps_format for index in indexes} - {None}
        maps = formats.pop() if len(formats) == 1 else None
        draft = stack.enter_context(draft_beside(out))
        merged = stack.enter_context(
            Index.create(
                draft,
                name=out.name if name is None else name,
                bundle_hash=first.bundle_hash,
                embedding_size=first.embedding_size,
                is_synthetic=first.is_synthetic,
                threshold_how=f"not calibrated: merged from {len(sources)} indexes",
                hyperplanes=indexes[0].hyperplanes,
                seed=first.hyperplane_seed,
                salt=salt,
            )
        )
        copied = (
            _copied(index, prefix, rows, with_maps=maps is not None)
            for index, prefix, rows in zip(indexes, prefixes, skipped, strict=True)
        )
        add_batches(
            merged,
            itertools.chain.from_iterable(copied),
            with_patient_keys=salt is not None,
            explain_sha256=None if maps is None else maps.explain_sha256,
        )
        return MergeReport(
            n_sources=len(indexes),
            n_items=len(merged),
            n_cases=len(plan.cases),
            n_skipped_items=sum(map(len, skipped)),
            n_joined_cases=sum(len(case.sources) > 1 for case in plan.cases.values()),
            has_patient_keys=salt is not None,
            n_rehashed_sources=sum(
                not np.array_equal(index.hyperplanes, indexes[0].hyperplanes) for index in indexes
            ),
            n_maps=merged.info().n_maps,
            n_maps_dropped=0 if maps else sum(index.info().n_maps for index in indexes),
        )


def _checked_salt(indexes: Sequence[Index], drop_patient_keys: bool) -> bytes | None:
    """Salt under which the new index can take over keys; None where it has none."""
    bundles = {(index.bundle_hash, index.embedding_size) for index in indexes}
    if len(bundles) > 1:
        told = ", ".join(sorted(f"{bundle[:12]} (d = {d})" for bundle, d in bundles))
        raise IndexFileError(
            f"the indexes were built with different bundles, {told}: their embeddings cannot be "
            "compared; build them anew with one bundle"
        )
    if len({index.is_synthetic for index in indexes}) > 1:
        raise ConfigError("some indexes hold patients, others phantoms: these are not mixed")
    keyed = [index for index in indexes if index.info().n_patients]
    if not keyed or drop_patient_keys:
        return None
    if len({index.salt for index in keyed}) > 1:
        raise ConfigError(
            "the indexes have patient keys of different salts, which cannot be joined: a merged "
            "index could not leave out a query's own patient. Build it from the images in one go, "
            "or drop the keys (--drop-patient-keys): then a patient is recognized by study and "
            "case only"
        )
    return keyed[0].salt


@dataclasses.dataclass(slots=True)
class _Case:
    """What is known of a case of the new index."""

    label: str
    sources: set[int]
    keys: set[str]
    studies: set[str]


class _Plan:
    """All items of the new index as far as checking needs them."""

    def __init__(self, on_duplicate: OnDuplicate, *, has_keys: bool) -> None:
        self.cases: dict[str, _Case] = {}
        self._on_duplicate = on_duplicate
        self._has_keys = has_keys
        self._case_of_item: dict[str, str] = {}
        self._case_of_study: dict[str, str] = {}
        self._case_of_key: dict[str, str] = {}

    def take(self, index: Index, number: int, prefix: str) -> npt.NDArray[np.int64]:
        """Check the items of a source (counted from 1) against the earlier ones.

        Returns
        -------
        ndarray
            int64, rows to skip.
        """
        own: dict[str, _Case] = {}
        duplicates: list[int] = []
        for rows in kept_rows(index, None, CHUNK_ROWS):
            for row, item in zip(rows.tolist(), index.items(rows), strict=True):
                case_id = prefix + item.case_id
                case = own.setdefault(case_id, _Case(item.label, {number}, set(), set()))
                case.studies.add(item.study_instance_uid)
                if self._has_keys and item.patient_key is not None:
                    case.keys.add(item.patient_key)
                if item.item_id in self._case_of_item:
                    duplicates.append(row)
                    if self._on_duplicate == "skip":
                        _check_one_case("slice", self._case_of_item, item.item_id, case_id, number)
                self._case_of_item.setdefault(item.item_id, case_id)
        if duplicates and self._on_duplicate == "refuse":
            raise InputError(
                f"{len(duplicates)} of {index.info().n_items} items of source {number} stand in an "
                "earlier one; merge with on_duplicate 'skip' (--on-duplicate skip) to keep the "
                "earlier ones"
            )
        for case_id, case in own.items():
            self._join(case_id, case, number)
        return np.array(duplicates, np.int64)

    def _join(self, case_id: str, case: _Case, number: int) -> None:
        known = self.cases.setdefault(case_id, case)
        if known is not case:
            _refuse_two_patients(case_id, known, case, number)
            known.sources |= case.sources
            known.keys |= case.keys
            known.studies |= case.studies
        for study in case.studies - {""}:
            _check_one_case("study", self._case_of_study, study, case_id, number)
        for key in case.keys:
            _check_one_case("patient", self._case_of_key, key, case_id, number)


def _check_one_case(
    what: str, case_of: dict[str, str], key: str, case_id: str, number: int
) -> None:
    other = case_of.setdefault(key, case_id)
    if other != case_id:
        raise InputError(
            f"one {what} stands under two case ids, {other!r} and {case_id!r} of source {number}: "
            "a case is one patient, and cases are what is left out and ranked; give it one case "
            "id in both, without prefixes that part it"
        )


def _refuse_two_patients(case_id: str, known: _Case, case: _Case, number: int) -> None:
    if not (known.keys & case.keys or (known.studies & case.studies) - {""}):
        raise InputError(
            f"case id {case_id!r} of source {number} stands in an earlier one too, and nothing "
            "shows that it is the same patient (no common study or patient key); give each source "
            "a prefix (--case-prefix)"
        )
    if known.label != case.label:
        raise InputError(
            f"case {case_id!r} is {case.label!r} in source {number} and {known.label!r} in an "
            "earlier one; a case has one proven diagnosis"
        )


def _copied(
    index: Index, prefix: str, skipped: npt.NDArray[np.int64], *, with_maps: bool
) -> Iterator[ItemBatch]:
    for batch in iter_batches(index, with_maps=with_maps):
        kept = np.flatnonzero(~np.isin(batch.rows, skipped)).tolist()
        if kept:
            yield ItemBatch(
                rows=batch.rows[kept],
                items=[_prefixed(batch.items[i], prefix) for i in kept],
                embeddings=batch.embeddings[kept],
                thumbnails=[batch.thumbnails[i] for i in kept],
                added_on=[batch.added_on[i] for i in kept],
                maps=None if batch.maps is None else [batch.maps[i] for i in kept],
            )


def _prefixed(item: ItemRecord, prefix: str) -> ItemRecord:
    return dataclasses.replace(item, case_id=prefix + item.case_id)
