"""Gray level co-occurrence matrices, as rows of cells that are not zero.

Cost and memory follow the number of pixels and not the square of the number of gray levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.directions import distance_mm, half_directions
from ildsdk.radiomics.levels import LevelImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import RadiomicsSettings
from native_hash.jit import SCAN_FASTMATH, kernel


class CoOccurrence(NamedTuple):
    """One matrix for each direction, or one for all.

    Attributes
    ----------
    starts : ndarray
        int64 ``(n_matrices, n_levels + 1)``: row ``i`` of matrix ``m`` has the cells
        ``starts[m, i]:starts[m, i + 1]``. No cell at all: no pixel has a neighbor.
    columns : ndarray
        int32 ``(n_matrices, most cells)``: the other level's place among those that occur.
    shares : ndarray
        float64, same shape, > 0: share of all pairs.
    row_sums, column_sums : ndarray
        float64 ``(n_matrices, n_levels)``: margins of the shares.
    """

    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int32]
    shares: npt.NDArray[np.float64]
    row_sums: npt.NDArray[np.float64]
    column_sums: npt.NDArray[np.float64]


class _Counts(NamedTuple):
    """Pairs of some steps, as rows of cells: those counted, and their transposes.

    ``starts`` int32 ``(n, n_levels + 2)``, ``columns`` and ``counts`` int32 ``(n, most cells)``.
    """

    starts: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]


def co_occurrence(
    image: LevelImage,
    settings: RadiomicsSettings,
    pixel_spacing_mm: tuple[float, float],
    scratch: RadiomicsScratch,
) -> CoOccurrence:
    """Matrices of a region: one for each direction, or one where a weighting norm is set."""
    n_levels, n_pixels = image.grays.size, image.positions.size
    n_grays = int(image.grays[-1])
    steps, weights = _steps(image, settings, pixel_spacing_mm)
    n_matrices = min(steps.size, 1) if settings.weighting_norm else steps.size
    n_merged = steps.size // max(n_matrices, 1)
    n_sides = 2 if settings.symmetrical_glcm else 1
    n_counted = (n_merged * n_sides, min(n_levels * n_levels, n_pixels))
    n_cells = (n_matrices, min(n_levels * n_levels, n_sides * n_merged * n_pixels))
    matrices = CoOccurrence(
        starts=scratch.take("pair_starts", (n_matrices, n_levels + 1), np.int64),
        columns=scratch.take("pair_columns", n_cells, np.int32),
        shares=scratch.take("pair_shares", n_cells, np.float64),
        row_sums=scratch.take("pair_row_sums", (n_matrices, n_levels), np.float64),
        column_sums=scratch.take("pair_column_sums", (n_matrices, n_levels), np.float64),
    )
    _fill(
        image,
        steps,
        weights,
        n_sides,
        _Counts(
            starts=scratch.take("counted_starts", (n_counted[0], n_levels + 2), np.int32),
            columns=scratch.take("counted_columns", n_counted, np.int32),
            counts=scratch.take("counted", n_counted, np.int32),
        ),
        scratch.take("pair_row", n_grays + 1, np.int32),
        scratch.take("pair_weighted_row", n_levels, np.float64),
        scratch.take("pair_touched", n_grays + 2, np.int32),
        scratch.take("pair_index_of", n_grays + 1, np.int32),
        matrices,
    )
    return matrices


def _steps(
    image: LevelImage, settings: RadiomicsSettings, pixel_spacing_mm: tuple[float, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Steps in the level image, and the weight of each in a merged matrix."""
    pad = image.origin // image.stride
    height, width = image.levels.size // image.stride - 2 * pad, image.stride - 2 * pad
    directions = [
        (rows, columns)
        for rows, columns in half_directions(settings.distances)
        if rows < height and abs(columns) < width
    ]
    steps = np.array(
        [rows * image.stride + columns for rows, columns in directions], dtype=np.int64
    )
    norm = settings.weighting_norm
    if norm is None or norm == "no_weighting":
        return steps, np.ones(steps.size)
    lengths = np.array([distance_mm(d, pixel_spacing_mm, norm) for d in directions])
    return steps, np.exp(-(lengths**2))


