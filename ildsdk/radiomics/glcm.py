"""Gray level co-occurrence features (24).

Definitions: pyradiomics, ``glcm``: features of each direction, then their mean; or one
matrix of all directions, weighted by distance, where a weighting norm is set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.co_occurrence import CoOccurrence
from ildsdk.radiomics.maximal_correlation import maximal_correlations
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.settings import RadiomicsSettings
from native_hash.jit import SCAN_FASTMATH, kernel

_INVERSE_VARIANCE = 15
_MCC = 19
_EPSILON = 2.220446049250313e-16
_LN2 = 0.6931471805599453
_SMALL_PRODUCT = 1e-13


def glcm_features(
    grays: npt.NDArray[np.int32],
    matrices: CoOccurrence,
    settings: RadiomicsSettings,
    scratch: RadiomicsScratch,
    out: npt.NDArray[np.float64],
) -> None:
    """Write the 24 features to ``out``, float64 ``(24,)``, NaN where no pixel has a neighbor.

    ``grays``: the gray levels that occur, rising.
    """
    n_grays = int(grays[-1])
    n_found = _mean_features(
        grays,
        matrices,
        maximal_correlations(matrices, scratch),
        scratch.take("sum_shares", 2 * n_grays + 1, np.float64),
        scratch.take("difference_shares", n_grays, np.float64),
        out,
    )
    if n_found == 0 and grays.size == 1:
        # No pixel has a neighbor, and there is one gray level. pyradiomics: several matrices,
        # MCC is 1; one matrix, InverseVariance is 0 (a sum without terms).
        n_matrices = matrices.starts.shape[0]
        if settings.weighting_norm is None and n_matrices > 1:
            out[_MCC] = 1.0
        elif n_matrices > 0:
            out[_INVERSE_VARIANCE] = 0.0


@kernel(SCAN_FASTMATH)
def _features(
    grays: Any,
    starts: Any,
    columns: Any,
    shares: Any,
    row_sums: Any,
    column_sums: Any,
    sum_shares: Any,
    difference_shares: Any,
    out: Any,
) -> None:
    """All features of one matrix but MCC; scratch as for ``_mean_features``."""
    n_levels = grays.size
    n_grays = grays[n_levels - 1]
    sum_shares[:] = 0.0
    difference_shares[:] = 0.0
    energy = 0.0
    entropy = 0.0
    largest = 0.0
    autocorrelation = 0.0
    for i in range(n_levels):
        for cell in range(starts[i], starts[i + 1]):
            j = columns[cell]
            share = shares[cell]
            sum_shares[grays[i] + grays[j]] += share
            difference_shares[abs(grays[i] - grays[j])] += share
            energy += share * share
            entropy -= share * np.log2(share + _EPSILON)
            largest = max(largest, share)
            autocorrelation += share * np.float64(grays[i]) * np.float64(grays[j])
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
        for cell in range(starts[i], starts[i + 1]):
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
            for cell in range(starts[i], starts[i + 1]):
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


@kernel(SCAN_FASTMATH)
def _mean_features(
    grays: Any,
    matrices: Any,
    correlations: Any,
    sum_shares: Any,
    difference_shares: Any,
    out: Any,
) -> int:
    """Mean over the matrices that have cells, NaN without; their number.

    ``correlations``: MCC of each matrix. ``sum_shares`` float64 ``(2 n_grays + 1,)`` and
    ``difference_shares`` ``(n_grays,)`` are scratch.
    """
    features = np.empty(out.size)
    n_found = 0
    out[:] = 0.0
    for m in range(correlations.size):
        if matrices.starts[m, grays.size] == 0:
            continue
        n_found += 1
        _features(
            grays,
            matrices.starts[m],
            matrices.columns[m],
            matrices.shares[m],
            matrices.row_sums[m],
            matrices.column_sums[m],
            sum_shares,
            difference_shares,
            features,
        )
        features[_MCC] = correlations[m]
        for k in range(out.size):
            out[k] += features[k]
    for k in range(out.size):
        out[k] = out[k] / n_found if n_found > 0 else np.nan
    return n_found
