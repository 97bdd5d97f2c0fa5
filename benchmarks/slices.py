"""Slices that are queried, from DICOM files, with both sides' masks compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ildsdk.dicom import discover, read_slice
from ildsdk.errors import SliceUnusableError
from ildsdk.lung import segment_lung

LEAST_DICE = 0.95
_VARIED_PIXELS = 400

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
MaskOf = Callable[[Float32, tuple[float, float]], Mask]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchSlice:
    """One slice in memory.

    Attributes
    ----------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)``.
    lung_mask : ndarray
        Ours, bool.
    dice : float
        Overlap of the reference stack's own mask with ours, 1 where they are equal.
    """

    pixels_hu: Float32
    pixel_spacing_mm: tuple[float, float]
    lung_mask: Mask
    dice: float

    def varied(self, number: int) -> Float32:
        """Pixels with some hundred of them changed by 1 HU, other ones for each number.

        Nobody can answer a round from memory, and the answer stays the same within rounding.
        """
        generator = np.random.default_rng(abs(number) * 2 + (number < 0))
        changed = self.pixels_hu.copy()
        places = generator.integers(0, changed.size, _VARIED_PIXELS)
        changed.ravel()[places] += np.float32(1)
        return changed


def read_slices(path: Path, mask_of: MaskOf) -> list[BenchSlice]:
    """All slices under a path that show lung to both sides.

    Parameters
    ----------
    mask_of : callable
        The other side's mask of a slice.
    """
    found = []
    for study in discover(path, every_mm=0).studies:
        for header in study.slices:
            try:
                ct_slice = read_slice(header)
                ours = segment_lung(ct_slice.pixels_hu, ct_slice.pixel_spacing_mm).lung_mask
            except SliceUnusableError:
                continue
            theirs = mask_of(ct_slice.pixels_hu, ct_slice.pixel_spacing_mm)
            found.append(
                BenchSlice(
                    pixels_hu=ct_slice.pixels_hu,
                    pixel_spacing_mm=ct_slice.pixel_spacing_mm,
                    lung_mask=ours,
                    dice=dice(ours, theirs),
                )
            )
    return found


def alike(slices: Sequence[BenchSlice], n: int) -> list[BenchSlice]:
    """Up to ``n`` slices, spread over the study, on which both masks are nearly the same.

    On disease ours keeps what a threshold loses; there the two sides would do different work.
    """
    chosen = [one for one in slices if one.dice >= LEAST_DICE]
    places = np.linspace(0, len(chosen) - 1, min(n, len(chosen))).round().astype(int)
    return [chosen[place] for place in places]


def dice(first: Mask, second: Mask) -> float:
    """Overlap of two masks, 1 if equal."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else 1.0
