"""Gray level co-occurrence matrices, as rows of cells that are not zero.

Cost and memory follow the number of pixels and not the square of the number of gray levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.directions import distance_mm, half_directions
from ildsdk.radiomics.level_order import OrderedImage
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
    image: OrderedImage,
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
    # two steps are counted at a time; a spare place takes what comes of an odd one
    n_held = n_merged if n_merged > 1 else min(2, steps.size)
    n_counted = (n_held * n_sides + 1, min(n_levels * n_levels, n_pixels))
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
        scratch.take("pair_row", (2, n_grays + 1), np.int32),
        scratch.take("pair_weighted_row", n_levels, np.float64),
        scratch.take("pair_touched", (2, n_grays + 2), np.int32),
        scratch.take("pair_index_of", n_grays + 1, np.int32),
        matrices,
    )
    return matrices


def _steps(
    image: OrderedImage, settings: RadiomicsSettings, pixel_spacing_mm: tuple[float, float]
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
def _write_row(
    row: Any, touched: Any, n_touched: Any, index_of: Any, columns: Any, counts: Any, n_cells: Any
) -> Any:
    """Append a row of counts to the cells, and zero it; returns the number of cells."""
    for t in range(n_touched):
        other = np.uint32(touched[t])
        if other > 0:
            columns[n_cells] = index_of[other]
            counts[n_cells] = row[other]
            n_cells += 1
        row[other] = 0
    return n_cells


@kernel(SCAN_FASTMATH)
def _count_pairs(
    image: Any,
    steps: Any,
    row: Any,
    touched: Any,
    index_of: Any,
    counted: Any,
    a: Any,
    b: Any,
) -> None:
    """Count pairs of a pixel and its neighbor ahead, of two steps into ``counted`` a and b.

    Side by side, so that one addition need not wait for the last. ``row`` is all zero on
    entry and on return.
    """
    ahead_a = image.levels[image.origin + steps[0] :]
    ahead_b = image.levels[image.origin + steps[1] :]
    row_a, row_b = row[0], row[1]
    touched_a, touched_b = touched[0], touched[1]
    n_cells_a = 0
    n_cells_b = 0
    for level in range(image.grays.size):
        counted.starts[a, level] = n_cells_a
        counted.starts[b, level] = n_cells_b
        # numba asks of a signed place whether it counts from the end
        n_touched_a = np.uint32(0)
        n_touched_b = np.uint32(0)
        for k in range(np.uint32(image.starts[level]), np.uint32(image.starts[level + 1])):
            # outside the region is gray level 0: counted like any, dropped below
            position = image.positions[k]
            other = ahead_a[position]
            n_so_far = row_a[other]
            touched_a[n_touched_a] = other
            n_touched_a += np.uint32(n_so_far == 0)
            row_a[other] = n_so_far + 1
            other = ahead_b[position]
            n_so_far = row_b[other]
            touched_b[n_touched_b] = other
            n_touched_b += np.uint32(n_so_far == 0)
            row_b[other] = n_so_far + 1
        n_cells_a = _write_row(
            row_a,
            touched_a,
            n_touched_a,
            index_of,
            counted.columns[a],
            counted.counts[a],
            n_cells_a,
        )
        n_cells_b = _write_row(
            row_b,
            touched_b,
            n_touched_b,
            index_of,
            counted.columns[b],
            counted.counts[b],
            n_cells_b,
        )
    counted.starts[a, image.grays.size] = n_cells_a
    counted.starts[b, image.grays.size] = n_cells_b


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
    counted: Any,
    first: Any,
    weights: Any,
    n_sides: Any,
    row: Any,
    touched: Any,
    matrices: Any,
    m: Any,
) -> None:
    """Matrix ``m``: shares of the weighted sum of ``counted`` from ``first``, and their margins.

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
        n_touched = np.uint32(0)
        for a in range(weights.size * n_sides):
            weight = weights[a // n_sides]
            if weight == 0.0:
                continue  # too far away in mm for double precision
            at = first + a
            from_columns = counted.columns[at]
            from_counts = counted.counts[at]
            for cell in range(
                np.uint32(counted.starts[at, level]), np.uint32(counted.starts[at, level + 1])
            ):
                other = np.uint32(from_columns[cell])
                so_far = row[other]
                touched[n_touched] = other
                n_touched += np.uint32(so_far == 0.0)
                row[other] = so_far + weight * from_counts[cell]
        for t in range(n_touched):
            other = np.uint32(touched[t])
            columns[n_cells] = other
            shares[n_cells] = row[other]
            total += row[other]
            row[other] = 0.0
            n_cells += 1
    starts[n_levels] = n_cells
    row_sums[:] = 0.0
    column_sums[:] = 0.0
    for level in range(n_levels):
        for cell in range(np.uint32(starts[level]), np.uint32(starts[level + 1])):
            shares[cell] /= total
            row_sums[level] += shares[cell]
            column_sums[np.uint32(columns[cell])] += shares[cell]


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

    ``n_sides`` 2: pairs count in both directions. int32 ``row`` ``(2, n_grays + 1)``, ``touched``
    ``(2, n_grays + 2)`` and ``index_of`` ``(n_grays + 1,)``, and float64 ``weighted_row``
    ``(n_levels,)`` are scratch.
    """
    for level in range(image.grays.size):
        index_of[image.grays[level]] = level
    row[:] = 0
    weighted_row[:] = 0.0
    n_matrices = matrices.starts.shape[0]
    is_merged = n_matrices < steps.size
    spare = counted.starts.shape[0] - 1
    for first in range(0, steps.size, 2):
        at = first * n_sides if is_merged else 0
        is_pair = first + 1 < steps.size
        # an odd step out is counted twice, once for nobody
        pair = steps[first : first + 2] if is_pair else np.array([steps[first], steps[first]])
        second_at = at + n_sides if is_pair else spare
        _count_pairs(image, pair, row, touched, index_of, counted, at, second_at)
        if n_sides == 2:
            _turn(counted, at, at + 1)
            if is_pair:
                _turn(counted, second_at, second_at + 1)
        if not is_merged:
            for k in range(first, min(first + 2, steps.size)):
                held = at + (k - first) * n_sides
                one = weights[k : k + 1]
                _merge(counted, held, one, n_sides, weighted_row, touched[0], matrices, k)
    if is_merged and n_matrices > 0:
        _merge(counted, 0, weights, n_sides, weighted_row, touched[0], matrices, 0)
