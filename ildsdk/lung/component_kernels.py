"""Kernels of connected components of bitmaps, kept as runs: the stretches of cells of each row.

A mask of anatomy has a few runs a row, so that everything after the one look at its words takes a
time that follows the runs. The twins are in ``reference/components.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.lung.bitmap_kernels import Canvas, Words, count_span, lowest_place, mark_span
from native_hash.jit import ORDERED, kernel

Int32 = npt.NDArray[np.int32]


class Runs(NamedTuple):
    """Components of a bitmap (4 neighbors), numbered from 1 in reading order, as runs.

    Attributes
    ----------
    bounds : ndarray
        int32 ``(2 most + 1,)``, where ``most = n_rows ceil(n_columns / 2)``: run ``k`` takes the
        columns ``bounds[2 k]`` to ``bounds[2 k + 1] - 1``.
    row_start : ndarray
        int32 ``(n_rows + 1,)``: first run of each row.
    labels : ndarray
        int32 ``(most,)``: number of each run's component.
    n_cells : ndarray
        int32 ``(most + 1,)``: cells of each component; entry 0, the background, is 0.
    """

    bounds: Int32
    row_start: Int32
    labels: Int32
    n_cells: Int32


@kernel(ORDERED)
def _root(parent: Any, run: Any) -> Any:
    """Root of a run; the way is halved while it is walked."""
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@kernel(ORDERED)
def _find_runs(canvas: Canvas, words: Words, runs: Runs) -> Any:
    """Bounds of the runs of each row; returns how many runs there are."""
    one = np.uint64(1)
    bounds = runs.bounds
    n_bounds = np.uint64(0)
    for i in range(canvas.n_rows):
        runs.row_start[i] = n_bounds // np.uint64(2)
        last = np.uint64(0)
        own = words[i * canvas.row_words : (i + 1) * canvas.row_words]
        for k in range(own.size):
            # bits that differ from the one to their left; in the gap every run has ended
            changes = own[k] ^ ((own[k] << one) | last)
            last = own[k] >> np.uint64(63)
            while changes != np.uint64(0):
                bounds[n_bounds] = 64 * k + lowest_place(changes)
                n_bounds += one
                changes &= changes - one
    n_runs = np.int64(n_bounds // np.uint64(2))
    runs.row_start[canvas.n_rows] = n_runs
    return n_runs


@kernel(ORDERED)
def find_components(canvas: Canvas, words: Words, runs: Runs) -> Any:
    """Number the components of a bitmap; ``runs`` is overwritten. Returns how many there are."""
    n_runs = _find_runs(canvas, words, runs)
    bounds, row_start, labels, n_cells = runs
    for run in range(n_runs):
        labels[run] = run
    for i in range(1, canvas.n_rows):
        above = row_start[i - 1]
        here = row_start[i]
        while above < row_start[i] and here < row_start[i + 1]:
            if bounds[2 * above] < bounds[2 * here + 1] and (
                bounds[2 * here] < bounds[2 * above + 1]
            ):
                one = _root(labels, above)
                other = _root(labels, here)
                labels[max(one, other)] = min(one, other)
            if bounds[2 * above + 1] < bounds[2 * here + 1]:
                above += 1
            else:
                here += 1
    # A root is the first run of its component, so numbers rise in reading order. A parent
    # stands before its child and has its number by then.
    n_components = 0
    n_cells[0] = 0
    for run in range(n_runs):
        if labels[run] == run:
            n_components += 1
            labels[run] = n_components
            n_cells[n_components] = 0
        else:
            labels[run] = labels[labels[run]]
        n_cells[labels[run]] += bounds[2 * run + 1] - bounds[2 * run]
    return n_components


@kernel(ORDERED)
def count_in(canvas: Canvas, runs: Runs, n: int, region: Words, counts: Int32) -> None:
    """Cells of each of ``n`` components inside a region; the first ``n + 1`` are overwritten."""
    counts[: n + 1] = 0
    for i in range(canvas.n_rows):
        start = i * canvas.row_words
        for run in range(runs.row_start[i], runs.row_start[i + 1]):
            first, stop = runs.bounds[2 * run], runs.bounds[2 * run + 1]
            counts[runs.labels[run]] += count_span(region, start, np.int64(first), np.int64(stop))


@kernel(ORDERED)
def cells_of(canvas: Canvas, runs: Runs, is_wanted: npt.NDArray[np.bool_], out: Words) -> None:
    """Bitmap of the components that are marked; the entry of the background is not read."""
    out[:] = np.uint64(0)
    for i in range(canvas.n_rows):
        start = i * canvas.row_words
        for run in range(runs.row_start[i], runs.row_start[i + 1]):
            if is_wanted[runs.labels[run]]:
                first, stop = runs.bounds[2 * run], runs.bounds[2 * run + 1]
                mark_span(out, start, np.int64(first), np.int64(stop))


@kernel(ORDERED)
def touch_border(canvas: Canvas, runs: Runs, n: int, touches: npt.NDArray[np.bool_]) -> None:
    """Which components have a cell on the outermost rows or columns."""
    touches[: n + 1] = False
    for i in range(canvas.n_rows):
        is_edge = i in (0, canvas.n_rows - 1)
        for run in range(runs.row_start[i], runs.row_start[i + 1]):
            if is_edge or runs.bounds[2 * run] == 0 or runs.bounds[2 * run + 1] == canvas.n_columns:
                touches[runs.labels[run]] = True


@kernel(ORDERED)
def pieces_with(
    canvas: Canvas,
    words: Words,
    seed: Words,
    least_cells: float,
    runs: Runs,
    counts: Int32,
    is_wanted: npt.NDArray[np.bool_],
    out: Words,
) -> None:
    """Components that hold a seed cell and enough cells; ``out`` may be ``words`` or ``seed``."""
    n = find_components(canvas, words, runs)
    count_in(canvas, runs, n, seed, counts)
    for k in range(n + 1):
        is_wanted[k] = counts[k] > 0 and runs.n_cells[k] >= least_cells
    cells_of(canvas, runs, is_wanted, out)
