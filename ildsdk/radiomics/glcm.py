"""Gray level co-occurrence features (24).

Definitions: pyradiomics, ``glcm``: features of each direction, then their mean; or one
matrix of all directions, weighted by distance, where a weighting norm is set. Matrices are
kept as rows of cells that are not zero, so that cost and memory follow the number of pixels
and not the square of the number of gray levels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.directions import distance_mm, half_directions
from ildsdk.radiomics.levels import LevelImage
from ildsdk.radiomics.maximal_correlation import maximal_correlation
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import RadiomicsSettings
from native_hash.jit import SCAN_FASTMATH, kernel

_N_FEATURES = 24
_INVERSE_VARIANCE = 15
_MCC = 19
_EPSILON = 2.220446049250313e-16
_LN2 = 0.6931471805599453
_SMALL_PRODUCT = 1e-13


def glcm_features(
    image: LevelImage,
    settings: RadiomicsSettings,
    pixel_spacing_mm: tuple[float, float],
    scratch: RadiomicsScratch,
    out: npt.NDArray[np.float64],
) -> None:
    """Write the 24 features to ``out``, float64 ``(24,)``, NaN where no pixel has a neighbor."""
    n_levels = image.grays.size
    n_pixels = image.positions.size
    n_grays = int(image.grays[-1])
    steps, weights, groups = _groups(image, settings, pixel_spacing_mm)
    n_steps = steps.size
    n_counted_at_most = min(n_levels * n_levels, n_pixels)
    shape = (n_steps, n_counted_at_most)
    counted_columns = scratch.take("pair_counted_columns", math.prod(shape), np.int32)
    counted = scratch.take("pair_counted", math.prod(shape), np.int32)
    counted_starts = scratch.take("pair_counted_starts", n_steps * (n_levels + 1), np.int64)
    counted_columns, counted = counted_columns.reshape(shape), counted.reshape(shape)
    counted_starts = counted_starts.reshape(n_steps, n_levels + 1)
    step_row = scratch.take("pair_step_row", n_grays + 1, np.int32)
    touched = scratch.take("pair_touched", n_grays + 2, np.int32)
    index_of = scratch.take("pair_index_of", n_grays + 1, np.int32)
    step_row[:] = 0
    _count_pairs(
        image.levels,
        image.origin,
        image.positions,
        image.starts,
        image.grays,
        steps,
        step_row,
        touched,
        index_of,
        counted_columns,
        counted,
        counted_starts,
    )
    n_merged = max((group.stop - group.start for group in groups), default=1)
    n_cells_at_most = min(n_levels * n_levels, 2 * n_pixels * n_merged)
    columns = scratch.take("pair_columns", n_cells_at_most, np.int32)
    shares = scratch.take("pair_shares", n_cells_at_most, np.float64)
    row_starts = scratch.take("pair_row_starts", n_levels + 1, np.int64)
    row = scratch.take("pair_row", n_levels, np.float64)
    turned_columns = scratch.take("pair_turned_columns", n_counted_at_most * n_merged, np.int32)
    turned = scratch.take("pair_turned", n_counted_at_most * n_merged, np.int32)
    turned_starts = scratch.take("pair_turned_starts", n_merged * (n_levels + 2), np.int64)
    row_sums = scratch.take("row_sums", n_levels, np.float64)
    column_sums = scratch.take("column_sums", n_levels, np.float64)
    sum_shares = scratch.take("sum_shares", 2 * n_grays + 1, np.float64)
    difference_shares = scratch.take("difference_shares", n_grays, np.float64)
    row[:] = 0.0
    found: list[npt.NDArray[np.float64]] = []
    for group in groups:
        total = _merge(
            counted_columns[group],
            counted[group],
            counted_starts[group],
            weights[group],
            settings.symmetrical_glcm,
            turned_columns.reshape(n_merged, n_counted_at_most),
            turned.reshape(n_merged, n_counted_at_most),
            turned_starts.reshape(n_merged, n_levels + 2),
            row,
            touched,
            columns,
            shares,
            row_starts,
        )
        if not total > 0.0:
            continue
        features = np.empty(_N_FEATURES)
        _glcm(
            image.grays,
            row_starts,
            columns,
            shares,
            total,
            row_sums,
            column_sums,
            sum_shares,
            difference_shares,
            features,
        )
        features[_MCC] = maximal_correlation(
            row_starts, columns, shares, row_sums, column_sums, scratch
        )
        found.append(features)
    out[:] = np.mean(found, axis=0) if found else np.nan
    if not found and n_levels == 1:
        # No pixel has a neighbor, and there is one gray level. pyradiomics: several matrices,
        # MCC is 1; one matrix, InverseVariance is 0 (a sum without terms).
        if settings.weighting_norm is None and len(groups) > 1:
            out[_MCC] = 1.0
        elif groups:
            out[_INVERSE_VARIANCE] = 0.0


def _groups(
    image: LevelImage, settings: RadiomicsSettings, pixel_spacing_mm: tuple[float, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], list[slice]]:
    """Steps in the level image, their weights, and which of them share one matrix."""
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
    weights = np.ones(steps.size)
    if norm is None or not directions:
        return steps, weights, [slice(a, a + 1) for a in range(steps.size)]
    if norm != "no_weighting":
        lengths = np.array([distance_mm(d, pixel_spacing_mm, norm) for d in directions])
        weights = np.exp(-(lengths**2))
    # neighbors far away in mm may have no weight at all in double precision
    kept = weights > 0.0
    return steps[kept], weights[kept], [slice(0, int(kept.sum()))]


@kernel(SCAN_FASTMATH)
def _count_pairs(
    levels: Any,
    origin: Any,
    positions: Any,
    starts: Any,
    grays: Any,
    steps: Any,
    row: Any,
    touched: Any,
    index_of: Any,
    columns: Any,
    counts: Any,
    row_starts: Any,
) -> None:
    """For each step, count pairs of a pixel and the neighbor one step ahead.

    Step ``a`` and level ``i`` have the cells ``columns[a, row_starts[a, i]:row_starts[a, i +
    1]]`` (level indices) with their ``counts``. ``row`` int32 ``(n_grays + 1,)`` is all zero
    on entry and on return; ``touched`` (one longer) and ``index_of`` are scratch.
    """
    for level in range(grays.size):
        index_of[grays[level]] = level
    for a in range(steps.size):
        ahead = levels[origin + steps[a] :]
        n_cells = 0
        for level in range(grays.size):
            row_starts[a, level] = n_cells
            n_touched = 0
            for k in range(starts[level], starts[level + 1]):
                # outside the region is gray level 0: counted like any, dropped below
                other = ahead[positions[k]]
                n_so_far = row[other]
                touched[n_touched] = other
                n_touched += 1 if n_so_far == 0 else 0
                row[other] = n_so_far + 1
            for t in range(n_touched):
                other = touched[t]
                if other > 0:
                    columns[a, n_cells] = index_of[other]
                    counts[a, n_cells] = row[other]
                    n_cells += 1
                row[other] = 0
        row_starts[a, grays.size] = n_cells


@kernel(SCAN_FASTMATH)
def _turn(
    columns: Any, counts: Any, row_starts: Any, to_columns: Any, to: Any, cursors: Any
) -> None:
    """Transpose: cell (i, j) becomes (j, i).

    Row ``j`` of the result is ``cursors[j]:cursors[j + 1]``; ``cursors`` has ``n_levels + 2``.
    """
    n_levels = row_starts.size - 1
    cursors[:] = 0
    for cell in range(row_starts[n_levels]):
        cursors[columns[cell] + 2] += 1
    for level in range(n_levels):
        cursors[level + 2] += cursors[level + 1]
    for level in range(n_levels):
        for cell in range(row_starts[level], row_starts[level + 1]):
            place = cursors[columns[cell] + 1]
            cursors[columns[cell] + 1] = place + 1
            to_columns[place] = level
            to[place] = counts[cell]


@kernel(SCAN_FASTMATH)
def _merge(
    counted_columns: Any,
    counted: Any,
    counted_starts: Any,
    weights: Any,
    is_symmetrical: Any,
    turned_columns: Any,
    turned: Any,
    turned_starts: Any,
    row: Any,
    touched: Any,
    columns: Any,
    counts: Any,
    row_starts: Any,
) -> float:
    """Weighted sum of the counts of several steps (and of their transposes); returns its total.

    Row ``i`` of the result is ``row_starts[i]:row_starts[i + 1]``. ``row`` float64
    ``(n_levels,)`` is all zero on entry and on return.
    """
    n_steps = weights.size
    n_levels = row.size
    if is_symmetrical:
        for a in range(n_steps):
            _turn(
                counted_columns[a],
                counted[a],
                counted_starts[a],
                turned_columns[a],
                turned[a],
                turned_starts[a],
            )
    n_cells = 0
    total = 0.0
    for level in range(n_levels):
        row_starts[level] = n_cells
        n_touched = 0
        for a in range(n_steps):
            weight = weights[a]
            for cell in range(counted_starts[a, level], counted_starts[a, level + 1]):
                other = counted_columns[a, cell]
                if row[other] == 0.0:
                    touched[n_touched] = other
                    n_touched += 1
                row[other] += weight * counted[a, cell]
            if is_symmetrical:
                for cell in range(turned_starts[a, level], turned_starts[a, level + 1]):
                    other = turned_columns[a, cell]
                    if row[other] == 0.0:
                        touched[n_touched] = other
                        n_touched += 1
                    row[other] += weight * turned[a, cell]
        for t in range(n_touched):
            other = touched[t]
            columns[n_cells] = other
            counts[n_cells] = row[other]
            total += row[other]
            row[other] = 0.0
            n_cells += 1
    row_starts[n_levels] = n_cells
    return total


@kernel(SCAN_FASTMATH)
def _glcm(
    grays: Any,
    row_starts: Any,
    columns: Any,
    shares: Any,
    total: Any,
    row_sums: Any,
    column_sums: Any,
    sum_shares: Any,
    difference_shares: Any,
    out: Any,
) -> None:
    """All features of one matrix but MCC; counts in ``shares`` become shares of ``total``.

    ``row_sums`` and ``column_sums`` (``(n_levels,)``) are left for MCC. ``sum_shares``
    ``(2 n_grays + 1,)`` and ``difference_shares`` ``(n_grays,)`` are scratch.
    """
    n_levels = grays.size
    n_grays = grays[n_levels - 1]
    row_sums[:] = 0.0
    column_sums[:] = 0.0
    sum_shares[:] = 0.0
    difference_shares[:] = 0.0
    energy = 0.0
    entropy = 0.0
    largest = 0.0
    autocorrelation = 0.0
    for i in range(n_levels):
        row_sum = 0.0
        for cell in range(row_starts[i], row_starts[i + 1]):
            j = columns[cell]
            share = shares[cell] / total
            shares[cell] = share
            row_sum += share
            column_sums[j] += share
            sum_shares[grays[i] + grays[j]] += share
            difference_shares[abs(grays[i] - grays[j])] += share
            energy += share * share
            entropy -= share * np.log2(share + _EPSILON)
            largest = max(largest, share)
            autocorrelation += share * np.float64(grays[i]) * np.float64(grays[j])
        row_sums[i] = row_sum
    row_mean = 0.0
    column_mean = 0.0
    row_entropy = 0.0
    column_entropy = 0.0
    row_plain = 0.0
    column_plain = 0.0
    n_rows_used = 0
    n_columns_used = 0
    for i in range(n_levels):
        row_mean += row_sums[i] * grays[i]
        column_mean += column_sums[i] * grays[i]
        row_entropy -= row_sums[i] * np.log2(row_sums[i] + _EPSILON)
        column_entropy -= column_sums[i] * np.log2(column_sums[i] + _EPSILON)
        if row_sums[i] > 0.0:
            n_rows_used += 1
            row_plain -= row_sums[i] * np.log2(row_sums[i])
        if column_sums[i] > 0.0:
            n_columns_used += 1
            column_plain -= column_sums[i] * np.log2(column_sums[i])
    row_variance = 0.0
    column_variance = 0.0
    covariance = 0.0
    over_margins = 0.0
    smallest = 1.0
    for i in range(n_levels):
        y = grays[i] - row_mean
        row_variance += row_sums[i] * y * y
        x = grays[i] - column_mean
        column_variance += column_sums[i] * x * x
        for cell in range(row_starts[i], row_starts[i + 1]):
            j = columns[cell]
            covariance += shares[cell] * y * (grays[j] - column_mean)
            over_margins += shares[cell] / (row_sums[i] * column_sums[j])
            smallest = min(smallest, row_sums[i] * column_sums[j])
    # log2(a b + eps) = log2 a + log2 b + eps / (a b ln 2), exact to double precision unless
    # weights differ widely: the double sum over all levels that HXY2 is made of takes no loop
    half_bit = _EPSILON / _LN2
    entropy_1 = row_plain + column_plain - half_bit * over_margins
    entropy_2 = row_plain + column_plain - half_bit * (n_rows_used * n_columns_used)
    if smallest < _SMALL_PRODUCT:
        entropy_1 = 0.0
        entropy_2 = 0.0
        for i in range(n_levels):
            for cell in range(row_starts[i], row_starts[i + 1]):
                margins = row_sums[i] * column_sums[columns[cell]]
                entropy_1 -= shares[cell] * np.log2(margins + _EPSILON)
            for j in range(n_levels):
                margins = row_sums[i] * column_sums[j]
                entropy_2 -= margins * np.log2(margins + _EPSILON)
    center = row_mean + column_mean
    tendency = 0.0
    shade = 0.0
    prominence = 0.0
    sum_average = 0.0
    sum_entropy = 0.0
    for k in range(2, 2 * n_grays + 1):
        share = sum_shares[k]
        if share > 0.0:
            offset = k - center
            tendency += share * offset * offset
            shade += share * offset * offset * offset
            prominence += share * offset * offset * offset * offset
            sum_average += share * k
            sum_entropy -= share * np.log2(share + _EPSILON)
    contrast = 0.0
    difference_average = 0.0
    difference_entropy = 0.0
    inverse = 0.0
    inverse_square = 0.0
    inverse_normalized = 0.0
    inverse_square_normalized = 0.0
    inverse_variance = 0.0
    wide = np.float64(n_grays)
    for k in range(n_grays):
        share = difference_shares[k]
        if share > 0.0:
            step = np.float64(k)
            contrast += share * step * step
            difference_average += share * step
            difference_entropy -= share * np.log2(share + _EPSILON)
            inverse += share / (1.0 + step)
            inverse_square += share / (1.0 + step * step)
            inverse_normalized += share / (1.0 + step / wide)
            inverse_square_normalized += share / (1.0 + step * step / (wide * wide))
            if k > 0:
                inverse_variance += share / (step * step)
    difference_variance = 0.0
    for k in range(n_grays):
        offset = k - difference_average
        difference_variance += difference_shares[k] * offset * offset
    deviations = np.sqrt(row_variance) * np.sqrt(column_variance)
    widest = max(row_entropy, column_entropy)
    information = entropy_2 - entropy
    out[0] = autocorrelation
    out[1] = prominence
    out[2] = shade
    out[3] = tendency
    out[4] = contrast
    out[5] = covariance / (deviations + _EPSILON) if deviations != 0.0 else 1.0
    out[6] = difference_average
    out[7] = difference_entropy
    out[8] = difference_variance
    out[9] = inverse
    out[10] = inverse_square
    out[11] = inverse_square_normalized
    out[12] = inverse_normalized
    # Independent levels: what is left of the differences is rounding, and its sign would
    # decide between 0 and NaN.
    is_dependent = information > 1e-14
    out[13] = (entropy - entropy_1) / widest if is_dependent and widest != 0.0 else 0.0
    out[14] = np.sqrt(1.0 - np.exp(-2.0 * information)) if is_dependent else 0.0
    out[15] = inverse_variance
    out[16] = row_mean
    out[17] = energy
    out[18] = entropy
    out[20] = largest
    out[21] = sum_average
    out[22] = sum_entropy
    out[23] = row_variance
