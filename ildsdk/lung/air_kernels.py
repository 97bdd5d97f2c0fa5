"""Kernels of the air in the body: threshold, then bowel gas, airways and pockets told apart.

The rules in plain numpy are in ``reference/air.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.lung.bitmap_kernels import Canvas, Words, pack_below
from ildsdk.lung.component_kernels import Int32, Runs, cells_of, count_in, find_components
from ildsdk.lung.morphology_kernels import dilate, erode
from native_hash.jit import ORDERED, kernel

_LOW_HU, _HIGH_HU = -1250.0, 250.0
N_GRAYS = int(_HIGH_HU - _LOW_HU) + 1
_AIR_HU = -400.0
_CUT_RANGE_HU = (-450.0, -250.0)
_GAS_HU = -930.0
_GAS_CORE_MM = 3.0
_GAS_WALL_MM = 3.0
_SKIN_MM = 10.0
_POCKET_MM2 = 25.0
_POCKET_REACH_MM = 20.0
_SEED_MM2 = 100.0
CAGE_MM2 = 200.0
_LARGE_MM2 = 1000.0
_AIRWAY_MM2 = 700.0
_NEAR_MM = 15.0
NO_LUNG_MM2 = 1000.0


class Spaces(NamedTuple):
    """Air spaces of the body below the cut, gas left out.

    Attributes
    ----------
    runs : Runs
        The components.
    area_mm2 : ndarray
        float64 ``(most + 1,)``: area of each, 0 for the background.
    is_deep : ndarray
        bool ``(most + 1,)``: lies at least 10 mm under the skin.
    """

    runs: Runs
    area_mm2: npt.NDArray[np.float64]
    is_deep: npt.NDArray[np.bool_]


@kernel(ORDERED)
def find_gas(
    canvas: Canvas,
    grid_hu: npt.NDArray[np.float32],
    body: Words,
    maps: npt.NDArray[np.uint64],
    runs: Runs,
    counts: tuple[Int32, Int32],
    flags: npt.NDArray[np.bool_],
    gas: Words,
) -> None:
    """Air as empty as room air: trachea, stomach, pneumothorax, folds.

    Components below -400 HU of which most of the core (3 mm inside) is below -930 HU. Lung
    always holds vessels and septa, so even emphysema stays above.
    """
    air, core = maps[0][: body.size], maps[1][: body.size]
    in_core, in_dark = counts
    pack_below(canvas, grid_hu, _AIR_HU, False, air)
    for k in range(body.size):
        air[k] &= body[k]
    erode(canvas, air, _GAS_CORE_MM, core)
    n = find_components(canvas, air, runs)
    count_in(canvas, runs, n, core, in_core)
    pack_below(canvas, grid_hu, _GAS_HU, False, air)
    for k in range(body.size):
        core[k] &= air[k]
    count_in(canvas, runs, n, core, in_dark)
    for k in range(n + 1):
        flags[k] = in_core[k] > 0 and in_dark[k] > 0.5 * in_core[k]
    cells_of(canvas, runs, flags, gas)
    dilate(canvas, gas, _GAS_WALL_MM, gas)


@kernel(ORDERED)
def split_in_two(
    canvas: Canvas,
    grid_hu: npt.NDArray[np.float32],
    region: Words,
    tally: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
) -> tuple[bool, float]:
    """Two-means threshold of a region, from its histogram of whole HU.

    Parameters
    ----------
    canvas, grid_hu, region
        As above; the region is a bitmap.
    tally : ndarray
        int64 ``(N_GRAYS,)`` scratch.
    sums : ndarray
        float64 ``(2, N_GRAYS)`` scratch.

    Returns
    -------
    is_found, threshold : bool, float
        False where the region holds fewer than two grey values.

    Notes
    -----
    Equal to the last bit to :func:`ildsdk.lung.threshold.split_histogram`.
    """
    tally[:] = 0
    low, high = np.float32(_LOW_HU), np.float32(_HIGH_HU)
    one = np.uint64(1)
    for i in range(canvas.n_rows):
        row = grid_hu[i]
        own = region[i * canvas.row_words : (i + 1) * canvas.row_words]
        for k in range((canvas.n_columns + 63) // 64):
            word = own[k]
            part = row[64 * k : min(64 * k + 64, canvas.n_columns)]
            for bit in range(part.size):
                # whole HU keep the histogram exact for integer input and short for any
                place = np.int64(np.rint(min(max(part[bit], low), high) - low))
                tally[place] += np.int64((word >> np.uint64(bit)) & one)
    n_grays = 0
    total = 0.0
    weighted = 0.0
    for gray in range(tally.size):
        if tally[gray] > 0:
            n_grays += 1
            total += tally[gray]
            weighted += (gray + _LOW_HU) * tally[gray]
    if n_grays < 2:
        return False, 0.0
    mean = weighted / total
    low_weight, low_sum = sums
    weight_here = 0.0
    sum_here = 0.0
    for gray in range(tally.size):
        if tally[gray] > 0:
            weight_here += tally[gray]
            sum_here += tally[gray] * ((gray + _LOW_HU) - mean)
        low_weight[gray] = weight_here
        low_sum[gray] = sum_here
    # Of equally good splits the lowest; after the last gray there is none.
    best = -1
    best_between = 0.0
    for gray in range(tally.size):
        if tally[gray] > 0 and low_weight[gray] < total:
            shares = 1.0 / low_weight[gray] + 1.0 / (total - low_weight[gray])
            between = low_sum[gray] * low_sum[gray] * shares
            if best < 0 or between > best_between:
                best, best_between = gray, between
    low_center = mean + low_sum[best] / low_weight[best]
    high_center = mean - low_sum[best] / (total - low_weight[best])
    return True, (low_center + high_center) / 2


@kernel(ORDERED)
def held_cut(threshold_hu: float) -> float:
    """The threshold held to the range in which lung and soft tissue meet.

    With little lung in the slice the best split parts fat from muscle.
    """
    return min(max(threshold_hu, _CUT_RANGE_HU[0]), _CUT_RANGE_HU[1])


@kernel(ORDERED)
def find_spaces(
    canvas: Canvas,
    grid_hu: npt.NDArray[np.float32],
    cut_hu: float,
    body: Words,
    region: Words,
    maps: npt.NDArray[np.uint64],
    counts: Int32,
    spaces: Spaces,
) -> Any:
    """Air spaces of a region of the body; returns how many."""
    air = maps[0][: body.size]
    pack_below(canvas, grid_hu, cut_hu, False, air)
    for k in range(body.size):
        air[k] &= region[k]
    n = find_components(canvas, air, spaces.runs)
    erode(canvas, body, _SKIN_MM, air)
    count_in(canvas, spaces.runs, n, air, counts)
    cell_mm2 = canvas.row_mm * canvas.column_mm
    for k in range(n + 1):
        n_cells = spaces.runs.n_cells[k]
        spaces.area_mm2[k] = n_cells * cell_mm2
        spaces.is_deep[k] = counts[k] > 0.8 * n_cells
    return n


@kernel(ORDERED)
def candidate_lung(
    canvas: Canvas,
    spaces: Spaces,
    n: int,
    maps: npt.NDArray[np.uint64],
    counts: Int32,
    flags: npt.NDArray[np.bool_],
    lung: Words,
) -> bool:
    """Air cells that may be lung, for finding the rib cage around them.

    Returns
    -------
    bool
        False, and nothing written, where no space of 200 mm2 lies deep in the body.
    """
    near = maps[0][: lung.size]
    is_any = False
    for k in range(n + 1):
        flags[k] = spaces.is_deep[k] and spaces.area_mm2[k] >= CAGE_MM2
        is_any |= flags[k]
    if not is_any:
        return False
    # Pockets of air in consolidation show how far the lung reaches, if lung is not far.
    cells_of(canvas, spaces.runs, flags, near)
    dilate(canvas, near, _POCKET_REACH_MM, near)
    count_in(canvas, spaces.runs, n, near, counts)
    for k in range(n + 1):
        flags[k] |= spaces.is_deep[k] and spaces.area_mm2[k] >= _POCKET_MM2 and counts[k] > 0
    cells_of(canvas, spaces.runs, flags, lung)
    return True


@kernel(ORDERED)
def choose_lung(
    canvas: Canvas,
    spaces: Spaces,
    n: int,
    cage: tuple[Words, Words, Words, Words],
    maps: npt.NDArray[np.uint64],
    counts: tuple[Int32, Int32],
    flags: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    lung: Words,
    airway: Words,
) -> float:
    """Split the air of the cage into lung and airway.

    Parameters
    ----------
    canvas, spaces, n
        The air and how many spaces it has.
    cage : tuple of ndarray
        Bitmaps of cavity, rim, core and of the middle (within 30 mm of the midline).
    maps, counts, flags
        Scratch.
    lung, airway : ndarray
        Bitmaps; ``lung`` is overwritten, to ``airway``, which holds gas, airways are added.

    Returns
    -------
    float
        mm2 of aerated lung.

    Notes
    -----
    Airway (or esophagus): under 700 mm2 and mostly in the mediastinum, that is 30 mm inside the
    cage and within 30 mm of the midline. Lung: at least 100 mm2, mostly inside the cage, and
    either large (1000 mm2), or near a large one (15 mm), or near the ribs (15 mm).
    """
    cavity, rim, core, middle = cage
    scratch = maps[0][: lung.size]
    in_middle, in_cavity = counts
    is_lung, is_marked = flags
    for k in range(lung.size):
        scratch[k] = core[k] & middle[k]
    count_in(canvas, spaces.runs, n, scratch, in_middle)
    count_in(canvas, spaces.runs, n, cavity, in_cavity)
    cell_mm2 = canvas.row_mm * canvas.column_mm
    for k in range(n + 1):
        area_mm2 = spaces.area_mm2[k]
        most = 0.6 * max(area_mm2 / cell_mm2, 1.0)
        is_central = in_middle[k] > most and area_mm2 < _AIRWAY_MM2
        is_lung[k] = (
            spaces.is_deep[k] and area_mm2 >= _SEED_MM2 and not is_central and in_cavity[k] > most
        )
        is_marked[k] = is_central
    cells_of(canvas, spaces.runs, is_marked, scratch)
    for k in range(lung.size):
        airway[k] |= scratch[k]
    for k in range(n + 1):
        is_marked[k] = is_lung[k] and spaces.area_mm2[k] >= _LARGE_MM2
    cells_of(canvas, spaces.runs, is_marked, scratch)
    dilate(canvas, scratch, _NEAR_MM, scratch)
    for k in range(lung.size):
        scratch[k] |= rim[k]
    count_in(canvas, spaces.runs, n, scratch, in_cavity)
    total_mm2 = 0.0
    for k in range(n + 1):
        is_lung[k] &= in_cavity[k] > 0
        total_mm2 += spaces.area_mm2[k] if is_lung[k] else 0.0
    cells_of(canvas, spaces.runs, is_lung, lung)
    return total_mm2


@kernel(ORDERED)
def largest_space(spaces: Spaces, n: int) -> Any:
    """Area of the largest space in mm2."""
    largest_mm2 = 0.0
    for k in range(n + 1):
        largest_mm2 = max(largest_mm2, spaces.area_mm2[k])
    return largest_mm2
