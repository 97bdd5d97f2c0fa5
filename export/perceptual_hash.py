"""A 64-bit fingerprint of what a slice looks like, for finding near-duplicates.

It is taken from the model input, not from the whole slice: that is what the networks learn
from, what a prepared folder keeps (so that a fingerprint can be made again), and what does not
change with field of view, table, padding or position of the patient.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
import numpy.typing as npt

REDUCED_SIZE: Final = 48
_N_FREQUENCIES: Final = 8
_BLOCK: Final = 256


def reduce_images(images: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float16]:
    """Shrink model inputs to 48 x 48 by area means.

    Parameters
    ----------
    images : ndarray
        ``(n, 1, S, S)``, S 32 or more; may be a memory map, which is read block by block.

    Returns
    -------
    ndarray
        float16 ``(n, 48, 48)``.
    """
    weights = _area_weights(images.shape[-1])
    reduced = np.empty((len(images), REDUCED_SIZE, REDUCED_SIZE), np.float16)
    for start in range(0, len(images), _BLOCK):
        block = np.asarray(images[start : start + _BLOCK, 0], dtype=np.float32)
        reduced[start : start + _BLOCK] = weights @ block @ weights.T
    return reduced


def hash_reduced(reduced: npt.NDArray[np.float16]) -> npt.NDArray[np.uint64]:
    """Fingerprints of 48 x 48 pictures.

    Parameters
    ----------
    reduced : ndarray
        float16 ``(n, 48, 48)`` of :func:`reduce_images`.

    Returns
    -------
    ndarray
        uint64 ``(n,)``; near-duplicates differ in few bits.

    Notes
    -----
    Bit i is 1 where coefficient i of the cosine transform lies above the median of the 64 chosen
    ones: frequencies 1 to 8 along rows and columns. Frequency 0 along an axis is left out, which
    the usual 8 x 8 block takes in: it tells what all chests have in common.
    """
    basis = _cosine_basis()
    hashes = np.empty(len(reduced), np.uint64)
    for start in range(0, len(reduced), _BLOCK):
        block = reduced[start : start + _BLOCK].astype(np.float64)
        values = (basis @ block @ basis.T).reshape(len(block), -1)
        bits = values > np.median(values, axis=1, keepdims=True)
        hashes[start : start + _BLOCK] = np.packbits(bits, axis=1).view(">u8")[:, 0]
    return hashes


def perceptual_hashes(images: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint64]:
    """Fingerprints of model inputs ``(n, 1, S, S)``: uint64 ``(n,)``."""
    return hash_reduced(reduce_images(images))


@functools.lru_cache(maxsize=8)
def _area_weights(size: int) -> npt.NDArray[np.float32]:
    """``(48, size)``: share of each pixel in each of 48 equal parts of the side."""
    edges = np.linspace(0, size, REDUCED_SIZE + 1)
    pixels = np.arange(size)
    upper = np.minimum(edges[1:, np.newaxis], pixels + 1)
    lower = np.maximum(edges[:-1, np.newaxis], pixels)
    weights = np.maximum(upper - lower, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@functools.cache
def _cosine_basis() -> npt.NDArray[np.float64]:
    """Frequencies 1 to 8 of the cosine transform (DCT-II) of 48 places, ``(8, 48)``."""
    places = (np.arange(REDUCED_SIZE) + 0.5) / REDUCED_SIZE
    return np.cos(np.pi * np.outer(np.arange(1, _N_FREQUENCIES + 1), places))
