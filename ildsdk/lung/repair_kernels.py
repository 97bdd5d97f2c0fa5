"""Kernel that gives diseased lung back to the mask: ground glass, consolidation, vessels, walls.

A threshold keeps air. What disease fills is recovered by rules that need evidence in the slice:
partly aerated cells beside lung, pockets of air inside consolidation, the ribs behind it.
The rules in plain numpy are in ``reference/repair.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.lung.bitmap_kernels import (
    Canvas,
    Words,
    bounding_box,
    has_cells,
    mark_rectangle,
)
from ildsdk.lung.cage_kernels import Cage
from ildsdk.lung.component_kernels import (
    Int32,
    Runs,
    cells_of,
    find_components,
    pieces_with,
    touch_border,
)
from ildsdk.lung.morphology_kernels import close, dilate, open_
from native_hash.jit import ORDERED, kernel

_GROUND_GLASS_HU = (-200.0, -180.0)
_GROUND_GLASS_MM = 2.1
_FAT_HU = (-150.0, -35.0)
_FAT_SPREAD_HU = 50.0
_FAT_MM = 3.0
_BONE_MARGIN_MM = 2.0
_POCKET_HU = (-180.0, -160.0)
_POCKET_LINK_MM = 6.0
_VESSEL_MM = 5.0
CONSOLIDATION_MM = 15.0
_FILL_MM = 5.0
_SMOOTH_MM = 4.0
_HOLE_MM2 = 1200.0
_NOISE_MM = 2.1
_PIECE_MM2 = 150.0


@kernel(ORDERED)
def weigh_neighbors(
    canvas: Canvas,
    grid_hu: npt.NDArray[np.float32],
    sums: npt.NDArray[np.float32],
    light: Words,
    fat: Words,
    pockets: Words,
) -> None:
    """Bitmaps of what a cell and the mean and variance of its 3 x 3 neighbors tell.

    Parameters
    ----------
    canvas, grid_hu : Canvas, ndarray
        The grid, and float32 ``(n_rows, n_columns)``; beyond the border its cells go on.
    sums : ndarray
        float32 ``(2, n_columns + 2)`` scratch.
    light, fat, pockets : ndarray
        Overwritten. Lighter than fat; even and as light as fat; lighter than soft tissue.
    """
    ninth = np.float32(1 / 9)
    n_columns = canvas.n_columns
    for bitmap in (light, fat, pockets):
        bitmap[:] = np.uint64(0)
    for i in range(canvas.n_rows):
        up, here = grid_hu[max(i - 1, 0)], grid_hu[i]
        down = grid_hu[min(i + 1, canvas.n_rows - 1)]
        sum_1, sum_2 = sums[0], sums[1]
        inner_1, inner_2 = sum_1[1 : n_columns + 1], sum_2[1 : n_columns + 1]
        for j in range(n_columns):
            inner_1[j] = (up[j] + here[j]) + down[j]
            inner_2[j] = (up[j] * up[j] + here[j] * here[j]) + down[j] * down[j]
        for row in (sum_1, sum_2):
            row[0] = row[1]
            row[n_columns + 1] = row[n_columns]
        for k in range((n_columns + 63) // 64):
            first, stop = 64 * k, min(64 * k + 64, n_columns)
            cells = here[first:stop]
            left_1, middle_1, right_1 = (
                sum_1[first:stop],
                sum_1[first + 1 : stop + 1],
                sum_1[first + 2 : stop + 2],
            )
            left_2, middle_2, right_2 = (
                sum_2[first:stop],
                sum_2[first + 1 : stop + 1],
                sum_2[first + 2 : stop + 2],
            )
            light_word, fat_word, pocket_word = np.uint64(0), np.uint64(0), np.uint64(0)
            for bit in range(cells.size):
                mean = ((left_1[bit] + middle_1[bit]) + right_1[bit]) * ninth
                variance = ((left_2[bit] + middle_2[bit]) + right_2[bit]) * ninth - mean * mean
                hu = cells[bit]
                place = np.uint64(bit)
                is_light = (mean < np.float32(_GROUND_GLASS_HU[0])) & (
                    hu < np.float32(_GROUND_GLASS_HU[1])
                )
                is_fat = (
                    (mean > np.float32(_FAT_HU[0]))
                    & (mean < np.float32(_FAT_HU[1]))
                    & (variance < np.float32(_FAT_SPREAD_HU**2))
                )
                is_pocket = (hu < np.float32(_POCKET_HU[0])) | (mean < np.float32(_POCKET_HU[1]))
                light_word |= np.uint64(is_light) << place
                fat_word |= np.uint64(is_fat) << place
                pocket_word |= np.uint64(is_pocket) << place
            at = i * canvas.row_words + k
            light[at] = light_word
            fat[at] = fat_word
            pockets[at] = pocket_word


@kernel(ORDERED)
def repair_lung(
    canvas: Canvas,
    grid_hu: npt.NDArray[np.float32],
    cage: Cage,
    aerated: Words,
    airway: Words,
    maps: npt.NDArray[np.uint64],
    sums: npt.NDArray[np.float32],
    runs: Runs,
    counts: Int32,
    flags: npt.NDArray[np.bool_],
    out: Words,
) -> None:
    """Extend aerated lung over the disease that a threshold loses.

    Parameters
    ----------
    canvas, grid_hu, cage
        The slice and its rib cage.
    aerated, airway : ndarray
        Bitmaps of :func:`air_kernels.choose_lung`.
    maps, sums, runs, counts, flags
        Scratch: uint64 ``(8, n_words)``; float32 ``(2, n_columns + 2)``; of components.
    out : ndarray
        Bitmap of the lung with its outline repaired, overwritten.

    Notes
    -----
    The written rules are in ``docs/lung-mask.md``, numbered as here.
    """
    n = aerated.size
    fat, pockets, lung, barred = maps[0][:n], maps[1][:n], maps[2][:n], maps[3][:n]
    filled, known = maps[4][:n], maps[5][:n]
    cavity, inside = cage.cavity, canvas.inside
    weigh_neighbors(canvas, grid_hu, sums, lung, fat, pockets)
    # Rule 5: ground glass. Denser than the cut, still lighter than fat, two cells thick or more
    # (a partial-volume rim is thinner), connected to lung.
    for k in range(n):
        lung[k] = (lung[k] & cavity[k] & ~airway[k]) | aerated[k]
    open_(canvas, lung, _GROUND_GLASS_MM, lung)
    for k in range(n):
        lung[k] |= aerated[k]
    pieces_with(canvas, lung, aerated, 1.0, runs, counts, flags, lung)

    # Fat is even; consolidation with air in it has the same mean here and there, never evenly.
    open_(canvas, fat, _FAT_MM, fat)
    # Rule 6: pockets of air in consolidation, chained to lung by gaps of at most 12 mm and within
    # 30 mm of the ribs (food in the stomach looks the same, but lies deeper).
    for k in range(n):
        pockets[k] &= cavity[k] & ~(airway[k] | fat[k] | cage.core[k])
        known[k] = pockets[k] | lung[k]
    dilate(canvas, known, _POCKET_LINK_MM, known)
    pieces_with(canvas, known, lung, 1.0, runs, counts, flags, known)
    for k in range(n):
        pockets[k] &= known[k]
        filled[k] = cage.bone[k] & cage.rim[k]
    dilate(canvas, filled, _BONE_MARGIN_MM, barred)
    for k in range(n):
        barred[k] |= airway[k] | fat[k] | (inside[k] & ~cavity[k])
    out[:] = lung
    # Rules 7 and 8, each lung for itself: what lies between the lungs belongs to neither.
    for is_first in (True, False):
        _fill_half(canvas, cage, is_first, lung, pockets, barred, maps[4:8], out)
    # Rule 9: smooth the outline, close holes, drop noise.
    close(canvas, out, _SMOOTH_MM, out)
    for k in range(n):
        out[k] &= cavity[k] | lung[k]
    _fill_holes(canvas, out, runs, flags, known)
    for k in range(n):
        out[k] &= ~airway[k]
    open_(canvas, out, _NOISE_MM, out)
    least_cells = _PIECE_MM2 / (canvas.row_mm * canvas.column_mm)
    pieces_with(canvas, out, lung, least_cells, runs, counts, flags, out)


@kernel(ORDERED)
def _fill_half(
    canvas: Any,
    cage: Any,
    is_first: Any,
    lung: Any,
    pockets: Any,
    barred: Any,
    maps: Any,
    out: Any,
) -> None:
    """Vessels, honeycomb walls and consolidation of one lung, added to ``out``."""
    n = lung.size
    half, filled, known, behind = maps[0][:n], maps[1][:n], maps[2][:n], maps[3][:n]
    for k in range(n):
        half[k] = cage.first_half[k] if is_first else canvas.inside[k] & ~cage.first_half[k]
        filled[k] = lung[k] & half[k]
        known[k] = half[k] & (cage.cavity[k] | lung[k])
    if not has_cells(filled):
        return
    close(canvas, filled, _VESSEL_MM, filled)
    # The wall counts near this lung only.
    top, bottom, left, right = bounding_box(canvas, known)
    down = int(CONSOLIDATION_MM / canvas.row_mm) + 1
    aside = int(CONSOLIDATION_MM / canvas.column_mm) + 1
    mark_rectangle(canvas, (top - down, bottom + down), (left - aside, right + aside), known)
    for k in range(n):
        wall = canvas.inside[k] & ~cage.cavity[k] & cage.apart[k]
        known[k] = filled[k] | ((wall | pockets[k]) & half[k] & known[k])
    close(canvas, known, CONSOLIDATION_MM, behind)
    for k in range(n):
        behind[k] = (behind[k] & ~barred[k]) | filled[k]
    open_(canvas, behind, _FILL_MM, behind)
    for k in range(n):
        out[k] |= filled[k] | behind[k]


@kernel(ORDERED)
def _fill_holes(canvas: Any, words: Any, runs: Any, flags: Any, scratch: Any) -> None:
    """Fill background components that do not touch the border and are not too large."""
    for k in range(words.size):
        scratch[k] = canvas.inside[k] & ~words[k]
    n = find_components(canvas, scratch, runs)
    touch_border(canvas, runs, n, flags)
    most_cells = _HOLE_MM2 / (canvas.row_mm * canvas.column_mm)
    for k in range(n + 1):
        flags[k] = not flags[k] and runs.n_cells[k] <= most_cells
    cells_of(canvas, runs, flags, scratch)
    for k in range(words.size):
        words[k] |= scratch[k]
