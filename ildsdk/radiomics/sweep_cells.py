"""What a walk over a region counted, as matrices of cells that are not zero."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.co_occurrence import CoOccurrence
from ildsdk.radiomics.levels import LevelImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.size_matrix import SizeMatrices, size_matrices
from native_hash.jit import SCAN_FASTMATH, kernel

N_DIRECTIONS = 4
N_SURROUNDINGS = 81
"""Neighbors in the region (0 to 8) by dependent neighbors (0 to 8)."""
DIFFERENCE_BITS = 36
"""One table for two sums: differences in the lower bits, pixels above."""


class Tables(NamedTuple):
    """Full tables of gray level by what is counted, one after the other for each direction.

    ``pairs`` int32: by the other level. ``short_runs`` int32 ``(2, n)``: by two lengths below 8, of
    two directions each. ``runs`` int32: by length. ``surroundings`` uint64: by ``n + 9 d`` of ``n``
    neighbors, ``d`` of them equal: pixels, and sums of deviations in the lower bits.
    ``n_grays`` and ``n_lengths``: rows of all, and columns of ``runs``.
    """

    pairs: npt.NDArray[np.int32]
    short_runs: npt.NDArray[np.int32]
    runs: npt.NDArray[np.int32]
    surroundings: npt.NDArray[np.uint64]
    n_grays: int
    n_lengths: int


class Swept(NamedTuple):
    """What the walk found.

    Attributes
    ----------
    pairs : CoOccurrence
        Of the four directions.
    runs : SizeMatrices
        Of the four directions.
    dependence : SizeMatrices
        One matrix of gray level by dependent neighbors + 1.
    differences : ndarray
        float64 ``(n_levels,)``: sum over the level's pixels of the distance between the gray level
        and the mean of the neighbors in the region.
    """

    pairs: CoOccurrence
    runs: SizeMatrices
    dependence: SizeMatrices
    differences: npt.NDArray[np.float64]


def take_cells(
    image: LevelImage, tables: Tables, *, is_symmetrical: bool, scratch: RadiomicsScratch
) -> Swept | None:
    """Matrices out of the tables, which are zeroed; ``is_symmetrical``: pairs count both ways.

    None where a direction has no two pixels that touch along it.
    """
    n_levels, n_pixels = image.grays.size, image.n_pixels
    n_cells = (N_DIRECTIONS, min(n_levels * n_levels, 2 * n_pixels))
    sums = (N_DIRECTIONS, n_levels)
    swept = Swept(
        pairs=CoOccurrence(
            starts=scratch.take("pair_starts", (N_DIRECTIONS, n_levels + 1), np.int64),
            columns=scratch.take("pair_columns", n_cells, np.int32),
            shares=scratch.take("pair_shares", n_cells, np.float64),
            row_sums=scratch.take("pair_row_sums", sums, np.float64),
            column_sums=scratch.take("pair_column_sums", sums, np.float64),
        ),
        runs=size_matrices(
            "run", N_DIRECTIONS, min(n_levels * tables.n_lengths, n_pixels), scratch
        ),
        dependence=size_matrices("dependence", 1, 9 * n_levels, scratch),
        differences=scratch.take("differences", n_levels, np.float64),
    )
    is_complete = _take_cells(image.grays, image.starts, tables, 2 if is_symmetrical else 1, swept)
    return swept if is_complete else None


@kernel(SCAN_FASTMATH)
def _pair_cells(grays: Any, table: Any, n_grays: Any, n_sides: Any, matrices: Any, m: Any) -> Any:
    """Matrix ``m`` out of its table, which is zeroed; returns its number of cells."""
    starts, columns, shares = matrices.starts[m], matrices.columns[m], matrices.shares[m]
    row_sums, column_sums = matrices.row_sums[m], matrices.column_sums[m]
    n_levels = grays.size
    n_cells = np.uint64(0)
    total = 0
    for i in range(n_levels):
        starts[i] = n_cells
        row = grays[i] * n_grays
        n_here = 0
        for j in range(n_levels):
            count = table[row + grays[j]]
            if n_sides == 2:
                count += table[grays[j] * n_grays + grays[i]]
            # written in any case, kept where any: cheaper than a branch
            columns[min(n_cells, np.uint64(columns.size - 1))] = j
            shares[min(n_cells, np.uint64(columns.size - 1))] = count
            n_cells += np.uint64(count > 0)
            n_here += count
        row_sums[i] = n_here
        total += n_here
    starts[n_levels] = n_cells
    for i in range(n_levels):
        n_here = 0
        for j in range(n_levels):
            n_here += table[grays[j] * n_grays + grays[i]]
        # as many from the level as to it where both directions count
        column_sums[i] = row_sums[i] / total if n_sides == 2 else np.float64(n_here) / total
    for i in range(n_levels):
        row_sums[i] /= total
    for cell in range(n_cells):
        shares[cell] /= total
    table[:] = 0
    return n_cells


@kernel(SCAN_FASTMATH)
def _spread_short_runs(grays: Any, short: Any, first: Any, second: Any, n_lengths: Any) -> None:
    """Add counts of codes to the tables of two directions; the counts are zeroed."""
    for level in range(grays.size):
        row = np.uint64(grays[level] * n_lengths)
        for code in range(np.uint64(64)):
            at = np.uint64(grays[level]) * np.uint64(64) + code
            count = short[at]
            if count > 0:
                short[at] = 0
                first[row + (code & np.uint64(7))] += count
                second[row + (code >> np.uint64(3))] += count


@kernel(SCAN_FASTMATH)
def _run_cells(grays: Any, starts: Any, table: Any, n_lengths: Any, matrices: Any, m: Any) -> None:
    """Matrix ``m`` out of its table, which is zeroed."""
    n_cells = 0
    for level in range(grays.size):
        row = grays[level] * n_lengths
        table[row] = 0
        n_left = starts[level + 1] - starts[level]
        length = 1
        while n_left > 0 and length < n_lengths:
            count = table[row + length]
            if count > 0:
                table[row + length] = 0
                matrices.grays[m, n_cells] = grays[level]
                matrices.sizes[m, n_cells] = length
                matrices.counts[m, n_cells] = count
                n_cells += 1
                n_left -= count * length
            length += 1
    matrices.n_cells[m] = n_cells


@kernel(SCAN_FASTMATH)
def _surrounding_cells(grays: Any, table: Any, matrices: Any, differences: Any) -> None:
    """Dependence matrix and differences out of their table, which is zeroed.

    The sums run in whole numbers, by number of neighbors, so that equal is exactly equal.
    """
    n_cells = 0
    for level in range(grays.size):
        first = grays[level] * N_SURROUNDINGS
        total = 0.0
        for n in range(1, 9):
            deviation = np.uint64(0)
            for n_equal in range(n + 1):
                deviation += table[first + n + 9 * n_equal] & np.uint64((1 << DIFFERENCE_BITS) - 1)
            total += np.float64(deviation) / n
        differences[level] = total
        for n_equal in range(9):
            count = np.uint64(0)
            for n in range(n_equal, 9):
                count += table[first + n + 9 * n_equal] >> np.uint64(DIFFERENCE_BITS)
            if count > 0:
                matrices.grays[0, n_cells] = grays[level]
                matrices.sizes[0, n_cells] = n_equal + 1
                matrices.counts[0, n_cells] = count
                n_cells += 1
    table[:] = 0
    matrices.n_cells[0] = n_cells


@kernel(SCAN_FASTMATH)
def _take_cells(grays: Any, starts: Any, tables: Any, n_sides: Any, swept: Any) -> Any:
    """Fill the matrices; returns whether each direction has two pixels that touch along it."""
    n_grays, n_lengths = tables.n_grays, tables.n_lengths
    n_pairs, n_runs = n_grays * n_grays, n_grays * n_lengths
    for k in range(2):
        first = 2 * k * n_runs
        _spread_short_runs(
            grays,
            tables.short_runs[k],
            tables.runs[first : first + n_runs],
            tables.runs[first + n_runs : first + 2 * n_runs],
            n_lengths,
        )
    is_complete = True
    for m in range(N_DIRECTIONS):
        pairs = tables.pairs[m * n_pairs : (m + 1) * n_pairs]
        n_cells = _pair_cells(grays, pairs, n_grays, n_sides, swept.pairs, m)
        is_complete &= n_cells > 0
        runs = tables.runs[m * n_runs : (m + 1) * n_runs]
        _run_cells(grays, starts, runs, n_lengths, swept.runs, m)
    _surrounding_cells(grays, tables.surroundings, swept.dependence, swept.differences)
    return is_complete
