"""Gray level run length features (16).

A run is a line of pixels of one gray level along one of four directions. Definitions:
pyradiomics, ``glrlm``: features of each direction, then their mean; or one matrix of all
directions, weighted by distance, where a weighting norm is set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.directions import distance_mm, half_directions
from ildsdk.radiomics.levels import LevelImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import WeightingNorm
from ildsdk.radiomics.size_matrix import (
    ENTROPY,
    GRAY_NON_UNIFORMITY,
    GRAY_NON_UNIFORMITY_NORMALIZED,
    GRAY_VARIANCE,
    HIGH_GRAY,
    LARGE,
    LARGE_HIGH_GRAY,
    LARGE_LOW_GRAY,
    LOW_GRAY,
    N_SIZE_FEATURES,
    PERCENTAGE,
    SIZE_NON_UNIFORMITY,
    SIZE_NON_UNIFORMITY_NORMALIZED,
    SIZE_VARIANCE,
    SMALL,
    SMALL_HIGH_GRAY,
    SMALL_LOW_GRAY,
    size_features,
)
from native_hash.jit import SCAN_FASTMATH, kernel

_ORDER = np.array(
    [
        GRAY_NON_UNIFORMITY,
        GRAY_NON_UNIFORMITY_NORMALIZED,
        GRAY_VARIANCE,
        HIGH_GRAY,
        LARGE,
        LARGE_HIGH_GRAY,
        LARGE_LOW_GRAY,
        LOW_GRAY,
        ENTROPY,
        SIZE_NON_UNIFORMITY,
        SIZE_NON_UNIFORMITY_NORMALIZED,
        PERCENTAGE,
        SIZE_VARIANCE,
        SMALL,
        SMALL_HIGH_GRAY,
        SMALL_LOW_GRAY,
    ]
)
_RUN_ENTROPY = 8
_RUN_VARIANCE = 12


def glrlm_features(
    image: LevelImage,
    weighting_norm: WeightingNorm | None,
    pixel_spacing_mm: tuple[float, float],
    scratch: RadiomicsScratch,
    out: npt.NDArray[np.float64],
) -> None:
    """Write the 16 features to ``out``, float64 ``(16,)``, NaN where no direction has runs."""
    n_pixels = image.positions.size
    n_places = image.levels.size
    # no run is longer than the longer side of the padded image
    longest = max(image.stride, n_places // image.stride)
    directions = half_directions((1,))
    steps = np.array([rows * image.stride + columns for rows, columns in directions])
    if weighting_norm is None:
        groups = [slice(a, a + 1) for a in range(len(directions))]
        weights = np.ones(len(directions))
    else:
        groups = [slice(0, len(directions))]
        weights = np.array([distance_mm(d, pixel_spacing_mm, weighting_norm) for d in directions])
    cell_grays = scratch.take("cell_grays", len(directions) * n_pixels, np.int32)
    cell_sizes = scratch.take("cell_sizes", len(directions) * n_pixels, np.int32)
    cell_counts = scratch.take("cell_counts", len(directions) * n_pixels, np.float64)
    by_size = scratch.take("by_size", n_pixels + longest + 1, np.float64)
    row = scratch.take("run_row", 2 * (longest + 1), np.int32).reshape(2, longest + 1)
    weighted_row = scratch.take("run_weighted_row", longest + 1, np.float64)
    lengths = scratch.take("run_lengths", n_places, np.uint16)
    ends = scratch.take("run_ends", len(directions) * n_places, np.uint16)
    ends = ends.reshape(len(directions), n_places)
    by_size[:] = 0.0
    row[:] = 0
    weighted_row[:] = 0.0
    found: list[npt.NDArray[np.float64]] = []
    for group in groups:
        chosen = []
        for a in range(group.start, group.stop):
            if _has_pair(image.levels, image.origin, image.positions, steps[a]) or _shares_a_line(
                image, directions[a]
            ):
                # just before use: the buffer is still in the processor's cache
                _run_ends(image.levels, image.stride, steps[a], lengths, ends[a])
                chosen.append(a)
        if not chosen:
            continue
        n_cells = _cells(
            ends,
            image.origin,
            image.positions,
            image.starts,
            image.grays,
            np.array(chosen),
            weights,
            row,
            weighted_row,
            cell_grays,
            cell_sizes,
            cell_counts,
        )
        features = np.empty(N_SIZE_FEATURES)
        size_features(cell_grays, cell_sizes, cell_counts, n_cells, by_size, features)
        found.append(features)
    out[:] = np.mean(found, axis=0)[_ORDER] if found else np.nan
    if not found and weighting_norm is not None:
        # pyradiomics answers 0 here, for sums without terms
        out[[_RUN_ENTROPY, _RUN_VARIANCE]] = 0.0


def _shares_a_line(image: LevelImage, direction: tuple[int, int]) -> bool:
    """Whether any line along the direction holds two pixels of the region."""
    rows, columns = np.divmod(image.positions.astype(np.int64), image.stride)
    lines = rows * direction[1] - columns * direction[0]
    return bool(np.unique(lines).size < lines.size)


@kernel(SCAN_FASTMATH)
def _has_pair(levels: Any, origin: Any, positions: Any, step: Any) -> Any:
    """Whether any two pixels of the region are neighbors along the step."""
    ahead = levels[origin + step :]
    is_found = False
    for k in range(positions.size):
        if ahead[positions[k]] > 0:
            is_found = True
            break
    return is_found


@kernel(SCAN_FASTMATH)
def _run_ends(levels: Any, stride: Any, step: Any, lengths: Any, ends: Any) -> None:
    """Write to ``ends`` the length of the run that ends at a place, 0 where none ends.

    Places are those of ``levels``; ``lengths`` is scratch of the same size. Rows are handled
    as whole slices, so that the compiler can take several pixels at once.
    """
    for row in range(1, levels.size // stride - 1):
        # the border columns belong to no run
        first = row * stride + 1
        stop = first + stride - 2
        here = levels[first:stop]
        back = levels[first - step : stop - step]
        ahead = levels[first + step : stop + step]
        length = lengths[first:stop]
        length_back = lengths[first - step : stop - step]
        end = ends[first:stop]
        for column in range(here.size):
            gray = here[column]
            # read before it is known to be needed: a guarded read cannot go in parallel
            grown = length_back[column] + 1
            n = grown if gray == back[column] else 1
            length[column] = n
            end[column] = n if gray != ahead[column] else 0


@kernel(SCAN_FASTMATH)
def _cells(
    ends: Any,
    origin: Any,
    positions: Any,
    starts: Any,
    grays: Any,
    chosen: Any,
    weights: Any,
    row: Any,
    weighted_row: Any,
    cell_grays: Any,
    cell_sizes: Any,
    cell_counts: Any,
) -> int:
    """Cells of the run length matrix summed over the chosen directions; their number.

    ``row`` int32 ``(2, longest run + 1)`` and ``weighted_row`` float64 ``(longest run + 1,)``
    are all zero on entry and on return.
    """
    n_cells = 0
    for level in range(grays.size):
        longest_of_all = 0
        for c in range(chosen.size):
            a = chosen[c]
            end = ends[a, origin:]
            longest: Any = np.uint16(0)
            for k in range(starts[level], starts[level + 1]):
                length = end[positions[k]]
                longest = max(longest, length)
                # most places end no run: they fall into entry 0, cheaper than a branch;
                # even and odd pixels apart, so that one addition need not wait for the last
                row[k & 1, length] += 1
            row[:, 0] = 0
            for length in range(1, longest + 1):
                weighted_row[length] += weights[a] * (row[0, length] + row[1, length])
                row[:, length] = 0
            longest_of_all = max(longest_of_all, int(longest))
        for length in range(1, longest_of_all + 1):
            if weighted_row[length] > 0.0:
                cell_grays[n_cells] = grays[level]
                cell_sizes[n_cells] = length
                cell_counts[n_cells] = weighted_row[length]
                weighted_row[length] = 0.0
                n_cells += 1
    return n_cells
