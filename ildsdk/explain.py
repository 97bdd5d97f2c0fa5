"""Activation maps: where in two slices their similarity comes from.

For each place of the last feature map of a slice the graph ``explain.onnx`` gives a location
vector: how what the network sees there moves the embedding, radiomics held fixed. Its dot product
with the embedding of *any* other slice is that place's contribution to their cosine, to first order
(gradient times activation, with the cosine as target). So one run per slice serves all its
neighbors, and an index that keeps location vectors draws the neighbor's map without its pixels.

References
----------
Draelos and Carin 2020, "HiResCAM", arXiv:2011.08891, for a class score instead of the cosine;
Selvaraju et al. 2017, "Grad-CAM", which averages the gradient over places first.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

N_MAPPED = 4
"""Neighbors of a slice of which maps are made."""
_MAX_CODE = 127


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SliceBox:
    """Part of a slice, in shares of its height and width.

    Attributes
    ----------
    top, left : float
        Distance of the upper left corner from that of the slice; below 0 where the box begins
        outside it.
    height, width : float
        Above 0.
    """

    top: float
    left: float
    height: float
    width: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceMap:
    """Where in a slice its similarity to another one comes from.

    Attributes
    ----------
    values : ndarray
        float32 ``(h, w)``, signed: contribution of each place to the cosine, to first order.
        Positive pulls the two slices together.
    box : SliceBox
        Part of the slice that the map covers: that which its model input shows.
    """

    values: npt.NDArray[np.float32]
    box: SliceBox


MissingMap = Literal["no-maps-in-index", "not-kept", "other-explain-graph", "damaged"]
"""Why a neighbor has no map: the index keeps no maps; none of this slice; its maps were made with
another ``explain.onnx`` than the bundle's; the file of maps is damaged."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairMaps:
    """Both maps of a query slice and one neighbor.

    Attributes
    ----------
    rank : int
        Of the neighbor.
    query : SliceMap
    neighbor : SliceMap or None
        None: see ``missing``.
    missing : str or None
        Why there is no map of the neighbor, see :data:`MissingMap`.
    """

    rank: int
    query: SliceMap
    neighbor: SliceMap | None
    missing: MissingMap | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocationCodes:
    """Location vectors of one slice in 8 bits, as an index keeps them.

    Attributes
    ----------
    codes : ndarray
        int8 ``(h, w, d)``, -127 to 127, C-contiguous.
    scale : float
        Above 0, a float32 number; location vectors are ``codes * scale``.
    box : SliceBox
        Part of the slice that the places cover.
    """

    codes: npt.NDArray[np.int8]
    scale: float
    box: SliceBox

    def map_for(self, target: npt.NDArray[np.float32]) -> SliceMap:
        """Map of this slice for the embedding of another one, float32 ``(d,)``.

        Each value is off by at most ``scale / 2`` times the sum of ``abs(target)``.
        """
        values = self.codes.astype(np.float32) @ target * np.float32(self.scale)
        return SliceMap(values=values.astype(np.float32, copy=False), box=self.box)


def map_for(
    locations: npt.NDArray[np.float32], target: npt.NDArray[np.float32], box: SliceBox
) -> SliceMap:
    """Map of a slice for the embedding of another one.

    Parameters
    ----------
    locations : ndarray
        float32 ``(h, w, d)``, location vectors of the slice.
    target : ndarray
        float32 ``(d,)``, unit norm.
    box : SliceBox
        Part of the slice that its model input shows.
    """
    return SliceMap(values=(locations @ target).astype(np.float32, copy=False), box=box)


def quantized(locations: npt.NDArray[np.float32], box: SliceBox) -> LocationCodes:
    """Round location vectors to 8 bits with one scale for the slice.

    Parameters
    ----------
    locations : ndarray
        float32 ``(h, w, d)``, finite.
    """
    largest = float(np.abs(locations).max(initial=0.0))
    # Rounded up to a float32 so that no code exceeds 127; 1 where there is nothing to scale.
    scale = np.nextafter(np.float32(largest / _MAX_CODE), np.float32(np.inf))
    if largest == 0:
        scale = np.float32(1)
    codes = np.rint(locations / scale)
    return LocationCodes(
        codes=np.ascontiguousarray(np.clip(codes, -_MAX_CODE, _MAX_CODE), dtype=np.int8),
        scale=float(scale),
        box=box,
    )
