"""The whole lung mask as one kernel: Python's lock is let go once a slice."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.lung.air_kernels import (
    NO_LUNG_MM2,
    Spaces,
    candidate_lung,
    choose_lung,
    find_gas,
    find_spaces,
    held_cut,
    largest_space,
    split_in_two,
)
from ildsdk.lung.bitmap_kernels import (
    Canvas,
    bounding_box,
    count_cells,
    crop_bitmap,
    mark_span,
    pack_below,
    row_words_of,
)
from ildsdk.lung.body_kernels import find_body
from ildsdk.lung.cage_kernels import Cage, RayScratch, find_cage, long_axis
from ildsdk.lung.component_kernels import Int32, Runs
from ildsdk.lung.kernels import average_on_grid, refine_mask
from ildsdk.lung.ray_kernels import Fan
from ildsdk.lung.repair_kernels import repair_lung
from native_hash.jit import ORDERED, kernel

FOUND, SMALL_BODY, SINGLE_GRAY, SMALL_SPACES, LITTLE_AIR = range(5)
N_MAPS = 24


class Scratch(NamedTuple):
    """Room for one mask, see :func:`ildsdk.lung.scratch.scratch_for`; nothing need be set.

    Attributes
    ----------
    grid_hu, cropped_hu : ndarray
        float32 ``(g_rows, g_columns)``.
    maps : ndarray
        uint64 ``(N_MAPS, g_rows row_words)``.
    work, half_width
        As a :class:`bitmap_kernels.Canvas` has them.
    runs, more_runs : Runs
        For the whole grid.
    counts, more_counts : ndarray
        int32, as many as ``runs.n_cells``.
    flags : ndarray
        bool ``(3, n)``, likewise.
    area_mm2 : ndarray
        float64, likewise.
    tally, sums
        As :func:`air_kernels.split_in_two` takes them.
    rays : RayScratch
        For the whole grid.
    clipped : ndarray
        float32 ``(n_columns + 1,)``.
    row_start, column_start : ndarray
        int64 ``(g_rows + 1,)`` and ``(g_columns + 1,)``.
    down, across : ndarray
        float32 ``(n_rows,)`` and ``(n_columns,)``.
    row_sums : ndarray
        float32 ``(2, g_columns + 2)``.
    """

    grid_hu: npt.NDArray[np.float32]
    cropped_hu: npt.NDArray[np.float32]
    maps: npt.NDArray[np.uint64]
    work: npt.NDArray[np.uint64]
    half_width: npt.NDArray[np.int64]
    runs: Runs
    more_runs: Runs
    counts: Int32
    more_counts: Int32
    flags: npt.NDArray[np.bool_]
    area_mm2: npt.NDArray[np.float64]
    tally: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    rays: RayScratch
    clipped: npt.NDArray[np.float32]
    row_start: npt.NDArray[np.int64]
    column_start: npt.NDArray[np.int64]
    down: npt.NDArray[np.float32]
    across: npt.NDArray[np.float32]
    row_sums: npt.NDArray[np.float32]


@kernel(ORDERED)
def _canvas(
    n_rows: Any, n_columns: Any, row_words: Any, spacing_mm: Any, inside: Any, scratch: Any
) -> Any:
    """A canvas; ``inside`` is overwritten."""
    inside[:] = np.uint64(0)
    for i in range(n_rows):
        mark_span(inside, i * row_words, 0, n_columns)
    return Canvas(
        n_rows,
        n_columns,
        row_words,
        spacing_mm[0],
        spacing_mm[1],
        inside,
        scratch.work,
        scratch.half_width,
    )


@kernel(ORDERED)
def find_lung(
    pixels_hu: npt.NDArray[Any],
    spacing_mm: tuple[float, float],
    reach: int,
    least_body_mm2: float,
    fan: Fan,
    scratch: Scratch,
    out: npt.NDArray[np.bool_],
) -> tuple[int, float, float]:
    """Find the lungs of a slice.

    Parameters
    ----------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, C-contiguous, HU; may be read-only.
    spacing_mm : tuple of float
        Row and column spacing of the working grid.
    reach : int
        Columns that the largest structuring element reaches to a side.
    least_body_mm2 : float
        Least area of a body.
    fan : Fan
        The rays.
    scratch : Scratch
        Room, by which the size of the working grid is known.
    out : ndarray
        bool ``(n_rows, n_columns)``, overwritten where lung is found.

    Returns
    -------
    outcome : int
        ``FOUND``, or what was amiss.
    threshold_hu : float
        Of the body without gas, where it got that far.
    amount : float
        Pixels of the mask; or the mm2 of body, largest air space or lung that are too few.
    """
    maps, grid_hu = scratch.maps, scratch.grid_hu
    g_rows, g_columns = grid_hu.shape
    average_on_grid(pixels_hu, scratch.column_start, scratch.clipped, grid_hu)
    row_words = row_words_of(g_columns, reach)
    whole = _canvas(g_rows, g_columns, row_words, spacing_mm, maps[0], scratch)
    whole_body = maps[1]
    counts, more_counts = scratch.counts, scratch.more_counts
    flags = scratch.flags[0]
    find_body(whole, grid_hu, maps[2:8], scratch.runs, counts, flags, whole_body)
    cell_mm2 = spacing_mm[0] * spacing_mm[1]
    body_mm2 = count_cells(whole_body) * cell_mm2
    if body_mm2 < least_body_mm2:
        return SMALL_BODY, 0.0, body_mm2

    # The air around the patient is left behind: nothing after this looks at it.
    top, bottom, left, right = bounding_box(whole, whole_body)
    top, bottom = max(top - 1, 0), min(bottom + 1, g_rows)
    left, right = max(left - 1, 0), min(right + 1, g_columns)
    n_rows, n_columns = bottom - top, right - left
    row_words = row_words_of(n_columns, reach)
    n = n_rows * row_words
    canvas = _canvas(n_rows, n_columns, row_words, spacing_mm, maps[2][:n], scratch)
    body = maps[3][:n]
    crop_bitmap(whole, whole_body, canvas, top, left, body)
    hu = scratch.cropped_hu
    for i in range(n_rows):
        hu[i, :n_columns] = grid_hu[top + i, left:right]

    gas, region, lung = maps[4][:n], maps[5][:n], maps[6][:n]
    rest = maps[16:]
    both_counts = (counts, more_counts)
    find_gas(canvas, hu, body, rest, scratch.more_runs, both_counts, flags, gas)
    for k in range(n):
        region[k] = body[k] & ~gas[k]
    is_split, threshold_hu = split_in_two(canvas, hu, region, scratch.tally, scratch.sums)
    if not is_split:
        return SINGLE_GRAY, 0.0, 0.0
    cut_hu = held_cut(threshold_hu)
    spaces = Spaces(scratch.runs, scratch.area_mm2, scratch.flags[1])
    n_spaces = find_spaces(canvas, hu, cut_hu, body, region, rest, counts, spaces)
    if not candidate_lung(canvas, spaces, n_spaces, rest, counts, flags, lung):
        return SMALL_SPACES, threshold_hu, largest_space(spaces, n_spaces)
    axis = long_axis(canvas, spaces.runs, flags)
    cage = Cage(
        maps[7][:n],
        maps[8][:n],
        maps[9][:n],
        maps[10][:n],
        maps[11][:n],
        maps[12][:n],
        maps[13][:n],
    )
    find_cage(canvas, hu, body, lung, axis, fan, scratch.rays, region, cage)
    both_flags = (flags, scratch.flags[2])
    parts = (cage.cavity, cage.rim, cage.core, cage.middle)
    lung_mm2 = choose_lung(
        canvas, spaces, n_spaces, parts, rest, both_counts, both_flags, lung, gas
    )
    if lung_mm2 < NO_LUNG_MM2:
        return LITTLE_AIR, threshold_hu, lung_mm2
    mask = maps[14][:n]
    repair_lung(
        canvas,
        hu,
        cage,
        lung,
        gas,
        rest,
        scratch.row_sums,
        scratch.more_runs,
        counts,
        flags,
        mask,
    )
    repaired = maps[15][:n]
    pack_below(canvas, hu, cut_hu, False, repaired)
    for k in range(n):
        repaired[k] = mask[k] & ~repaired[k]
    n_pixels = refine_mask(
        pixels_hu,
        canvas,
        mask,
        repaired,
        gas,
        (g_rows, g_columns),
        (top, left),
        cut_hu,
        scratch.row_start,
        scratch.down,
        scratch.column_start,
        scratch.across,
        out,
    )
    return FOUND, threshold_hu, float(n_pixels)
