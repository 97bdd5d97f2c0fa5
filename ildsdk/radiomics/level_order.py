"""Pixels of a region sorted by gray level, for the kernels that go level by level."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ildsdk.radiomics.levels import LevelImage
from ildsdk.radiomics.scratch import RadiomicsScratch
from native_hash.jit import SCAN_FASTMATH, kernel


class OrderedImage(NamedTuple):
    """A level image and its pixels sorted by level; kernels take it as it is.

    Attributes
    ----------
    levels, stride, origin, starts, grays
        As in :class:`~ildsdk.radiomics.levels.LevelImage`, ``levels`` uint16 always; ``starts``
        is where each level begins in ``positions``.
    positions : ndarray
        uint32 ``(n_pixels,)``: places of the region's pixels counted from ``origin``, by level,
        within a level in row order.
    """

    levels: npt.NDArray[np.uint16]
    stride: int
    origin: int
    positions: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int32]
    grays: npt.NDArray[np.int32]


def in_level_order(image: LevelImage, scratch: RadiomicsScratch) -> OrderedImage:
    """Sort the pixels of a level image."""
    levels = image.levels
    if levels.dtype != np.uint16:
        levels = scratch.take("levels_16", levels.size, np.uint16)
        levels[:] = image.levels
    positions = scratch.take("positions", image.n_pixels, np.uint32)
    cursors = scratch.take("level_cursors", int(image.grays[-1]) + 1, np.int32)
    _sort(levels, image.spans, image.origin, image.starts, image.grays, cursors, positions)
    return OrderedImage(levels, image.stride, image.origin, positions, image.starts, image.grays)


@kernel(SCAN_FASTMATH)
def _sort(
    levels: Any, spans: Any, origin: Any, starts: Any, grays: Any, cursors: Any, positions: Any
) -> None:
    """Fill ``positions``; ``cursors``, one longer than the largest gray level, is scratch."""
    for level in range(grays.size):
        cursors[grays[level]] = starts[level]
    for s in range(spans.shape[0]):
        for place in range(np.uint32(spans[s, 0]), np.uint32(spans[s, 1])):
            gray = np.uint32(levels[place])
            cursor = np.uint32(cursors[gray])
            cursors[gray] = cursor + 1
            positions[cursor] = place - origin
