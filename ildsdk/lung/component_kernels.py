"""Kernels of connected components, kept as runs: the True stretches of each row.

A mask of anatomy has a few runs a row, so that everything after the one look at its pixels
takes a time that follows the runs. Preconditions that are not checked: as in
``kernels.py``. The twins are in ``reference.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.jit import ORDERED, kernel

# The place of a lone bit in a machine word: the top six bits of its product with a number in
# which no two windows of six bits are the same (de Bruijn) look it up.
_WINDOWS = np.uint64(0x03F79D71B4CB0A89)
_PLACE_OF = np.empty(64, dtype=np.uint8)
_PLACE_OF[(np.uint64(1) << np.arange(64, dtype=np.uint64)) * _WINDOWS >> np.uint64(58)] = range(64)


@kernel(ORDERED)
def _root(parent: Any, run: Any) -> Any:
    """Root of a run; the way is halved while it is walked."""
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@kernel(ORDERED)
def find_components(
    mask: npt.NDArray[np.bool_],
    bounds: npt.NDArray[np.int32],
    row_start: npt.NDArray[np.int32],
    labels: npt.NDArray[np.int32],
    n_cells: npt.NDArray[np.int32],
) -> int:
    """Number the components of a mask (4 neighbors) from 1 in reading order.

    Parameters
    ----------
    mask : ndarray
        bool ``(n_rows, n_columns)``.
    bounds : ndarray
        int32 ``(2 most + 1,)``, where ``most = n_rows ceil(n_columns / 2)``, overwritten: run
        ``k`` takes the columns ``bounds[2 k]`` to ``bounds[2 k + 1] - 1``.
    row_start : ndarray
        int32 ``(n_rows + 1,)``, overwritten: first run of each row.
    labels : ndarray
        int32 ``(most,)``, overwritten: number of each run's component.
    n_cells : ndarray
        int32 ``(most + 1,)``, overwritten: pixels of each component; entry 0 is 0.

    Returns
    -------
    int
        How many components.
    """
    n_rows, n_columns = mask.shape
    one = np.uint64(1)
    n_bounds = np.uint64(0)
    for i in range(n_rows):
        row_start[i] = n_bounds // np.uint64(2)
        row = mask[i]
        last = np.uint64(0)
        for start in range(0, n_columns, 64):
            part = row[start : min(start + 64, n_columns)]
            word = np.uint64(0)
            for bit in range(part.size):
                word |= np.uint64(part[bit]) << np.uint64(bit)
            # bits that differ from the one to their left
            changes = word ^ ((word << one) | last)
            last = word >> np.uint64(63)
            while changes > np.uint64(0):
                lowest = changes & (~changes + one)
                place = _PLACE_OF[(lowest * _WINDOWS) >> np.uint64(58)]
                bounds[n_bounds] = start + np.int64(place)
                n_bounds += one
                changes ^= lowest
        if last == one and n_columns % 64 == 0:
            bounds[n_bounds] = n_columns
            n_bounds += one
    n_runs = np.int64(n_bounds // np.uint64(2))
    row_start[n_rows] = n_runs
    for run in range(n_runs):
        labels[run] = run
    for i in range(1, n_rows):
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
def exchange(
    is_painted: bool,
    by_component: npt.NDArray[np.int64],
    bounds: npt.NDArray[np.int32],
    row_start: npt.NDArray[np.int32],
    labels: npt.NDArray[np.int32],
    grid: npt.NDArray[np.bool_],
) -> None:
    """Mark components on a grid, or count the marks of a grid by component.

    Parameters
    ----------
    is_painted : bool
        True: write ``grid``, False: write ``by_component``.
    by_component : ndarray
        int64 ``(n_components + 1,)``. Painted are the components whose entry is not 0; counts
        are added to what the entries hold.
    bounds, row_start, labels : ndarray
        As :func:`find_components` left them.
    grid : ndarray
        bool ``(n_rows, n_columns)``; painting overwrites all of it. Precondition: writable,
        or it would be compiled once more.
    """
    for i in range(grid.shape[0]):
        row = grid[i]
        if is_painted:
            row[:] = False
        for run in range(row_start[i], row_start[i + 1]):
            part = row[bounds[2 * run] : bounds[2 * run + 1]]
            if is_painted:
                if by_component[labels[run]] != 0:
                    part[:] = True
                continue
            n_here = 0
            for is_marked in part:
                n_here += 1 if is_marked else 0
            by_component[labels[run]] += n_here
