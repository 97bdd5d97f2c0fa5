"""GLDM (14) and NGTDM (5) features: each pixel against its whole neighborhood.

One sweep serves both: it counts the dependent neighbors of each pixel (GLDM) and the
difference to their mean gray level (NGTDM). Definitions: pyradiomics, ``gldm``, ``ngtdm``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.directions import half_directions
from ildsdk.radiomics.level_order import OrderedImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.size_matrix import GLDM_ORDER, size_features, size_matrices
from native_hash.jit import SCAN_FASTMATH, kernel


def neighborhood_features(
    image: OrderedImage,
    distances: tuple[int, ...],
    alpha: int,
    scratch: RadiomicsScratch,
    gldm_out: npt.NDArray[np.float64],
    ngtdm_out: npt.NDArray[np.float64],
) -> None:
    """Write 14 GLDM features and 5 NGTDM features of a region."""
    n_places = image.levels.size
    half = np.array([r * image.stride + c for r, c in half_directions(distances)])
    steps = np.concatenate([half, -half])
    matrices = size_matrices("dependence", 1, image.positions.size, scratch)
    differences = scratch.take("differences", image.grays.size, np.float64)
    _neighborhoods(
        image,
        steps,
        alpha,
        scratch.take("n_neighbors", n_places, np.uint16),
        scratch.take("n_dependent", n_places, np.uint16),
        scratch.take("neighbor_totals", n_places, np.int32),
        scratch.take("dependence_row", steps.size + 1, np.int32),
        scratch.take("neighbor_deviations", steps.size + 1, np.int64),
        differences,
        matrices,
    )
    size_features(matrices, steps.size + 1, GLDM_ORDER, scratch, gldm_out)
    ngtdm_features(image.starts, image.grays, differences, scratch, ngtdm_out)


def ngtdm_features(
    starts: npt.NDArray[np.int32],
    grays: npt.NDArray[np.int32],
    differences: npt.NDArray[np.float64],
    scratch: RadiomicsScratch,
    out: npt.NDArray[np.float64],
) -> None:
    """Write the 5 NGTDM features to ``out``, float64 ``(5,)``.

    ``starts`` and ``grays`` as in a level image. ``differences`` float64 ``(n_levels,)``: sum over
    the level's pixels of the distance between gray level and mean of the neighbors in the region.
    """
    shares, products = scratch.take("by_level", (2, grays.size), np.float64)
    _ngtdm(starts, grays, differences, shares, products, out)


@kernel(SCAN_FASTMATH)
def _is_alike(near: Any, gray: Any, alpha: Any) -> Any:
    """1 where a neighbor lies in the region and its level differs by at most alpha, else 0."""
    return np.uint16((near > 0) & (abs(np.int32(near) - np.int32(gray)) <= alpha))


@kernel(SCAN_FASTMATH)
def _sweep(
    levels: Any,
    stride: Any,
    origin: Any,
    steps: Any,
    alpha: Any,
    n_neighbors: Any,
    n_dependent: Any,
    totals: Any,
) -> None:
    """For each place: neighbors in the region, dependent ones, and the sum of their levels.

    All arrays have the places of ``levels``. Rows are handled as whole slices, one neighbor
    after the other, so that the compiler can take several pixels at once.
    """
    pad = origin // stride
    width = stride - 2 * pad
    n_rows = levels.size // stride
    for row in range(pad, n_rows - pad):
        first = row * stride + pad
        here = levels[first : first + width]
        count = n_neighbors[first : first + width]
        dependent = n_dependent[first : first + width]
        total = totals[first : first + width]
        count[:] = 0
        dependent[:] = 0
        total[:] = 0
        for a in range(0, steps.size, 4):
            # four neighbors for one look at what is known: there are 8 of each distance
            one = levels[first + steps[a] : first + steps[a] + width]
            two = levels[first + steps[a + 1] : first + steps[a + 1] + width]
            three = levels[first + steps[a + 2] : first + steps[a + 2] + width]
            four = levels[first + steps[a + 3] : first + steps[a + 3] + width]
            for column in range(width):
                count[column] += (
                    np.uint16(one[column] > 0)
                    + np.uint16(two[column] > 0)
                    + np.uint16(three[column] > 0)
                    + np.uint16(four[column] > 0)
                )
                total[column] += (
                    np.int32(one[column])
                    + np.int32(two[column])
                    + np.int32(three[column])
                    + np.int32(four[column])
                )
            if alpha == 0:
                for column in range(width):
                    gray = here[column]
                    dependent[column] += (
                        np.uint16(one[column] == gray)
                        + np.uint16(two[column] == gray)
                        + np.uint16(three[column] == gray)
                        + np.uint16(four[column] == gray)
                    )
            else:
                for column in range(width):
                    gray = here[column]
                    dependent[column] += (
                        _is_alike(one[column], gray, alpha)
                        + _is_alike(two[column], gray, alpha)
                        + _is_alike(three[column], gray, alpha)
                        + _is_alike(four[column], gray, alpha)
                    )


@kernel(SCAN_FASTMATH)
def _by_level(
    image: Any,
    n_neighbors: Any,
    n_dependent: Any,
    totals: Any,
    row: Any,
    deviations: Any,
    matrices: Any,
    differences: Any,
) -> None:
    """GLDM cells and NGTDM differences by level.

    ``differences[level]`` is the sum over the level's pixels of the distance between the
    gray level and the mean of the neighbors in the region; a pixel without any counts 0. The
    sums run in whole numbers, by number of neighbors, so that equal is exactly equal.
    """
    n_cells = 0
    for level in range(image.grays.size):
        gray = np.int64(image.grays[level])
        row[:] = 0
        deviations[:] = 0
        for k in range(np.uint32(image.starts[level]), np.uint32(image.starts[level + 1])):
            position = image.positions[k]
            count = n_neighbors[position]
            row[n_dependent[position]] += 1
            deviations[count] += abs(gray * np.int64(count) - np.int64(totals[position]))
        total = 0.0
        for count in range(1, row.size):
            total += deviations[count] / count
        differences[level] = total
        for size in range(row.size):
            if row[size] > 0:
                matrices.grays[0, n_cells] = image.grays[level]
                matrices.sizes[0, n_cells] = size + 1
                matrices.counts[0, n_cells] = row[size]
                n_cells += 1
    matrices.n_cells[0] = n_cells


@kernel(SCAN_FASTMATH)
def _ngtdm(starts: Any, grays: Any, differences: Any, shares: Any, products: Any, out: Any) -> None:
    """Five NGTDM features from counts and differences by level.

    Double sums over levels are written out only where no closed form exists
    (complexity); ``shares`` and ``products`` are scratch.
    """
    n_levels = grays.size
    n_pixels = starts[n_levels] - starts[0]
    gray_mean = 0.0
    plain_mean = 0.0
    for level in range(n_levels):
        share = (starts[level + 1] - starts[level]) / n_pixels
        shares[level] = share
        products[level] = share * grays[level]
        gray_mean += share * grays[level]
        plain_mean += grays[level]
    plain_mean /= n_levels
    weighted = 0.0
    total = 0.0
    variance = 0.0
    plain_variance = 0.0
    strength = 0.0
    for level in range(n_levels):
        weighted += shares[level] * differences[level]
        total += differences[level]
        offset = grays[level] - gray_mean
        variance += shares[level] * offset * offset
        offset = grays[level] - plain_mean
        plain_variance += offset * offset
    for level in range(n_levels):
        offset = grays[level] - plain_mean
        strength += shares[level] * (n_levels * offset * offset + plain_variance)
    complexity = 0.0
    for i in range(n_levels):
        for j in range(i):
            complexity += (
                (grays[i] - grays[j])
                * (shares[i] * differences[i] + shares[j] * differences[j])
                / (shares[i] + shares[j])
            )
    products.sort()
    spread = 0.0
    for level in range(n_levels):
        spread += products[level] * (2 * level + 1 - n_levels)
    spread *= 2.0
    out[0] = weighted / spread if spread != 0.0 else 0.0
    out[1] = 1.0 / weighted if weighted != 0.0 else 1e6
    out[2] = 2.0 * complexity / n_pixels
    out[3] = 0.0
    if n_levels > 1:
        out[3] = 2.0 * variance * total / n_pixels / (n_levels * (n_levels - 1.0))
    out[4] = 2.0 * strength / total if total != 0.0 else 0.0


@kernel(SCAN_FASTMATH)
def _neighborhoods(
    image: Any,
    steps: Any,
    alpha: Any,
    n_neighbors: Any,
    n_dependent: Any,
    totals: Any,
    row: Any,
    deviations: Any,
    differences: Any,
    matrices: Any,
) -> None:
    """Fill the GLDM matrix and NGTDM's differences by level.

    Three arrays with the places of the level image and two with ``steps.size + 1`` items are
    scratch.
    """
    _sweep(image.levels, image.stride, image.origin, steps, alpha, n_neighbors, n_dependent, totals)
    _by_level(
        image,
        n_neighbors[image.origin :],
        n_dependent[image.origin :],
        totals[image.origin :],
        row,
        deviations,
        matrices,
        differences,
    )
