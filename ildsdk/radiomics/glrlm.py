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
from ildsdk.radiomics.level_order import OrderedImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import WeightingNorm
from ildsdk.radiomics.size_matrix import GLRLM_ORDER, size_features, size_matrices
from native_hash.jit import SCAN_FASTMATH, kernel

_RUN_ENTROPY = 8
_RUN_VARIANCE = 12


def glrlm_features(
    image: OrderedImage,
    weighting_norm: WeightingNorm | None,
    pixel_spacing_mm: tuple[float, float],
    scratch: RadiomicsScratch,
    out: npt.NDArray[np.float64],
) -> None:
    """Write the 16 features to ``out``, float64 ``(16,)``, NaN where no direction has runs."""
    n_places = image.levels.size
    # no run is longer than the longer side of the padded image
    longest = max(image.stride, n_places // image.stride)
    directions = half_directions((1,))
    if weighting_norm is None:
        n_matrices, weights = len(directions), [1.0] * len(directions)
    else:
        n_matrices, weights = (
            1,
            [distance_mm(d, pixel_spacing_mm, weighting_norm) for d in directions],
        )
    n_merged = len(directions) // n_matrices
    matrices = size_matrices("run", n_matrices, image.positions.size, scratch)
    _runs(
        image,
        np.array(directions),
        np.array(weights),
        scratch.take("run_lengths", n_places, np.uint16),
        scratch.take("run_ends", (n_merged, n_places), np.uint16),
        scratch.take("run_row", (2, longest + 1), np.int32),
        scratch.take("run_weighted_row", longest + 1, np.float64),
        matrices,
    )
    has_runs = size_features(matrices, longest, GLRLM_ORDER, scratch, out)
    if not has_runs and weighting_norm is not None:
        # pyradiomics answers 0 here, for sums without terms
        out[[_RUN_ENTROPY, _RUN_VARIANCE]] = 0.0


@kernel(SCAN_FASTMATH)
def _has_runs(image: Any, rows: Any, columns: Any, is_seen: Any) -> Any:
    """Whether any line along the direction holds two pixels of the region.

    Without, pyradiomics leaves the direction out. ``is_seen`` is scratch, longer than the
    rows and columns of the level image together.
    """
    ahead = image.levels[image.origin + rows * image.stride + columns :]
    for k in range(image.positions.size):
        if ahead[image.positions[k]] > 0:
            return True
    # no two pixels touch along the direction
    is_seen[:] = 0
    for k in range(image.positions.size):
        row, column = divmod(np.int64(image.positions[k]), image.stride)
        line = (row * columns - column * rows) % is_seen.size
        if is_seen[line] > 0:
            return True
        is_seen[line] = 1
    return False


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
        if step == 1:
            # a run goes on in the row itself: its length stays in a register
            n_so_far = np.uint16(0)
            for column in range(here.size):
                gray = here[column]
                n_so_far = np.uint16(n_so_far + 1) if gray == back[column] else np.uint16(1)
                end[column] = n_so_far if gray != ahead[column] else np.uint16(0)
            continue
        for column in range(here.size):
            gray = here[column]
            # read before it is known to be needed: a guarded read cannot go in parallel
            grown = length_back[column] + 1
            n = grown if gray == back[column] else 1
            length[column] = n
            end[column] = n if gray != ahead[column] else 0


@kernel(SCAN_FASTMATH)
def _cells(
    image: Any, ends: Any, weights: Any, row: Any, weighted_row: Any, matrices: Any, m: Any
) -> None:
    """Matrix ``m``: runs of the directions whose ``ends`` are given, times their weights.

    ``row`` and ``weighted_row`` are all zero on entry and on return.
    """
    n_cells = 0
    for level in range(image.grays.size):
        longest_of_all = 0
        for a in range(weights.size):
            end = ends[a, image.origin :]
            longest: Any = np.uint16(0)
            for k in range(np.uint32(image.starts[level]), np.uint32(image.starts[level + 1])):
                length = end[image.positions[k]]
                longest = max(longest, length)
                # most places end no run: they fall into entry 0, cheaper than a branch;
                # even and odd pixels apart, so that one addition need not wait for the last
                row[k & np.uint32(1), length] += 1
            row[:, 0] = 0
            for length in range(1, longest + 1):
                weighted_row[length] += weights[a] * (row[0, length] + row[1, length])
                row[:, length] = 0
            longest_of_all = max(longest_of_all, int(longest))
        for length in range(1, longest_of_all + 1):
            if weighted_row[length] > 0.0:
                matrices.grays[m, n_cells] = image.grays[level]
                matrices.sizes[m, n_cells] = length
                matrices.counts[m, n_cells] = weighted_row[length]
                weighted_row[length] = 0.0
                n_cells += 1
    matrices.n_cells[m] = n_cells


@kernel(SCAN_FASTMATH)
def _runs(
    image: Any,
    directions: Any,
    weights: Any,
    lengths: Any,
    ends: Any,
    row: Any,
    weighted_row: Any,
    matrices: Any,
) -> None:
    """Fill the run length matrices.

    ``directions`` ``(n_directions, 2)`` and ``weights``: the first ``ends.shape[0]`` of them make
    the first matrix, and so on. ``lengths`` and each row of ``ends`` have the places of the level
    image, ``row`` int32 ``(2, longest run + 1)`` and ``weighted_row`` float64 as long; all four
    are scratch.
    """
    n_merged = ends.shape[0]
    kept_weights = np.empty(n_merged)
    row[:] = 0
    weighted_row[:] = 0.0
    for m in range(matrices.n_cells.size):
        n_kept = 0
        for a in range(m * n_merged, (m + 1) * n_merged):
            rows, columns = directions[a]
            if _has_runs(image, rows, columns, lengths):
                step = rows * image.stride + columns
                _run_ends(image.levels, image.stride, step, lengths, ends[n_kept])
                kept_weights[n_kept] = weights[a]
                n_kept += 1
        # at once: the ends are still in the processor's cache
        _cells(image, ends, kept_weights[:n_kept], row, weighted_row, matrices, m)
