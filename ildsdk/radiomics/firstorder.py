"""First-order features (18): the distribution of the values in the region.

Definitions: pyradiomics, ``firstorder``; percentiles interpolate linearly between order
statistics, as numpy's default.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.levels import Distribution, LevelImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from native_hash.jit import SCAN_FASTMATH, kernel

_N_BINS = 4096


def firstorder_features(
    distribution: Distribution,
    image: LevelImage,
    pixel_spacing_mm: tuple[float, float],
    voxel_array_shift: float,
    scratch: RadiomicsScratch,
    out: npt.NDArray[np.float64],
) -> None:
    """Write the 18 features of a region to ``out``, float64 ``(18,)``, in order of names."""
    # as numpy rounds them; the compiler would fuse the product with what follows
    last = image.n_pixels - 1
    places = np.array([last * 0.1, last * 0.25, last * 0.5, last * 0.75, last * 0.9])
    n_counts = distribution.counts.size
    n_kept = 0 if n_counts else distribution.values.size + 1
    _firstorder(
        distribution.values,
        distribution.counts,
        distribution.minimum,
        distribution.maximum,
        image.starts,
        places,
        pixel_spacing_mm[0] * pixel_spacing_mm[1],
        float(voxel_array_shift),
        scratch.take("value_bins", n_counts or _N_BINS, np.int64),
        scratch.take("kept_values", n_kept, np.float64),
        out,
    )


@kernel(SCAN_FASTMATH)
def _select(values: Any, n: Any, rank: Any) -> Any:
    """Value of rank ``rank`` in the first ``n``, which are reordered."""
    left = 0
    right = n - 1
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
def _order_statistics(
    values: Any, low: Any, high: Any, ranks: Any, counts: Any, kept: Any, found: Any
) -> None:
    """Values of the given ranks, rising, in unsorted ``values`` from ``low`` to ``high``.

    Counted in narrow bins first; only what shares a bin with a wanted value is looked at again.
    int64 ``counts`` and ``kept`` ``(n,)`` are scratch.
    """
    last = counts.size - 1
    scale = last / (high - low) if high > low else 0.0
    counts[:] = 0
    for i in range(values.size):
        counts[np.uint32(min(int((values[i] - low) * scale), last))] += 1
    below = 0
    skipped = 0
    r = 0
    for at in range(counts.size):
        n_here = counts[at]
        counts[at] = 0
        is_wanted = False
        while r < ranks.size and ranks[r] < below + n_here:
            found[r] = skipped  # for now: how many below are not kept
            is_wanted = True
            r += 1
        below += n_here
        skipped += 0 if is_wanted else n_here
        counts[at] = 1 if is_wanted else 0
    n_kept = np.uint64(0)
    for i in range(values.size):
        # written in any case, kept where wanted: cheaper than a branch
        kept[n_kept] = values[i]
        n_kept += np.uint64(counts[np.uint32(min(int((values[i] - low) * scale), last))])
    for r in range(ranks.size):
        found[r] = _select(kept, np.int64(n_kept), ranks[r] - np.int64(found[r]))


@kernel(SCAN_FASTMATH)
def _firstorder(
    values: Any,
    counts: Any,
    low: Any,
    high: Any,
    starts: Any,
    places: Any,
    pixel_area: Any,
    shift: Any,
    bins: Any,
    kept: Any,
    out: Any,
) -> None:
    """Write all 18 features.

    ``values`` and ``counts`` as in ``Distribution``, from ``low`` to ``high``; ``places`` of the
    percentiles 10, 25, 50, 75 and 90 among the order statistics; ``bins`` int64, as long as the
    counts, is scratch, and so is float64 ``kept``, one longer than the values.
    """
    n_pixels = np.int64(starts[starts.size - 1])
    is_counted = counts.size > 0
    ranks = np.empty(2 * places.size, dtype=np.int64)
    found = np.empty(ranks.size)
    for p in range(places.size):
        ranks[2 * p] = np.int64(np.floor(places[p]))
        ranks[2 * p + 1] = min(ranks[2 * p] + 1, n_pixels - 1)
    if is_counted:
        so_far = 0
        for i in range(counts.size):
            so_far += counts[i]
            bins[i] = so_far
        for r in range(ranks.size):
            found[r] = values[np.searchsorted(bins, ranks[r], side="right")]
    else:
        _order_statistics(values, low, high, ranks, bins, kept, found)
    percentiles = np.empty(places.size)
    for p in range(places.size):
        # numpy's linear rule
        fraction = places[p] - ranks[2 * p]
        step = found[2 * p + 1] - found[2 * p]
        if fraction >= 0.5:
            percentiles[p] = found[2 * p + 1] - step * (1.0 - fraction)
        else:
            percentiles[p] = found[2 * p] + step * fraction
    tenth, ninetieth = percentiles[0], percentiles[4]
    total = 0.0
    energy = 0.0
    for i in range(values.size):
        value = values[i]
        count = np.float64(counts[i]) if is_counted else 1.0
        total += count * value
        energy += count * ((value + shift) * (value + shift))
    mean = total / n_pixels
    if low == high:
        # the mean of equal numbers is that number, whatever rounding says
        mean = low
    second = 0.0
    third = 0.0
    fourth = 0.0
    deviation = 0.0
    for i in range(values.size):
        count = np.float64(counts[i]) if is_counted else 1.0
        offset = values[i] - mean
        square = offset * offset
        second += count * square
        third += count * (square * offset)
        fourth += count * (square * square)
        deviation += count * abs(offset)
    second /= n_pixels
    third /= n_pixels
    fourth /= n_pixels
    n_kept = 0.0
    kept_total = 0.0
    for i in range(values.size):
        value = values[i]
        count = np.float64(counts[i]) if is_counted else 1.0
        share = count if (value >= tenth) & (value <= ninetieth) else 0.0
        n_kept += share
        kept_total += share * value
    robust = np.nan
    if n_kept > 0:
        kept_mean = kept_total / n_kept
        robust = 0.0
        for i in range(values.size):
            value = values[i]
            count = np.float64(counts[i]) if is_counted else 1.0
            share = count if (value >= tenth) & (value <= ninetieth) else 0.0
            robust += share * abs(value - kept_mean)
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
    out[4] = percentiles[3] - percentiles[1]
    out[5] = fourth / (second * second) if second != 0.0 else 0.0
    out[6] = high
    out[7] = deviation / n_pixels
    out[8] = mean
    out[9] = percentiles[2]  # the mean of the two middle values where their number is even
    out[10] = low
    out[11] = high - low
    out[12] = robust
    out[13] = np.sqrt(energy / n_pixels)
    out[14] = third / (second * np.sqrt(second)) if second != 0.0 else 0.0
    out[15] = energy * pixel_area
    out[16] = uniformity
    out[17] = second
