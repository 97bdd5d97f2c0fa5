"""What a phantom archive is made of: settings, labels and the record of one case."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

LABELS = ("ASS-ILD", "IPF-ILD", "DM/RP-ILD", "Normal")
"""The four classes of the method, in its order (Chen et al. 2025, Table 1)."""

CASE_ID_WORDS = {"ASS-ILD": "ASS", "IPF-ILD": "IPF", "DM/RP-ILD": "DMRP", "Normal": "NORMAL"}
"""Label -> the word that stands for it in a case id (no slash, safe in file names)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSettings:
    """How phantom cases are made; the same settings and seed give the same pixels.

    Attributes
    ----------
    size : int
        Rows and columns of a slice. The field of view in mm does not depend on it, so a small
        size is the same patient at coarser pixels.
    slice_interval_mm : float
        Distance between slices (the paper's protocol: 10 mm).
    difficulty : float
        0 to 1. Larger means milder disease, more patterns borrowed from the other
        diseases and more distractors, so that classes overlap more.
    n_slices : int or None
        This many slices spread evenly over the lungs; None takes ``slice_interval_mm``.
    """

    size: int = 512
    slice_interval_mm: float = 10.0
    difficulty: float = 0.5
    n_slices: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.size, int) and 64 <= self.size <= 1024):
            raise ValueError(f"size is {self.size!r}, expected a whole number from 64 to 1024")
        if not (math.isfinite(self.slice_interval_mm) and 0.5 <= self.slice_interval_mm <= 50):
            raise ValueError(
                f"slice_interval_mm is {self.slice_interval_mm!r}, expected 0.5 to 50 mm"
            )
        if not 0 <= self.difficulty <= 1:
            raise ValueError(f"difficulty is {self.difficulty!r}, expected 0 to 1")
        if self.n_slices is not None and not 1 <= self.n_slices <= 1000:
            raise ValueError(f"n_slices is {self.n_slices!r}, expected 1 to 1000 or None")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhantomCase:
    """One synthetic patient with the truth about it.

    Attributes
    ----------
    pixels_hu : ndarray
        int16 ``(n_slices, size, size)``, Hounsfield units. Outside the reconstruction
        circle it holds ``padding_hu``.
    position_mm : ndarray
        float64 ``(n_slices,)``, position along the slice normal (towards the head), ascending.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    slice_thickness_mm : float
        Nominal slice thickness.
    kernel : str
        Name of the reconstruction kernel, for example ``"PHANTOM-SHARP"``.
    lung_mask, lesion_mask : ndarray
        bool ``(n_slices, size, size)``: inside the lungs (vessels and lesions
        included); where disease changed the parenchyma (subset of the lungs).
    severity : float
        0 (none) to 1 (extreme) as drawn; normal cases hold 0.
    prone : bool
        Image rows and columns run the other way round (ImageOrientationPatient -1 0 0 0 -1 0).
    padding_hu : int or None
        HU value outside the reconstruction circle, None where the whole square is filled.
    """

    case_id: str
    label: str
    seed: int
    severity: float
    pixels_hu: npt.NDArray[np.int16]
    position_mm: npt.NDArray[np.float64]
    pixel_spacing_mm: tuple[float, float]
    slice_thickness_mm: float
    kernel: str
    lung_mask: npt.NDArray[np.bool_]
    lesion_mask: npt.NDArray[np.bool_]
    prone: bool
    padding_hu: int | None
    sex: str
    kvp: int
    tube_current_ma: int


def case_id_of(label: str, seed: int) -> str:
    """Case id of a label and a seed, for example ``PHANTOM-IPF-0007``."""
    if label not in CASE_ID_WORDS:
        raise ValueError(f"label is {label!r}, expected one of {', '.join(LABELS)}")
    return f"PHANTOM-{CASE_ID_WORDS[label]}-{seed:04d}"
