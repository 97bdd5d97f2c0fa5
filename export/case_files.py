"""The file of one prepared case: written whole or not at all, known again by its origin."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import secrets
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.perceptual_hash import perceptual_hashes
from export.sources import CaseSource, SourceSkip
from export.whole_files import write_whole
from ildsdk.errors import InputError, SliceUnusableError
from ildsdk.lung import segment_lung
from ildsdk.model_input import model_input
from ildsdk.radiomics import RadiomicsExtractor
from ildsdk.settings import MethodSettings, RadiomicsEngine

SALT_NAME = "salt"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaseSummary:
    """All of a case file but its images; row i of each array belongs to slice i.

    Attributes
    ----------
    radiomics : ndarray
        float64 ``(n, n_features)``; ``(0, 0)`` where no slice is usable.
    position_mm : ndarray
        float64 ``(n,)``, NaN where unknown.
    perceptual_hashes : ndarray
        uint64 ``(n,)``.
    skipped : list of (name, reason, detail)
    patient_keys, study_keys : tuple of str
        Keyed hashes, sorted.
    """

    radiomics: npt.NDArray[np.float64]
    position_mm: npt.NDArray[np.float64]
    perceptual_hashes: npt.NDArray[np.uint64]
    skipped: list[tuple[str, str, str]]
    patient_keys: tuple[str, ...]
    study_keys: tuple[str, ...]
    origin_key: str


def folder_salt(out: Path) -> bytes:
    """The folder's own salt, drawn when it is begun.

    Its keys are pseudonyms: whoever holds the folder with its salt can test a guessed PatientID
    against them, and nobody else can.
    """
    path = out / SALT_NAME
    if not path.exists():
        write_whole(path, secrets.token_hex(32).encode())
    return bytes.fromhex(path.read_text())


def keyed(salt: bytes, purpose: str, text: str) -> str:
    """HMAC-SHA256 of a text for one purpose, hex."""
    return hmac.new(salt, f"{purpose}\n{text}".encode(), hashlib.sha256).hexdigest()


def case_file(out: Path, case_id: str) -> Path:
    """Where a case's file lies; a hash, as a case id may hold what a file name must not."""
    return out / "cases" / f"{hashlib.sha256(case_id.encode()).hexdigest()[:20]}.npz"


def is_prepared(out: Path, source: CaseSource, salt: bytes) -> bool:
    """Whether a case's file is there, whole, and made from the same origin."""
    try:
        # Opened here: numpy leaves a damaged archive open.
        with (
            case_file(out, source.case_id).open("rb") as stream,
            np.load(stream, allow_pickle=False) as case,
        ):
            return str(case["origin_key"]) == keyed(salt, "origin", source.origin)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return False


def read_summary(out: Path, case_id: str) -> CaseSummary:
    """Read a case file without its images."""
    with np.load(case_file(out, case_id), allow_pickle=False) as case:
        return CaseSummary(
            radiomics=case["radiomics"],
            position_mm=case["position_mm"],
            perceptual_hashes=case["perceptual_hashes"],
            skipped=[(name, reason, detail) for name, reason, detail in case["skipped"].tolist()],
            patient_keys=tuple(case["patient_keys"].tolist()),
            study_keys=tuple(case["study_keys"].tolist()),
            origin_key=str(case["origin_key"]),
        )


def read_images(out: Path, case_id: str) -> npt.NDArray[np.float16]:
    """Model inputs of a case, float16 ``(n, 1, S, S)``."""
    with np.load(case_file(out, case_id), allow_pickle=False) as case:
        return case["images"]


def prepare_case(
    source: CaseSource, *, out: Path, method: MethodSettings, engine: RadiomicsEngine, salt: bytes
) -> int:
    """Read a case, compute all that training needs, write its file; returns its slices.

    Raises
    ------
    InputError
        The case holds two patients.
    """
    extractor = RadiomicsExtractor(engine=engine)
    images: list[npt.NDArray[np.float16]] = []
    features: list[npt.NDArray[np.float64]] = []
    positions: list[float] = []
    skipped: list[tuple[str, str, str]] = []
    patients: set[str] = set()
    studies: set[str] = set()
    for number, found in enumerate(source.read(), start=1):
        if isinstance(found, SourceSkip):
            skipped.append((found.name, found.reason, found.detail))
            continue
        if found.patient is not None:
            patients.add(keyed(salt, "patient", found.patient))
        if found.study is not None:
            studies.add(keyed(salt, "study", found.study))
        if len(patients) > 1:
            raise InputError(
                f"case {source.case_id!r} holds studies of two patients, expected one; give each "
                "patient a case id of its own"
            )
        try:
            lung = segment_lung(
                found.pixels_hu, found.pixel_spacing_mm, min_area_mm2=method.min_lung_area_mm2
            )
            values = extractor.extract(
                found.pixels_hu, lung.lung_mask, found.pixel_spacing_mm
            ).values
            image = model_input(found.pixels_hu, found.pixel_spacing_mm, lung.lung_mask, method)
        except SliceUnusableError as error:
            skipped.append((found.name or f"slice {number}", error.reason, error.detail))
            continue
        images.append(image.astype(np.float16))
        features.append(values)
        positions.append(np.nan if found.position_mm is None else found.position_mm)
    size = method.input_size
    stacked = np.stack(images) if images else np.zeros((0, 1, size, size), np.float16)
    path = case_file(out, source.case_id)
    draft = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with draft.open("wb") as stream:
        np.savez(
            stream,
            images=stacked,
            radiomics=np.stack(features) if features else np.zeros((0, 0)),
            position_mm=np.array(positions, dtype=np.float64),
            perceptual_hashes=perceptual_hashes(stacked),
            skipped=np.array(skipped, dtype=str).reshape(-1, 3),
            patient_keys=np.array(sorted(patients), dtype=str),
            study_keys=np.array(sorted(studies), dtype=str),
            origin_key=np.array(keyed(salt, "origin", source.origin)),
        )
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, path)
    return len(images)
