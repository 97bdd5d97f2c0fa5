"""All that neighbors at distance 1 tell, counted in one walk over the region.

GLCM, GLRLM, GLDM and NGTDM look at the same pixels. Where there are few gray levels, each pixel
adds to small full tables for all of them while its row is in the processor's nearest cache; the
cells that are not zero are then taken out. Other settings and many levels go by
``co_occurrence.py``, ``glrlm.py`` and ``neighborhood.py``, level by level.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ildsdk.radiomics.levels import LevelImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import RadiomicsSettings
from ildsdk.radiomics.sweep_cells import (
    DIFFERENCE_BITS,
    N_DIRECTIONS,
    N_SURROUNDINGS,
    Swept,
    Tables,
    take_cells,
)
from native_hash.jit import SCAN_FASTMATH, kernel

_MOST_PIXELS = 1 << 24


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
    stride = image.stride
    n_grays = int(image.grays[-1]) + 1
    # no run is longer than the longer side of the padded image
    n_lengths = max(stride, image.levels.size // stride) + 1
    tables = Tables(
        pairs=scratch.zeros("pair_table", N_DIRECTIONS * n_grays * n_grays, np.int32),
        short_runs=scratch.zeros("short_run_table", 2 * n_grays * 64, np.int32).reshape(2, -1),
        runs=scratch.zeros("run_table", N_DIRECTIONS * n_grays * n_lengths, np.int32),
        surroundings=scratch.zeros("surrounding_table", n_grays * N_SURROUNDINGS, np.uint64),
        n_grays=n_grays,
        n_lengths=n_lengths,
    )
    _sweep(
        image,
        scratch.take("sweep_rows", (4, stride + 8), np.uint8),
        scratch.take("sweep_wide_rows", (5, stride), np.uint16),
        scratch.take("deviations", stride, np.int16),
        scratch.take("run_lengths", (2, 3, stride + 2), np.uint16),
        n_grays,
        n_lengths,
        tables,
    )
    return take_cells(image, tables, is_symmetrical=settings.symmetrical_glcm, scratch=scratch)


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
    n_places = tables.size // N_DIRECTIONS
    for direction in range(N_DIRECTIONS):
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
        at = gray * np.uint64(N_SURROUNDINGS) + np.uint64(surroundings[k])
        around[at] += np.uint64(1 << DIFFERENCE_BITS) + np.uint64(abs(np.int64(deviations[k])))
        # most places end no run: they fall into entry 0, cheaper than a branch
        code = np.uint64(codes_1[k])
        if code < np.uint64(64):
            short_0[gray * np.uint64(64) + np.uint64(codes_0[k])] += 1
            short_1[gray * np.uint64(64) + code] += 1
        else:
            _count_runs(levels, place, ends, k, n_lengths, tables.runs)


@kernel(SCAN_FASTMATH)
def _sweep(
    image: Any,
    rows: Any,
    wide_rows: Any,
    deviations: Any,
    lengths: Any,
    n_grays: Any,
    n_lengths: Any,
    tables: Any,
) -> None:
    """Fill the tables, all zero on entry.

    uint8 ``rows`` ``(4, stride + 8)``, uint16
    ``wide_rows`` ``(5, stride)``, int16 ``deviations`` ``(stride,)`` and uint16 ``lengths``
    ``(2, 3, stride + 2)`` are scratch.
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
