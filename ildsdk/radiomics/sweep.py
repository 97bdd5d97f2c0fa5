"""All that neighbors at distance 1 tell, counted in one walk over the region.

GLCM, GLRLM, GLDM and NGTDM look at the same pixels. Where there are few gray levels, each pixel
adds to small full tables for all of them while its row is in the processor's nearest cache; the
cells that are not zero are then taken out. Other settings and many levels go by
``co_occurrence.py``, ``glrlm.py`` and ``neighborhood.py``, level by level.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.co_occurrence import CoOccurrence
from ildsdk.radiomics.levels import LevelImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import RadiomicsSettings
from ildsdk.radiomics.size_matrix import SizeMatrices, size_matrices
from native_hash.jit import SCAN_FASTMATH, kernel

_N_DIRECTIONS = 4
# neighbors in the region (0 to 8) by dependent neighbors (0 to 8)
_N_SURROUNDINGS = 81
# one table for two sums: differences in the lower bits, pixels above
_DIFFERENCE_BITS = 36
_MOST_PIXELS = 1 << 24


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


class _Tables(NamedTuple):
    """Full tables of gray level by what is counted, one after the other for each direction.

    ``pairs`` int32: by the other level. ``short_runs`` int32 ``(2, n)``: by two lengths below 8, of
    two directions each. ``runs`` int32: by length. ``surroundings`` uint64: by ``n + 9 d`` of ``n``
    neighbors, ``d`` of them equal: pixels, and sums of deviations in the lower bits.
    """

    pairs: npt.NDArray[np.int32]
    short_runs: npt.NDArray[np.int32]
    runs: npt.NDArray[np.int32]
    surroundings: npt.NDArray[np.uint64]


def sweep(
    image: LevelImage, settings: RadiomicsSettings, scratch: RadiomicsScratch
) -> Swept | None:
    """Walk over a region, or None where the tables do not serve.

    They serve neighbors at distance 1, no weighting, dependence of equal levels, fewer than 256
    levels, and regions with two pixels that touch along each direction.
    """
    if (
        image.levels.dtype != np.uint8
        or settings.distances != (1,)
        or settings.weighting_norm is not None
        or settings.gldm_alpha != 0
        or image.n_pixels > _MOST_PIXELS
    ):
        return None
    n_levels, n_pixels, stride = image.grays.size, image.n_pixels, image.stride
    n_grays = int(image.grays[-1]) + 1
    # no run is longer than the longer side of the padded image
    n_lengths = max(stride, image.levels.size // stride) + 1
    n_cells = (_N_DIRECTIONS, min(n_levels * n_levels, 2 * n_pixels))
    sums = (_N_DIRECTIONS, n_levels)
    swept = Swept(
        pairs=CoOccurrence(
            starts=scratch.take("pair_starts", (_N_DIRECTIONS, n_levels + 1), np.int64),
            columns=scratch.take("pair_columns", n_cells, np.int32),
            shares=scratch.take("pair_shares", n_cells, np.float64),
            row_sums=scratch.take("pair_row_sums", sums, np.float64),
            column_sums=scratch.take("pair_column_sums", sums, np.float64),
        ),
        runs=size_matrices("run", _N_DIRECTIONS, min(n_levels * n_lengths, n_pixels), scratch),
        dependence=size_matrices("dependence", 1, 9 * n_levels, scratch),
        differences=scratch.take("differences", n_levels, np.float64),
    )
    is_complete = _sweep(
        image,
        2 if settings.symmetrical_glcm else 1,
        scratch.take("sweep_rows", (4, stride + 8), np.uint8),
        scratch.take("sweep_wide_rows", (5, stride), np.uint16),
        scratch.take("deviations", stride, np.int16),
        scratch.take("run_lengths", (2, 3, stride + 2), np.uint16),
        n_grays,
        n_lengths,
        _Tables(
            pairs=scratch.zeros("pair_table", _N_DIRECTIONS * n_grays * n_grays, np.int32),
            short_runs=scratch.zeros("short_run_table", 2 * n_grays * 64, np.int32).reshape(2, -1),
            runs=scratch.zeros("run_table", _N_DIRECTIONS * n_grays * n_lengths, np.int32),
            surroundings=scratch.zeros("surrounding_table", n_grays * _N_SURROUNDINGS, np.uint64),
        ),
        swept,
    )
    return swept if is_complete else None


@kernel(SCAN_FASTMATH)
def _look_around(
    levels: Any, stride: Any, begin: Any, end: Any, columns: Any, surroundings: Any, deviations: Any
) -> None:
    """For each place of a part of a row: ``n + 9 d`` of ``n`` neighbors, ``d`` of them equal.

    And the deviation: ``n level`` less the sum of the neighbors' levels. ``columns`` is scratch.
    """
    # columns of three pixels first, one more at each end; narrow sums stay narrow for the compiler
    n_in_column = columns[0].view(np.uint8)
    total_of_column = columns[1]
    above = levels[begin - stride - 1 : end - stride + 1]
    middle = levels[begin - 1 : end + 1]
    below = levels[begin + stride - 1 : end + stride + 1]
    for k in range(middle.size):
        n_in_column[k] = np.uint8(above[k] > 0) + np.uint8(middle[k] > 0) + np.uint8(below[k] > 0)
    for k in range(middle.size):
        total_of_column[k] = np.uint16(above[k]) + np.uint16(middle[k]) + np.uint16(below[k])
    here = levels[begin:end]
    one, two, three = above[:-2], above[1:-1], above[2:]
    four, five = middle[:-2], middle[2:]
    six, seven, eight = below[:-2], below[1:-1], below[2:]
    for k in range(here.size):
        gray = here[k]
        n = n_in_column[k] + n_in_column[k + 1] + n_in_column[k + 2]
        surroundings[k] = np.uint8(
            n
            - 1
            + (np.uint8(9) if one[k] == gray else np.uint8(0))
            + (np.uint8(9) if two[k] == gray else np.uint8(0))
            + (np.uint8(9) if three[k] == gray else np.uint8(0))
            + (np.uint8(9) if four[k] == gray else np.uint8(0))
            + (np.uint8(9) if five[k] == gray else np.uint8(0))
            + (np.uint8(9) if six[k] == gray else np.uint8(0))
            + (np.uint8(9) if seven[k] == gray else np.uint8(0))
            + (np.uint8(9) if eight[k] == gray else np.uint8(0))
        )
    for k in range(here.size):
        # the pixel itself, once in each, falls out
        n = n_in_column[k] + n_in_column[k + 1] + n_in_column[k + 2]
        total = total_of_column[k] + total_of_column[k + 1] + total_of_column[k + 2]
        deviations[k] = np.int16(n * here[k] - total)


@kernel(SCAN_FASTMATH)
def _run_on(
    levels: Any, begin: Any, end: Any, step: Any, lengths_back: Any, lengths: Any, ends: Any
) -> None:
    """Lengths of the runs along ``step`` so far, and of those that end at a place, else 0.

    ``lengths_back`` holds those of the places a step back.
    """
    here = levels[begin:end]
    back = levels[begin - step : end - step]
    ahead = levels[begin + step : end + step]
    for k in range(here.size):
        gray = here[k]
        # read before it is known to be needed: a guarded read cannot go in parallel
        grown = np.uint16(lengths_back[k] + 1)
        n = grown if gray == back[k] else np.uint16(1)
        lengths[k] = n
        ends[k] = n if gray != ahead[k] else np.uint16(0)


@kernel(SCAN_FASTMATH)
def _run_codes(levels: Any, begin: Any, end: Any, ends: Any, alike: Any, codes: Any) -> None:
    """Lengths of the runs of all directions that end at a place, in two codes of two each.

    ``ends`` holds those of three directions; the fourth runs in the row itself. A run of 8 or more:
    the second code is 64. ``alike`` is scratch.
    """
    here = levels[begin:end]
    before = levels[begin - 1 : end - 1]
    after = levels[begin + 1 : end + 1]
    alike[:7] = 0
    for k in range(here.size):
        alike[k + 7] = np.uint8(1) if here[k] == before[k] else np.uint8(0)
    one, two, three = ends[0], ends[1], ends[2]
    first, second = codes[0], codes[1]
    for k in range(here.size):
        # a run goes on as long as all so far were alike: no length waits for the last
        so_far = alike[k + 7]
        n = so_far + np.uint8(1)
        for back in range(6, 0, -1):
            so_far &= alike[k + back]
            n += so_far
        second[k] = np.uint8(n) if here[k] != after[k] else np.uint8(0)
    for k in range(here.size):
        first[k] = np.uint8(one[k] | two[k] << np.uint16(3))
    for k in range(here.size):
        is_short = (one[k] | two[k] | three[k] | second[k]) < 8
        code = np.uint8(three[k] | np.uint16(second[k]) << np.uint16(3))
        second[k] = code if is_short else np.uint8(64)


@kernel(SCAN_FASTMATH)
def _count_runs(levels: Any, place: Any, ends: Any, k: Any, n_lengths: Any, tables: Any) -> None:
    """Count the runs that end at a place, one of them a long one."""
    gray = levels[place]
    n_places = tables.size // _N_DIRECTIONS
    for direction in range(_N_DIRECTIONS):
        length = np.int64(0)
        if direction < 3:
            length = np.int64(ends[direction, k])
        elif levels[place + 1] != gray:
            length = np.int64(1)
            while levels[place - length] == gray:
                length += 1
        tables[direction * n_places + gray * n_lengths + length] += 1


@kernel(SCAN_FASTMATH)
def _count(
    levels: Any,
    stride: Any,
    begin: Any,
    end: Any,
    row_begin: Any,
    surroundings: Any,
    deviations: Any,
    ends: Any,
    codes: Any,
    n_grays: Any,
    n_lengths: Any,
    tables: Any,
) -> None:
    """Add the pixels of one stretch of a row to the tables."""
    n_pairs = n_grays * n_grays
    pairs_0 = tables.pairs[:n_pairs]
    pairs_1 = tables.pairs[n_pairs : 2 * n_pairs]
    pairs_2 = tables.pairs[2 * n_pairs : 3 * n_pairs]
    pairs_3 = tables.pairs[3 * n_pairs :]
    step = np.uint64(stride)
    gray = np.uint64(levels[np.uint64(begin)])
    below_left = np.uint64(levels[np.uint64(begin) + step - np.uint64(1)])
    below = np.uint64(levels[np.uint64(begin) + step])
    for place in range(np.uint64(begin), np.uint64(end)):
        right = np.uint64(levels[place + np.uint64(1)])
        below_right = np.uint64(levels[place + step + np.uint64(1)])
        from_level = gray * np.uint64(n_grays)
        pairs_0[from_level + below_right] += 1
        pairs_1[from_level + below] += 1
        pairs_2[from_level + below_left] += 1
        pairs_3[from_level + right] += 1
        gray, below_left, below = right, below, below_right
    short_0 = tables.short_runs[0]
    short_1 = tables.short_runs[1]
    around = tables.surroundings
    codes_0, codes_1 = codes[0], codes[1]
    for place in range(np.uint64(begin), np.uint64(end)):
        gray = np.uint64(levels[place])
        k = place - np.uint64(row_begin)
        at = gray * np.uint64(_N_SURROUNDINGS) + np.uint64(surroundings[k])
        around[at] += np.uint64(1 << _DIFFERENCE_BITS) + np.uint64(abs(np.int64(deviations[k])))
        # most places end no run: they fall into entry 0, cheaper than a branch
        code = np.uint64(codes_1[k])
        if code < np.uint64(64):
            short_0[gray * np.uint64(64) + np.uint64(codes_0[k])] += 1
            short_1[gray * np.uint64(64) + code] += 1
        else:
            _count_runs(levels, place, ends, k, n_lengths, tables.runs)


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
        first = grays[level] * _N_SURROUNDINGS
        total = 0.0
        for n in range(1, 9):
            deviation = np.uint64(0)
            for n_equal in range(n + 1):
                deviation += table[first + n + 9 * n_equal] & np.uint64((1 << _DIFFERENCE_BITS) - 1)
            total += np.float64(deviation) / n
        differences[level] = total
        for n_equal in range(9):
            count = np.uint64(0)
            for n in range(n_equal, 9):
                count += table[first + n + 9 * n_equal] >> np.uint64(_DIFFERENCE_BITS)
            if count > 0:
                matrices.grays[0, n_cells] = grays[level]
                matrices.sizes[0, n_cells] = n_equal + 1
                matrices.counts[0, n_cells] = count
                n_cells += 1
    table[:] = 0
    matrices.n_cells[0] = n_cells


@kernel(SCAN_FASTMATH)
def _sweep(
    image: Any,
    n_sides: Any,
    rows: Any,
    wide_rows: Any,
    deviations: Any,
    lengths: Any,
    n_grays: Any,
    n_lengths: Any,
    tables: Any,
    swept: Any,
) -> Any:
    """Fill the matrices; returns whether each direction has two pixels that touch along it.

    ``n_sides`` 2: pairs count in both directions. uint8 ``rows`` ``(4, stride + 8)``, uint16
    ``wide_rows`` ``(5, stride)``, int16 ``deviations`` ``(stride,)`` and uint16 ``lengths``
    ``(2, 3, stride + 2)`` are scratch. The tables are all zero on entry and on return.
    """
    levels, stride, spans = image.levels, image.stride, image.spans
    surroundings, alike, codes = rows[0], rows[1], rows[2:]
    columns, ends = wide_rows[:2], wide_rows[2:]
    first_span = 0
    n_spans = spans.shape[0]
    while first_span < n_spans:
        row = spans[first_span, 0] // stride
        row_start = row * stride
        stop_span = first_span
        while stop_span < n_spans and spans[stop_span, 0] < row_start + stride:
            stop_span += 1
        begin, end = spans[first_span, 0], spans[stop_span - 1, 1]
        _look_around(levels, stride, begin, end, columns, surroundings, deviations)
        for direction in range(3):
            # ahead: one row down and 1, 0, -1 columns to the right
            right = 1 - direction
            first = begin - row_start + 1  # lengths have a border of one
            _run_on(
                levels,
                begin,
                end,
                stride + right,
                lengths[1 - (row & 1), direction, first - right : first - right + end - begin],
                lengths[row & 1, direction, first : first + end - begin],
                ends[direction],
            )
        _run_codes(levels, begin, end, ends, alike, codes)
        for s in range(first_span, stop_span):
            _count(
                levels,
                stride,
                spans[s, 0],
                spans[s, 1],
                begin,
                surroundings,
                deviations,
                ends,
                codes,
                n_grays,
                n_lengths,
                tables,
            )
        first_span = stop_span
    n_pairs, n_runs = n_grays * n_grays, n_grays * n_lengths
    for k in range(2):
        first = 2 * k * n_runs
        _spread_short_runs(
            image.grays,
            tables.short_runs[k],
            tables.runs[first : first + n_runs],
            tables.runs[first + n_runs : first + 2 * n_runs],
            n_lengths,
        )
    is_complete = True
    for m in range(_N_DIRECTIONS):
        pairs = tables.pairs[m * n_pairs : (m + 1) * n_pairs]
        n_cells = _pair_cells(image.grays, pairs, n_grays, n_sides, swept.pairs, m)
        is_complete &= n_cells > 0
        runs = tables.runs[m * n_runs : (m + 1) * n_runs]
        _run_cells(image.grays, image.starts, runs, n_lengths, swept.runs, m)
    _surrounding_cells(image.grays, tables.surroundings, swept.dependence, swept.differences)
    return is_complete
