"""First-order features (18): the distribution of the values in the region.

Definitions: pyradiomics, ``firstorder``; percentiles interpolate linearly between order
statistics, as numpy's default.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.levels import LevelImage
from ildsdk.radiomics.region import Region
from ildsdk.radiomics.scratch import RadiomicsScratch
from native_hash.jit import SCAN_FASTMATH, kernel


def firstorder_features(
    region: Region,
    image: LevelImage,
    voxel_array_shift: float,
    scratch: RadiomicsScratch,
    out: npt.NDArray[np.float64],
) -> None:
    """Write the 18 features of a region to ``out``, float64 ``(18,)``, in order of names."""
    n_pixels = region.values.size
    # as numpy rounds them; the compiler would fuse the product with what follows
    last = n_pixels - 1
    places = (last * 0.1, last * 0.25, last * 0.75, last * 0.9)
    _firstorder(
        region.values,
        region.pixels,
        image.stride,
        image.positions,
        image.starts,
        places,
        region.pixel_spacing_mm[0] * region.pixel_spacing_mm[1],
        float(voxel_array_shift),
        scratch.take("one_level", n_pixels, np.float64),
        out,
    )


@kernel(SCAN_FASTMATH)
def _select(values: Any, first: Any, stop: Any, rank: Any) -> Any:
    """Value of rank ``rank`` (from ``first``) in ``values[first:stop]``, which is reordered."""
    left = first
    right = stop - 1
    while left < right:
        middle = values[(left + right) >> 1]
        i = left
        j = right
        while i <= j:
            while values[i] < middle:
                i += 1
            while values[j] > middle:
                j -= 1
            if i <= j:
                swap = values[i]
                values[i] = values[j]
                values[j] = swap
                i += 1
                j -= 1
        if rank <= j:
            right = j
        elif rank >= i:
            left = i
        else:
            break
    return values[rank]


@kernel(SCAN_FASTMATH)
def _gather(
    pixels: Any, stride: Any, positions: Any, starts: Any, level: Any, one_level: Any
) -> Any:
    """Copy the values of one level; returns their number."""
    first = starts[level]
    n_here = starts[level + 1] - first
    row = np.int64(positions[first]) // stride
    row_start = row * stride
    for k in range(n_here):
        position = np.int64(positions[first + k])
        while position >= row_start + stride:  # positions rise within a level
            row_start += stride
            row += 1
        one_level[k] = pixels[row, position - row_start]
    return n_here


@kernel(SCAN_FASTMATH)
def _percentile(
    pixels: Any, stride: Any, positions: Any, starts: Any, one_level: Any, place: Any
) -> Any:
    """Value at a place (from 0) between order statistics, by numpy's linear rule.

    Levels rise, so one of them holds the order statistic, and the next one holds the
    next where that was the level's last.
    """
    rank = int(np.floor(place))
    fraction = place - rank
    level = np.searchsorted(starts, rank, side="right") - 1
    n_here = _gather(pixels, stride, positions, starts, level, one_level)
    rank -= starts[level]
    low = _select(one_level, 0, n_here, rank)
    if fraction == 0.0:
        return low
    first = rank + 1
    if first == n_here:
        n_here = _gather(pixels, stride, positions, starts, level + 1, one_level)
        first = 0
    high = one_level[first]
    for k in range(first, n_here):
        high = min(high, one_level[k])
    step = high - low
    if fraction >= 0.5:
        return high - step * (1.0 - fraction)
    return low + step * fraction


@kernel(SCAN_FASTMATH)
def _firstorder(
    values: Any,
    pixels: Any,
    stride: Any,
    positions: Any,
    starts: Any,
    places: Any,
    pixel_area: Any,
    shift: Any,
    one_level: Any,
    out: Any,
) -> None:
    """Write all 18 features.

    ``values`` ``(n_pixels,)`` in any order; ``places`` of the percentiles 10, 25, 75 and 90 among
    the order statistics; ``one_level`` float64 scratch of ``n_pixels``.
    """
    n_pixels = values.size
    minimum = np.float64(values[0])
    maximum = minimum
    total = 0.0
    energy = 0.0
    for i in range(n_pixels):
        value = np.float64(values[i])
        minimum = min(minimum, value)
        maximum = max(maximum, value)
        total += value
        energy += (value + shift) * (value + shift)
    mean = total / n_pixels
    if minimum == maximum:
        # the mean of equal numbers is that number, whatever rounding says
        mean = minimum
    second = 0.0
    third = 0.0
    fourth = 0.0
    deviation = 0.0
    for i in range(n_pixels):
        offset = np.float64(values[i]) - mean
        square = offset * offset
        second += square
        third += square * offset
        fourth += square * square
        deviation += abs(offset)
    second /= n_pixels
    third /= n_pixels
    fourth /= n_pixels
    tenth = _percentile(pixels, stride, positions, starts, one_level, places[0])
    quarter = _percentile(pixels, stride, positions, starts, one_level, places[1])
    three_quarters = _percentile(pixels, stride, positions, starts, one_level, places[2])
    ninetieth = _percentile(pixels, stride, positions, starts, one_level, places[3])
    # the mean of the two middle values where their number is even
    median = _percentile(pixels, stride, positions, starts, one_level, (n_pixels - 1) * 0.5)
    n_kept = 0
    kept_total = 0.0
    for i in range(n_pixels):
        value = np.float64(values[i])
        is_kept = (value >= tenth) & (value <= ninetieth)
        n_kept += 1 if is_kept else 0
        kept_total += value if is_kept else 0.0
    robust = np.nan
    if n_kept > 0:
        kept_mean = kept_total / n_kept
        robust = 0.0
        for i in range(n_pixels):
            value = np.float64(values[i])
            is_kept = (value >= tenth) & (value <= ninetieth)
            robust += abs(value - kept_mean) if is_kept else 0.0
        robust /= n_kept
    entropy = 0.0
    uniformity = 0.0
    for level in range(starts.size - 1):
        share = (starts[level + 1] - starts[level]) / n_pixels
        entropy -= share * np.log2(share + 2.220446049250313e-16)
        uniformity += share * share
    out[0] = tenth
    out[1] = ninetieth
    out[2] = energy
    out[3] = entropy
    out[4] = three_quarters - quarter
    out[5] = fourth / (second * second) if second != 0.0 else 0.0
    out[6] = maximum
    out[7] = deviation / n_pixels
    out[8] = mean
    out[9] = median
    out[10] = minimum
    out[11] = maximum - minimum
    out[12] = robust
    out[13] = np.sqrt(energy / n_pixels)
    out[14] = third / (second * np.sqrt(second)) if second != 0.0 else 0.0
    out[15] = energy * pixel_area
    out[16] = uniformity
    out[17] = second
