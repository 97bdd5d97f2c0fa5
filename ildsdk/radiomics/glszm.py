"""Gray level size zone features (16).

A zone is a set of pixels of one gray level that touch, corners included. Definitions:
pyradiomics, ``glszm``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.levels import LevelImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from ildsdk.radiomics.size_matrix import GLSZM_ORDER, size_features, size_matrices
from native_hash.jit import SCAN_FASTMATH, kernel

# how a pixel is tied to those before it: to none, to the left one, or by 2 + 0, 1, 2 to the upper
# left, the upper or the upper right one
_LEFT = 1
_UPPER_LEFT = 2
_ABOVE = 3
_UPPER_RIGHT = 4
_AND_UPPER_RIGHT = 8


def glszm_features(
    image: LevelImage, scratch: RadiomicsScratch, out: npt.NDArray[np.float64]
) -> None:
    """Write the 16 features to ``out``, float64 ``(16,)``."""
    n_pixels = image.n_pixels
    matrices = size_matrices("zone", 1, n_pixels, scratch)
    _zones(
        image,
        scratch.take("ties", image.stride, np.uint8),
        scratch.take("labels", (2, image.stride + 4), np.int32),
        scratch.take("zones", (3, n_pixels + 1), np.int32),
        scratch.take("zone_cursors", int(image.grays[-1]) + 1, np.int32),
        scratch.take("zone_row", n_pixels + 1, np.int32),
        scratch.take("zone_touched", n_pixels + 2, np.int32),
        matrices,
    )
    size_features(matrices, n_pixels, GLSZM_ORDER, scratch, out)


@kernel(SCAN_FASTMATH)
def _root(parents: Any, label: Any) -> Any:
    """Root of a label; the way is halved while it is walked."""
    while parents[label] != label:
        parents[label] = parents[np.uint32(parents[label])]
        label = np.uint32(parents[label])
    return label


@kernel(SCAN_FASTMATH)
def _tie(levels: Any, stride: Any, begin: Any, end: Any, ties: Any) -> None:
    """For each place of a part of a row, an equal place before it, to ``ties``."""
    here = levels[begin:end]
    left = levels[begin - 1 : end - 1]
    above = levels[begin - stride : end - stride]
    above_left = levels[begin - stride - 1 : end - stride - 1]
    above_right = levels[begin - stride + 1 : end - stride + 1]
    for k in range(here.size):
        gray = here[k]
        # the upper right one is of the same zone as the upper one, but not known to be of the
        # zone of the others
        tie = np.uint8(_UPPER_RIGHT) if gray == above_right[k] else np.uint8(0)
        and_tip = np.uint8(_AND_UPPER_RIGHT) if gray == above_right[k] else np.uint8(0)
        tie = np.uint8(_UPPER_LEFT) | and_tip if gray == above_left[k] else tie
        tie = np.uint8(_LEFT) | and_tip if gray == left[k] else tie
        ties[k] = np.uint8(_ABOVE) if gray == above[k] else tie


@kernel(SCAN_FASTMATH)
def _label(image: Any, ties: Any, labels: Any, parents: Any, areas: Any, grays: Any) -> Any:
    """Union-find over equal neighbors; returns the number of labels.

    Each label gets its area and gray level, and a parent, itself or an earlier one. ``areas`` is
    all zero and ``parents`` each its own on entry. ``ties`` and ``labels`` are scratch.
    """
    levels, stride, spans = image.levels, image.stride, image.spans
    n_labels = np.uint32(0)
    first_span = 0
    n_spans = spans.shape[0]
    while first_span < n_spans:
        row = spans[first_span, 0] // stride
        row_start = row * stride
        stop_span = first_span
        while stop_span < n_spans and spans[stop_span, 0] < row_start + stride:
            stop_span += 1
        row_begin, row_end = spans[first_span, 0], spans[stop_span - 1, 1]
        _tie(levels, stride, row_begin, row_end, ties)
        here = labels[row & 1]
        above = labels[1 - (row & 1)]
        label = np.uint32(0)
        for s in range(first_span, stop_span):
            for place in range(np.uint32(spans[s, 0]), np.uint32(spans[s, 1])):
                tie = np.uint32(ties[place - np.uint32(row_begin)])
                kind = tie & np.uint32(7)
                column = place - np.uint32(row_start)
                # two rows of labels stand three places further: any kind may look there
                known = np.uint32(above[column + kind])
                label = label if kind == _LEFT else known
                label = n_labels if kind == 0 else label
                n_labels += np.uint32(kind == 0)
                here[column + np.uint32(3)] = label
                areas[label] += 1
                grays[label] = levels[place]
                if tie > 7:
                    one = _root(parents, label)
                    other = _root(parents, np.uint32(above[column + np.uint32(4)]))
                    parents[max(one, other)] = min(one, other)
                    label = min(one, other)
        first_span = stop_span
    return n_labels


@kernel(SCAN_FASTMATH)
def _zones(
    image: Any,
    ties: Any,
    labels: Any,
    zones: Any,
    cursors: Any,
    row: Any,
    touched: Any,
    matrices: Any,
) -> None:
    """Fill the one size zone matrix.

    All between the first and the last argument is scratch: ``ties`` uint8 ``(stride,)``, ``labels``
    int32 ``(2, stride + 4)``, ``zones`` int32 ``(3, n_pixels + 1)``, ``cursors`` one longer than
    the largest gray level, ``row`` int32 ``(n_pixels + 1,)``, ``touched`` one longer.
    """
    parents, areas, grays = zones[0], zones[1], zones[2]
    areas[:] = 0
    for k in range(parents.size):
        parents[k] = k
    n_labels = _label(image, ties, labels, parents, areas, grays)
    # parents stand before their children: one pass finds all roots
    for label in range(np.uint32(n_labels)):
        root = np.uint32(parents[np.uint32(parents[label])])
        parents[label] = root
        area = areas[label]
        areas[label] = 0
        areas[root] += area
    # by level, those of one level from where its pixels would stand
    in_order = parents
    for level in range(image.grays.size):
        cursors[image.grays[level]] = image.starts[level]
    for label in range(np.uint32(n_labels)):
        area = areas[label]
        gray = np.uint32(grays[label])
        cursor = np.uint32(cursors[gray])
        in_order[cursor] = area
        cursors[gray] = cursor + np.uint32(area > 0)
    row[:] = 0
    n_cells = 0
    for level in range(image.grays.size):
        gray = image.grays[level]
        n_touched = np.uint32(0)
        for k in range(np.uint32(image.starts[level]), np.uint32(cursors[gray])):
            area = np.uint32(in_order[k])
            n_so_far = row[area]
            touched[n_touched] = area
            n_touched += np.uint32(n_so_far == 0)
            row[area] = n_so_far + 1
        for t in range(n_touched):
            area = np.uint32(touched[t])
            matrices.grays[0, n_cells] = gray
            matrices.sizes[0, n_cells] = area
            matrices.counts[0, n_cells] = row[area]
            row[area] = 0
            n_cells += 1
    matrices.n_cells[0] = n_cells
