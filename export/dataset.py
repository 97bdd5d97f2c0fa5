"""The training set on disk: arrays of model inputs and radiomics with their table.

A folder with ``images.npy`` (float16 ``(n, 1, S, S)``, opened as a memory map), ``radiomics.npy``
(float64 ``(n, n_features)``) and ``table.json`` (settings, what was skipped, one entry per case
and per slice). Patients and studies are known by keys that only the folder's own salt can make.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ConfigError, InputError
from ildsdk.settings import MethodSettings, settings_from_mapping

SCHEMA = "export.dataset/2"
IMAGES_NAME, RADIOMICS_NAME, TABLE_NAME = "images.npy", "radiomics.npy", "table.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SliceSet:
    """Slices ready for training; row i of each field belongs to slice i.

    Attributes
    ----------
    images : ndarray
        ``(n, 1, S, S)`` model inputs in [0, 1]; float16 (and a read-only memory map) when loaded.
    radiomics : ndarray
        float64 ``(n, n_features)``, not standardised.
    labels, case_ids : tuple of str
        Diagnosis and case of each slice.
    position_mm : tuple of float or None
        Position along the slice normal.
    method : MethodSettings
        What the images were made with.
    perceptual_hashes : ndarray or None
        uint64 ``(n,)``, see :mod:`export.perceptual_hash`; None where they were not stored.
    patient_keys, study_keys : mapping or None
        Case id -> keys of its patient and of its studies (hex, equal within one prepared folder
        only). Empty or None where unknown, as for phantoms made in memory, whose patient is the
        case.
    """

    images: npt.NDArray[np.floating[Any]]
    radiomics: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    case_ids: tuple[str, ...]
    position_mm: tuple[float | None, ...]
    method: MethodSettings
    perceptual_hashes: npt.NDArray[np.uint64] | None = None
    patient_keys: Mapping[str, tuple[str, ...]] | None = None
    study_keys: Mapping[str, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        size = self.method.input_size
        n = len(self.labels)
        if self.images.shape != (n, 1, size, size):
            raise InputError(
                f"images have shape {self.images.shape}, expected ({n}, 1, {size}, {size})"
            )
        if self.radiomics.ndim != 2 or self.radiomics.shape[0] != n:
            raise InputError(f"radiomics have shape {self.radiomics.shape}, expected ({n}, p)")
        if not (len(self.case_ids) == len(self.position_mm) == n):
            raise InputError("labels, case ids and positions differ in length")
        hashes = self.perceptual_hashes
        if hashes is not None and (hashes.shape != (n,) or hashes.dtype != np.uint64):
            raise InputError(
                f"perceptual hashes are {hashes.dtype} {hashes.shape}, expected uint64 ({n},)"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The diagnoses present, sorted; the class index is the place in this tuple."""
        return tuple(sorted(set(self.labels)))

    def class_indices(self) -> npt.NDArray[np.int64]:
        """Class of each slice, int64 ``(n,)``."""
        number = {label: i for i, label in enumerate(self.label_names)}
        return np.array([number[label] for label in self.labels], dtype=np.int64)

    def rows_of(self, cases: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows of these cases, ascending, int64."""
        wanted = set(cases)
        return np.array([i for i, c in enumerate(self.case_ids) if c in wanted], dtype=np.int64)


def load_slice_set(folder: Path) -> SliceSet:
    """Open a prepared folder; the images stay on disk.

    Raises
    ------
    ConfigError
        Not a prepared folder, or one of another schema.
    """
    path = folder / TABLE_NAME
    if not path.is_file():
        raise ConfigError(
            f"{folder.name!r} has no {TABLE_NAME}: run `python -m export prepare` to the end first"
        )
    table = json.loads(path.read_text(encoding="utf-8"))
    if table.get("schema") != SCHEMA:
        raise ConfigError(
            f"{folder.name!r} has schema {table.get('schema')!r}, expected {SCHEMA!r}; run "
            "`python -m export prepare` again into a new folder"
        )
    entries, cases = table["slices"], table["cases"]
    return SliceSet(
        images=np.load(folder / IMAGES_NAME, mmap_mode="r", allow_pickle=False),
        radiomics=np.load(folder / RADIOMICS_NAME, allow_pickle=False),
        labels=tuple(cases[entry["case_id"]]["label"] for entry in entries),
        case_ids=tuple(entry["case_id"] for entry in entries),
        position_mm=tuple(entry["position_mm"] for entry in entries),
        method=settings_from_mapping(MethodSettings, table["method"]),
        perceptual_hashes=np.array(
            [int(entry["perceptual_hash"], 16) for entry in entries], dtype=np.uint64
        ),
        patient_keys={case_id: tuple(case["patient_keys"]) for case_id, case in cases.items()},
        study_keys={case_id: tuple(case["study_keys"]) for case_id, case in cases.items()},
    )
