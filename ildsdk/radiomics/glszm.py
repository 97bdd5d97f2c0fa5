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


def glszm_features(
    image: LevelImage, scratch: RadiomicsScratch, out: npt.NDArray[np.float64]
) -> None:
    """Write the 16 features to ``out``, float64 ``(16,)``."""
    n_pixels, n_places = image.positions.size, image.levels.size
    matrices = size_matrices(1, n_pixels, scratch)
    _zones(
        image,
        scratch.take("links", image.stride, np.int32),
        scratch.take("parents", n_places, np.int32),
        scratch.take("areas", n_places, np.int32),
        scratch.take("zone_row", n_pixels + 1, np.int32),
        scratch.take("zone_touched", n_pixels + 2, np.int32),
        matrices,
    )
    size_features(matrices, n_pixels, GLSZM_ORDER, scratch, out)


@kernel(SCAN_FASTMATH)
def _root(parents: Any, place: Any) -> Any:
    """Root of a place; the way is halved while it is walked."""
    while parents[place] != place:
        parents[place] = parents[np.uint32(parents[place])]
        place = np.uint32(parents[place])
    return place


@kernel(SCAN_FASTMATH)
def _label(levels: Any, stride: Any, links: Any, parents: Any, areas: Any) -> None:
    """Union-find over equal neighbors; ``areas`` gets each zone's area at its root, else 0.

    Places outside the region form zones of their own, which nobody reads. ``links`` int32
    ``(stride,)`` and ``parents`` (as ``levels``) are scratch. Roots come first in row order.
    """
    n_rows = levels.size // stride
    for place in range(stride):
        parents[place] = place
    width = stride - 2
    for row in range(1, n_rows - 1):
        first = row * stride + 1
        here = levels[first : first + width]
        left = levels[first - 1 : first - 1 + width]
        above = levels[first - stride : first - stride + width]
        above_left = levels[first - stride - 1 : first - stride - 1 + width]
        above_right = levels[first - stride + 1 : first - stride + 1 + width]
        # For each place an equal earlier neighbor, or none (0); negative: the upper right one
        # is equal as well and not known to be of the same zone (the upper one would tell).
        for column in range(width):
            gray = here[column]
            link = 0
            link = stride - 1 if gray == above_right[column] else link
            is_tip = link > 0
            link = stride + 1 if gray == above_left[column] else link
            link = 1 if gray == left[column] else link
            is_tip &= link != stride - 1
            link = -link if is_tip else link
            links[column] = stride if gray == above[column] else link
        parents[first - 1] = first - 1
        parents[first + width] = first + width
        parent = np.uint32(first - 1)
        for column in range(width):
            here_at = np.uint32(first + column)
            link = links[column]
            back = np.uint32(abs(link))
            # the left place's parent is still in a register
            parent = parent if back == 1 else np.uint32(parents[here_at - back])
            parent = here_at if back == 0 else parent
            parents[here_at] = parent
            if link < 0:
                one = _root(parents, here_at)
                other = _root(parents, np.uint32(here_at - stride + 1))
                parents[max(one, other)] = min(one, other)
                parent = np.uint32(parents[here_at])
    areas[:] = 0
    # parents stand before their children: one pass finds all roots
    for inner in range(np.uint32(stride + 1), np.uint32((n_rows - 1) * stride - 1)):
        root = np.uint32(parents[np.uint32(parents[inner])])
        parents[inner] = root
        areas[root] += 1


@kernel(SCAN_FASTMATH)
def _zones(
    image: Any, links: Any, parents: Any, areas: Any, row: Any, touched: Any, matrices: Any
) -> None:
    """Fill the one size zone matrix.

    ``row`` int32 ``(n_pixels + 1,)``, ``touched`` (one longer) and the three before are scratch.
    """
    _label(image.levels, image.stride, links, parents, areas)
    area_at = areas[image.origin :]
    row[:] = 0
    n_cells = 0
    for level in range(image.grays.size):
        n_touched = np.uint32(0)
        for k in range(np.uint32(image.starts[level]), np.uint32(image.starts[level + 1])):
            # places that are no root have area 0: counted like any, dropped below
            area = np.uint32(area_at[image.positions[k]])
            n_so_far = row[area]
            touched[n_touched] = area
            n_touched += np.uint32(n_so_far == 0)
            row[area] = n_so_far + 1
        for t in range(n_touched):
            area = np.uint32(touched[t])
            if area > 0:
                matrices.grays[0, n_cells] = image.grays[level]
                matrices.sizes[0, n_cells] = area
                matrices.counts[0, n_cells] = row[area]
                n_cells += 1
            row[area] = 0
    matrices.n_cells[0] = n_cells
