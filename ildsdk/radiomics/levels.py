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
    """Discretized region; kernels take it as it is.

    Attributes
    ----------
    levels : ndarray
        uint8 where that is wide enough, else uint16, flattened ``(height + 2 pad, stride)``: 0
        outside the region, else the gray level from 1, as pyradiomics numbers it. The border lets
        kernels read neighbors without asking where the image ends.
    stride : int
        Length of a padded row, ``width + 2 pad``.
    origin : int
        Place of the region's upper left corner in ``levels``, ``pad stride + pad``.
    spans : ndarray
        int32 ``(n_spans, 2)``, in row order: first place and the one after the last of each
        stretch of a row that belongs to the region.
    starts : ndarray
        int32 ``(n_levels + 1,)``: how many pixels lie in the levels below each.
    grays : ndarray
        int32 ``(n_levels,)``, rising: the gray levels that occur.
    """

    levels: npt.NDArray[np.unsignedinteger]
    stride: int
    origin: int
    spans: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    grays: npt.NDArray[np.int32]

    @property
    def n_pixels(self) -> int:
        """Pixels of the region."""
        return int(self.starts[-1])


class Distribution(NamedTuple):
    """Values of a region, with their frequencies or as they stand.

    Attributes
    ----------
    values : ndarray
        float64. Rising, where they are counted; else the value of each pixel.
    counts : ndarray
        int32: how many pixels have each value, may be 0. Empty: the values are not counted.
    minimum, maximum : float
        Of the pixels.
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int32]
    minimum: float
    maximum: float


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
        ends = np.array([region.minimum, region.maximum], dtype=region.values.dtype)
        edges = np.histogram_bin_edges(ends, settings.bin_count)
        edges[-1] += 1
        return edges.astype(np.float64)
    width = float(settings.bin_width)
    minimum, maximum = map(region.values.dtype.type, (region.minimum, region.maximum))
    low = minimum - (minimum % width)
    return np.arange(low, maximum + 2 * width, width).astype(np.float64)


def level_image(
    region: Region, settings: RadiomicsSettings, scratch: RadiomicsScratch
) -> tuple[LevelImage, Distribution]:
    """Discretize a region, and count its values.

    Raises
    ------
    SliceUnusableError
        ``roi-too-many-levels``.
    """
    edges = bin_edges(region, settings)
    pad = max(settings.distances)
    _, _, height, width = region.box
    stride = width + 2 * pad
    n_bins = edges.size
    n_pixels = region.values.size
    kind, name = (np.uint8, "levels_8") if n_bins <= 255 else (np.uint16, "levels_16")
    levels = scratch.take(name, (height + 2 * pad) * stride, kind)
    spans = scratch.take("spans", (n_pixels, 2), np.int32)
    counts = scratch.take("level_counts", n_bins + 1, np.int32)
    starts = scratch.take("level_starts", n_bins + 1, np.int32)
    grays = scratch.take("grays", n_bins, np.int32)
    lowest = int(region.minimum) if region.is_whole else 0
    n_whole = int(region.maximum) - lowest + 1 if region.is_whole else 0
    value_counts = scratch.take("value_counts", n_whole, np.int32)
    n_spans, n_levels = _fill(
        region.pixels,
        region.mask,
        region.box,
        edges,
        lowest,
        pad,
        scratch.take("mask_row", (width // 8 + 1) * 8, np.uint8),
        scratch.take(f"level_of_{kind.__name__}", n_whole, kind),
        levels,
        spans,
        value_counts,
        counts,
        starts,
        grays,
    )
    image = LevelImage(
        levels=levels,
        stride=stride,
        origin=pad * stride + pad,
        spans=spans[:n_spans],
        starts=starts[: n_levels + 1],
        grays=grays[:n_levels],
    )
    values = region.values
    if region.is_whole:
        values = np.arange(lowest, lowest + n_whole, dtype=np.float64)
    distribution = Distribution(
        values.astype(np.float64, copy=False), value_counts, region.minimum, region.maximum
    )
    return image, distribution


@kernel(SCAN_FASTMATH)
def _find_spans(row_mask: Any, base: Any, spans: Any, n_spans: Any) -> Any:
    """Append the stretches of a row's mask, places counted from ``base``; their new number.

    ``row_mask`` uint8, a multiple of 8 long, ends with 0.
    """
    words = row_mask.view(np.uint64)
    same = np.uint64(0)  # eight pixels like the one before
    for k in range(words.size):
        if words[k] == same:
            continue
        for column in range(8 * k, 8 * k + 8):
            if (row_mask[column] != 0) != (same != 0):
                if same == 0:
                    spans[n_spans, 0] = base + column
                    same = np.uint64(0x0101010101010101)
                else:
                    spans[n_spans, 1] = base + column
                    n_spans += 1
                    same = np.uint64(0)
    return n_spans


@kernel(SCAN_FASTMATH)
def _fill(
    pixels: Any,
    mask: Any,
    box: Any,
    edges: Any,
    lowest: Any,
    pad: Any,
    row_mask: Any,
    level_of: Any,
    levels: Any,
    spans: Any,
    value_counts: Any,
    counts: Any,
    starts: Any,
    grays: Any,
) -> Any:
    """Level image, spans and counts of levels; returns the number of spans and of levels.

    Whole numbers from ``lowest``: as many as ``value_counts`` is long, which gets how often each
    occurs; 0 long: any numbers. ``row_mask`` uint8, a multiple of 8 longer than the box is wide,
    and ``level_of``, like ``levels`` and as long as ``value_counts``, are scratch. Preconditions:
    pixels in the mask are finite and at or above ``edges[0]``.
    """
    first_row, first_column, height, width = box
    stride = width + 2 * pad
    n_edges = edges.size
    n_whole = value_counts.size
    low = edges[0]
    inverse_width = 0.0
    if n_edges > 1 and edges[1] > low:
        inverse_width = 1.0 / (edges[1] - low)
    place = np.uint32(1)
    for k in range(n_whole):
        while place < n_edges and lowest + k >= edges[place]:
            place += np.uint32(1)
        level_of[k] = place
        value_counts[k] = 0
    counts[:] = 0
    levels[:] = 0
    row_mask[:] = 0
    n_spans = 0
    for row in range(height):
        pixels_in = mask[first_row + row, first_column : first_column + width].view(np.uint8)
        for column in range(width):
            row_mask[column] = pixels_in[column]
        base = (row + pad) * stride + pad
        first = n_spans
        n_spans = _find_spans(row_mask, base, spans, n_spans)
        row_pixels = pixels[first_row + row, first_column : first_column + width]
        out = levels[base : base + width]
        for s in range(first, n_spans):
            begin, end = np.uint64(spans[s, 0] - base), np.uint64(spans[s, 1] - base)
            if n_whole > 0:
                for column in range(begin, end):
                    number = np.uint32(np.int32(row_pixels[column]) - lowest)
                    out[column] = level_of[number]
                    value_counts[number] += 1
                continue
            for column in range(begin, end):
                value = np.float64(row_pixels[column])
                # a guess from the first width, then the edges decide
                guess = min(max(int((value - low) * inverse_width) + 1, 1), n_edges)
                place = np.uint32(guess)  # numba asks of a signed place if it is from the end
                while place < n_edges and value >= edges[place]:
                    place += np.uint32(1)
                while place > 1 and value < edges[place - np.uint32(1)]:
                    place -= np.uint32(1)
                out[column] = place
                counts[place] += 1
    for k in range(n_whole):
        counts[np.uint32(level_of[k])] += value_counts[k]
    n_levels = 0
    total = 0
    for level in range(1, n_edges + 1):
        if counts[level] > 0:
            grays[n_levels] = level
            starts[n_levels] = total
            total += counts[level]
            n_levels += 1
    starts[n_levels] = total
    return n_spans, n_levels
