"""Kernel of the patient on the working grid: skin and inward, without table, clothing and leads.

The rules in plain numpy are in ``reference/body.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.lung.bitmap_kernels import (
    Canvas,
    Words,
    count_cells,
    has_cells,
    mark_span,
    pack_below,
)
from ildsdk.lung.component_kernels import (
    Int32,
    Runs,
    cells_of,
    count_in,
    find_components,
    touch_border,
)
from ildsdk.lung.morphology_kernels import close, dilate, erode
from native_hash.jit import ORDERED, kernel

TISSUE_HU = -400.0
_DETACH_MM = 4.0
_SEAL_MM = 4.0
_PADDING_HU = -1023.5
_ROOM_AIR_HU = -945.0
_MAX_CUT_MM = 180.0
_MIN_CUT_LUNG_MM2 = 1500.0
_CUT_LUNG_CORE_MM = 10.0
_MIN_CUT_LUNG_WALL = 0.8


@kernel(ORDERED)
def find_body(
    canvas: Canvas,
    grid_hu: npt.NDArray[np.float32],
    maps: npt.NDArray[np.uint64],
    runs: Runs,
    counts: Int32,
    flags: npt.NDArray[np.bool_],
    body: Words,
) -> None:
    """Outline of the patient, filled: soft tissue and all air inside.

    Parameters
    ----------
    canvas : Canvas
        Of the whole working grid.
    grid_hu : ndarray
        float32 ``(n_rows, n_columns)``.
    maps : ndarray
        uint64 ``(6, n_words)`` scratch.
    runs, counts, flags
        Scratch for components: ``counts`` int32 and ``flags`` bool, as many as ``runs.n_cells``.
    body : ndarray
        uint64 ``(n_words,)``, overwritten; empty where there is no tissue.

    Notes
    -----
    Tissue (above -400 HU) eroded by 4 mm: the largest piece is the trunk; table top, clothing and
    leads, thinner than 8 mm or apart, fall away. Grown back inside the tissue, sealed by a 4 mm
    closing (skin folds). Air that the border reaches is outside, unless it is lung cut by a
    small field of view (see :func:`_is_cut_lung`).
    """
    tissue, trunk, void, frame, air = maps[0], maps[1], maps[2], maps[3], maps[4]
    pack_below(canvas, grid_hu, TISSUE_HU, True, tissue)
    for k in range(tissue.size):
        tissue[k] = ~tissue[k] & canvas.inside[k]
    erode(canvas, tissue, _DETACH_MM, trunk)
    _keep_largest(canvas, trunk, runs, flags)
    if not has_cells(trunk):
        body[:] = np.uint64(0)
        return
    dilate(canvas, trunk, _DETACH_MM + 1.0, trunk)
    for k in range(trunk.size):
        trunk[k] &= tissue[k]
    close(canvas, trunk, _SEAL_MM, trunk)
    # Padding around a circular field is no air: it must not join lung that the circle cuts.
    pack_below(canvas, grid_hu, _PADDING_HU, True, void)
    n = find_components(canvas, void, runs)
    touch_border(canvas, runs, n, flags)
    cells_of(canvas, runs, flags, void)
    _frame(canvas, void, frame)
    for k in range(air.size):
        air[k] = canvas.inside[k] & ~(trunk[k] | void[k])
    n = find_components(canvas, air, runs)
    count_in(canvas, runs, n, frame, counts)
    cell_mm = max(canvas.row_mm, canvas.column_mm)
    least_cells = _MIN_CUT_LUNG_MM2 / (canvas.row_mm * canvas.column_mm)
    for k in range(n + 1):
        flags[k] = False
    is_outside = counts  # a count is not asked for again once it has been judged
    for space in range(1, n + 1):
        contact_mm = counts[space] * cell_mm
        is_outside[space] = contact_mm > 0
        if 0 < contact_mm < _MAX_CUT_MM and runs.n_cells[space] >= least_cells:
            flags[space] = True
            cells_of(canvas, runs, flags, air)
            flags[space] = False
            if _is_cut_lung(canvas, grid_hu, air, tissue, trunk, maps[3], maps[5]):
                is_outside[space] = 0
    for space in range(1, n + 1):
        flags[space] = is_outside[space] != 0
    cells_of(canvas, runs, flags, body)
    for k in range(body.size):
        body[k] = canvas.inside[k] & ~(body[k] | void[k])


@kernel(ORDERED)
def _keep_largest(canvas: Any, words: Any, runs: Any, flags: Any) -> None:
    """Leave the largest component, of equally large the first."""
    n = find_components(canvas, words, runs)
    largest = 0
    for k in range(n + 1):
        flags[k] = False
        if runs.n_cells[k] > runs.n_cells[largest]:
            largest = k
    flags[largest] = True
    cells_of(canvas, runs, flags, words)


@kernel(ORDERED)
def _frame(canvas: Any, void: Any, frame: Any) -> None:
    """The outermost cells of the picture: along its border and along the padding."""
    frame[:] = np.uint64(0)
    if has_cells(void):
        dilate(canvas, void, max(canvas.row_mm, canvas.column_mm), frame)
    last = canvas.n_columns - 1
    for i in range(canvas.n_rows):
        start = i * canvas.row_words
        if i in (0, canvas.n_rows - 1):
            mark_span(frame, start, 0, canvas.n_columns)
        mark_span(frame, start, 0, 1)
        mark_span(frame, start, last, last + 1)


@kernel(ORDERED)
def _is_cut_lung(
    canvas: Any, grid_hu: Any, air: Any, tissue: Any, trunk: Any, core: Any, rim: Any
) -> Any:
    """Tell lung that the image border cuts from room air, mattress and foam.

    Lung is large (which the caller has seen to), not as empty as room air, thick, and its rim
    inside the image is nearly all trunk; a mattress has the table on its other side.
    """
    total = 0.0
    for i in range(canvas.n_rows):
        own = air[i * canvas.row_words : (i + 1) * canvas.row_words]
        row = grid_hu[i]
        for j in range(canvas.n_columns):
            if (own[j // 64] >> np.uint64(j % 64)) & np.uint64(1):
                total += row[j]
    if np.float32(total / count_cells(air)) < _ROOM_AIR_HU:
        return False
    erode(canvas, air, _CUT_LUNG_CORE_MM, core)
    if not has_cells(core):
        return False
    dilate(canvas, air, 2.0 * max(canvas.row_mm, canvas.column_mm), rim)
    for k in range(rim.size):
        rim[k] &= ~air[k] & tissue[k]
    n_rim = count_cells(rim)
    for k in range(rim.size):
        rim[k] &= trunk[k]
    n_wall = count_cells(rim)
    return n_wall >= _MIN_CUT_LUNG_WALL * n_rim