@kernel(SCAN_FASTMATH)
def _count_pairs(
    image: Any, step: Any, row: Any, touched: Any, index_of: Any, counted: Any, a: Any
) -> None:
    """Count pairs of a pixel and the neighbor one step ahead, into ``counted[a]``.

    ``row`` is all zero on entry and on return.
    """
    ahead = image.levels[image.origin + step :]
    starts = counted.starts[a]
    columns = counted.columns[a]
    counts = counted.counts[a]
    n_cells = 0
    for level in range(image.grays.size):
        starts[level] = n_cells
        n_touched = 0
        for k in range(image.starts[level], image.starts[level + 1]):
            # outside the region is gray level 0: counted like any, dropped below
            other = ahead[image.positions[k]]
            n_so_far = row[other]
            touched[n_touched] = other
            n_touched += 1 if n_so_far == 0 else 0
            row[other] = n_so_far + 1
        for t in range(n_touched):
            other = touched[t]
            if other > 0:
                columns[n_cells] = index_of[other]
                counts[n_cells] = row[other]
                n_cells += 1
            row[other] = 0
    starts[image.grays.size] = n_cells


@kernel(SCAN_FASTMATH)
def _turn(counted: Any, a: Any, to: Any) -> None:
    """Transpose ``counted[a]`` into ``counted[to]``: cell (i, j) becomes (j, i)."""
    starts = counted.starts[a]
    cursors = counted.starts[to]
    n_levels = starts.size - 2
    cursors[:] = 0
    for cell in range(starts[n_levels]):
        cursors[counted.columns[a, cell] + 2] += 1
    for level in range(n_levels):
        cursors[level + 2] += cursors[level + 1]
    # one entry ahead of where they end up: each cursor stops where the next row starts
    for level in range(n_levels):
        for cell in range(starts[level], starts[level + 1]):
            other = counted.columns[a, cell]
            place = cursors[other + 1]
            cursors[other + 1] = place + 1
            counted.columns[to, place] = level
            counted.counts[to, place] = counted.counts[a, cell]


@kernel(SCAN_FASTMATH)
def _merge(
    counted: Any, weights: Any, n_sides: Any, row: Any, touched: Any, matrices: Any, m: Any
) -> None:
    """Matrix ``m``: shares of the weighted sum of all of ``counted``, and their margins.

    ``row`` is all zero on entry and on return.
    """
    starts = matrices.starts[m]
    columns = matrices.columns[m]
    shares = matrices.shares[m]
    row_sums = matrices.row_sums[m]
    column_sums = matrices.column_sums[m]
    n_levels = row.size
    n_cells = 0
    total = 0.0
    for level in range(n_levels):
        starts[level] = n_cells
        n_touched = 0
        for a in range(weights.size * n_sides):
            weight = weights[a // n_sides]
            if weight == 0.0:
                continue  # too far away in mm for double precision
            for cell in range(counted.starts[a, level], counted.starts[a, level + 1]):
                other = counted.columns[a, cell]
                touched[n_touched] = other
                n_touched += 1 if row[other] == 0.0 else 0
                row[other] += weight * counted.counts[a, cell]
        for t in range(n_touched):
            other = touched[t]
            columns[n_cells] = other
            shares[n_cells] = row[other]
            total += row[other]
            row[other] = 0.0
            n_cells += 1
    starts[n_levels] = n_cells
    row_sums[:] = 0.0
    column_sums[:] = 0.0
    for level in range(n_levels):
        for cell in range(starts[level], starts[level + 1]):
            shares[cell] /= total
            row_sums[level] += shares[cell]
            column_sums[columns[cell]] += shares[cell]


@kernel(SCAN_FASTMATH)
def _fill(
    image: Any,
    steps: Any,
    weights: Any,
    n_sides: Any,
    counted: Any,
    row: Any,
    weighted_row: Any,
    touched: Any,
    index_of: Any,
    matrices: Any,
) -> None:
    """Fill the matrices: the steps in order, as many for each as there are.

    ``n_sides`` 2: pairs count in both directions. int32 ``row`` and ``index_of`` ``(n_grays +
    1,)``, ``touched`` one longer, and float64 ``weighted_row`` ``(n_levels,)`` are scratch.
    """
    for level in range(image.grays.size):
        index_of[image.grays[level]] = level
    row[:] = 0
    weighted_row[:] = 0.0
    n_matrices = matrices.starts.shape[0]
    for m in range(n_matrices):
        n_merged = steps.size // n_matrices
        first = m * n_merged
        for a in range(n_merged):
            counted_at = a * n_sides
            _count_pairs(image, steps[first + a], row, touched, index_of, counted, counted_at)
            if n_sides == 2:
                _turn(counted, counted_at, counted_at + 1)
        _merge(
            counted, weights[first : first + n_merged], n_sides, weighted_row, touched, matrices, m
        )
