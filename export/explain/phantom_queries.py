"""Held-out phantom slices, made again with the truth about their lesions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from export.dataset import SliceSet
from export.phantom import PhantomSettings, generate_case
from export.phantom.settings import CASE_ID_WORDS, case_id_of
from ildsdk.errors import ConfigError, SliceUnusableError
from ildsdk.lung import segment_lung
from ildsdk.model_input import input_box, model_input
from ildsdk.radiomics import RadiomicsExtractor
from ildsdk.settings import MethodSettings

# Mean difference of two model inputs in [0, 1]: prepared ones are float16, which is 2e-4 at most.
_SAME_PICTURE = 0.002


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhantomQuery:
    """One usable slice of a held-out phantom.

    Attributes
    ----------
    image : ndarray
        float32 ``(1, S, S)`` model input.
    features : ndarray
        float64 ``(p,)``, not standardised.
    box : ildsdk.explain.SliceBox
        Where the model input lies on the slice.
    lung_mask : ndarray
        bool ``(n_rows, n_columns)``, as the SDK finds it.
    lesion_mask : ndarray
        bool, same shape: true lesion inside that lung mask.
    has_lesion : bool
        There is lesion on the slice, be it outside the lung mask.
    """

    case_id: str
    label: str
    position_mm: float
    pixel_spacing_mm: tuple[float, float]
    image: npt.NDArray[np.float32]
    features: npt.NDArray[np.float64]
    box: Any
    lung_mask: npt.NDArray[np.bool_]
    lesion_mask: npt.NDArray[np.bool_]
    has_lesion: bool

    @property
    def lesion_mm2(self) -> float:
        """Area of lesion inside the lung mask."""
        row_mm, column_mm = self.pixel_spacing_mm
        return float(np.count_nonzero(self.lesion_mask)) * row_mm * column_mm


def phantom_queries(
    case_ids: Sequence[str],
    phantom: PhantomSettings,
    method: MethodSettings,
    n_per_label: int | None,
    show_progress: bool,
) -> Iterator[PhantomQuery]:
    """Usable slices of these cases, prepared as training and queries prepare them.

    Parameters
    ----------
    n_per_label : int or None
        This many cases of each class, the first ones; None takes all.

    Raises
    ------
    ConfigError
        A case is no phantom.
    """
    by_label: dict[str, list[str]] = {}
    for case_id in sorted(case_ids):
        by_label.setdefault(label_and_seed(case_id)[0], []).append(case_id)
    chosen = [case_id for cases in by_label.values() for case_id in cases[:n_per_label]]
    extractor = RadiomicsExtractor()
    for case_id in tqdm(chosen, desc="pointing", unit="case", disable=not show_progress):
        label, seed = label_and_seed(case_id)
        case = generate_case(label, seed, phantom)
        for number, position_mm in enumerate(case.position_mm):
            # As ildsdk.dicom does with what lies outside the reconstruction circle.
            pixels_hu = np.maximum(case.pixels_hu[number], -1024).astype(np.float32)
            spacing = case.pixel_spacing_mm
            try:
                lung_mask = segment_lung(
                    pixels_hu, spacing, min_area_mm2=method.min_lung_area_mm2
                ).lung_mask
                features = extractor.extract(pixels_hu, lung_mask, spacing).values
                image = model_input(pixels_hu, spacing, lung_mask, method)
            except SliceUnusableError:
                continue
            yield PhantomQuery(
                case_id=case_id,
                label=label,
                position_mm=float(position_mm),
                pixel_spacing_mm=spacing,
                image=image,
                features=features,
                box=input_box(lung_mask, spacing, method),
                lung_mask=lung_mask,
                lesion_mask=case.lesion_mask[number] & lung_mask,
                has_lesion=bool(case.lesion_mask[number].any()),
            )


def label_and_seed(case_id: str) -> tuple[str, int]:
    """Inverse of :func:`export.phantom.settings.case_id_of`.

    Raises
    ------
    ConfigError
        Not the case id of a phantom.
    """
    for label, word in CASE_ID_WORDS.items():
        number = case_id.removeprefix(f"PHANTOM-{word}-")
        if number.isdigit() and case_id_of(label, int(number)) == case_id:
            return label, int(number)
    raise ConfigError(
        f"case {case_id!r} is no phantom: only of phantoms are the lesions known, which maps are "
        "scored by"
    )


def check_same(slices: SliceSet, query: PhantomQuery) -> None:
    """Compare a slice made again with the prepared ones of its case.

    Raises
    ------
    ConfigError
        None of them shows the same.
    """
    for row in slices.rows_of([query.case_id]):
        difference = np.abs(slices.images[row].astype(np.float32) - query.image).mean()
        if difference <= _SAME_PICTURE:
            return
    raise ConfigError(
        f"case {query.case_id!r} made again differs from the prepared one; give the size, slice "
        "interval and difficulty that the phantoms were made with"
    )
