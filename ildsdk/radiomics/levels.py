"""Gray levels of a region: bins, the padded level image, and its pixels sorted by level.

Everything the texture kernels read is made here once per slice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.errors import SliceUnusableError
from ildsdk.radiomics.region import Region
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import RadiomicsSettings
from native_hash.jit import SCAN_FASTMATH, kernel

MAX_LEVELS = 65535


class LevelImage(NamedTuple):
    """Discretized region and its pixels sorted by gray level; kernels take it as it is.

    Attributes
    ----------
    levels : ndarray
        uint16, flattened ``(height + 2 pad, stride)``: 0 outside the region, else the gray
        level from 1, as pyradiomics numbers it. The border lets kernels read neighbors without
        asking where the image ends.
    stride : int
        Length of a padded row, ``width + 2 pad``.
    origin : int
        Place of the region's upper left corner in ``levels``, ``pad stride + pad``.
    positions : ndarray
        uint32 ``(n_pixels,)``: places of the region's pixels counted from ``origin``, by level,
        within a level in row order.
    starts : ndarray
        int32 ``(n_levels + 1,)``: where each level begins in ``positions``.
    grays : ndarray
        int32 ``(n_levels,)``, rising: the gray levels that occur.
    """

    levels: npt.NDArray[np.uint16]
    stride: int
    origin: int
    positions: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int32]
    grays: npt.NDArray[np.int32]


def bin_edges(region: Region, settings: RadiomicsSettings) -> npt.NDArray[np.float64]:
    """Rising edges of the gray levels; level ``k`` is ``[edge[k - 1], edge[k])``.

    Fixed width: edges at multiples of ``bin_width`` from the one at or below the minimum.
    Fixed count: ``bin_count`` equal parts of the range. Both as pyradiomics' getBinEdges,
    in the precision of the values.

    Raises
    ------
    SliceUnusableError
        ``roi-too-many-levels``.
    """
    if settings.bin_count is not None:
        n_expected: float = settings.bin_count
    else:
        n_expected = (region.maximum - region.minimum) / settings.bin_width
    if n_expected > MAX_LEVELS - 2:
        raise SliceUnusableError(
            "roi-too-many-levels",
            f"the region would have about {n_expected:.0f} gray levels, expected {MAX_LEVELS} at "
            "most: widen bin_width or lower bin_count",
        )
    if settings.bin_count is not None:
        edges = np.histogram_bin_edges(region.values, settings.bin_count)
        edges[-1] += 1
        return edges.astype(np.float64)
    width = float(settings.bin_width)
    minimum, maximum = map(region.values.dtype.type, (region.minimum, region.maximum))
    low = minimum - (minimum % width)
    return np.arange(low, maximum + 2 * width, width).astype(np.float64)


def level_image(
    region: Region, settings: RadiomicsSettings, scratch: RadiomicsScratch
) -> LevelImage:
    """Discretize a region.

    Raises
    ------
    SliceUnusableError
        ``roi-too-many-levels``.
    """
    edges = bin_edges(region, settings)
    pad = max(settings.distances)
    height, width = region.mask.shape
    stride = width + 2 * pad
    n_bins = edges.size
    levels = scratch.take("levels", (height + 2 * pad) * stride, np.uint16)
    positions = scratch.take("positions", region.values.size, np.uint32)
    cursors = scratch.take("level_cursors", n_bins + 1, np.int32)
    starts = scratch.take("level_starts", n_bins + 2, np.int32)
    grays = scratch.take("grays", n_bins + 1, np.int32)
    n_levels = _fill(
        region.pixels, region.mask, edges, pad, levels, positions, cursors, starts, grays
    )
    return LevelImage(
        levels=levels,
        stride=stride,
        origin=pad * stride + pad,
        positions=positions,
        starts=starts[: n_levels + 1],
        grays=grays[:n_levels],
    )


@kernel(SCAN_FASTMATH)
def _fill(
    pixels: Any,
    mask: Any,
    edges: Any,
    pad: Any,
    levels: Any,
    positions: Any,
    cursors: Any,
    starts: Any,
    grays: Any,
) -> int:
    """Level image and level-sorted positions; returns the number of levels that occur.

    ``pixels`` and ``mask`` are ``(height, width)``; ``cursors`` has ``edges.size + 1``
    entries, ``starts`` one more. Preconditions: pixels in the mask are finite and at or
    above ``edges[0]``.
    """
    height, width = mask.shape
    stride = width + 2 * pad
    n_edges = edges.size
    low = edges[0]
    inverse_width = 0.0
    if n_edges > 1 and edges[1] > low:
        inverse_width = 1.0 / (edges[1] - low)
    levels[:] = 0
    cursors[:] = 0
    for row in range(height):
        base = (row + pad) * stride + pad
        out = levels[base : base + width]
        row_mask = mask[row]
        row_pixels = pixels[row]
        for column in range(width):
            if row_mask[column]:
                value = np.float64(row_pixels[column])
                # a guess from the first width, then the edges decide
                guess = min(max(int((value - low) * inverse_width) + 1, 1), n_edges)
                place = np.uint32(guess)  # numba asks of a signed place if it counts from the end
                while place < n_edges and value >= edges[place]:
                    place += np.uint32(1)
                while place > 1 and value < edges[place - np.uint32(1)]:
                    place -= np.uint32(1)
                out[column] = place
                cursors[place] += 1
    n_levels = 0
    total = 0
    for level in range(1, n_edges + 1):
        n_here = cursors[level]
        if n_here > 0:
            grays[n_levels] = level
            starts[n_levels] = total
            cursors[level] = total
            total += n_here
            n_levels += 1
    starts[n_levels] = total
    for row in range(height):
        base = (row + pad) * stride + pad
        row_levels = levels[base : base + width]
        first = np.uint32(row * stride)
        for column in range(width):
            level = row_levels[column]
            if level > 0:
                cursor = np.uint32(cursors[level])
                cursors[level] = cursor + 1
                positions[cursor] = first + column
    return n_levels
