"""Learned buckets: spherical k-means in two levels, so that a million rows take seconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_ROUNDS = 6
_SAMPLE_PER_CENTER = 64
_BLOCK_VALUES = 2**24  # bounds the memory of a block of dot products (64 MB)


def two_level_buckets(vectors: Float32, rows_per_bucket: int, *, seed: int) -> Int64:
    """Group rows that point the same way.

    Parameters
    ----------
    vectors : ndarray
        float32 ``(n, d)``.
    rows_per_bucket : int
        Aim; buckets differ in size.

    Returns
    -------
    ndarray
        int64 ``(n,)``, bucket of each row; buckets are numbered without gaps, those of one
        coarse group side by side.
    """
    n = vectors.shape[0]
    n_buckets = max(1, n // rows_per_bucket)
    n_coarse = max(1, round(n_buckets**0.5))
    generator = np.random.default_rng(seed)
    sample = np.sort(generator.permutation(n)[: n_coarse * _SAMPLE_PER_CENTER])
    coarse = assign(vectors, _trained(vectors[sample], n_coarse, generator))
    buckets = np.empty(n, np.int64)
    n_so_far = 0
    order = np.argsort(coarse, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(coarse[order])) + 1):
        members = vectors[rows]
        n_fine = max(1, round(rows.size / rows_per_bucket))
        fine = assign(members, _trained(members, n_fine, generator))
        present, numbers = np.unique(fine, return_inverse=True)
        buckets[rows] = n_so_far + numbers
        n_so_far += present.size
    return buckets


def assign(vectors: Float32, centers: Float32) -> Int64:
    """Center with the largest dot product for each row, int64 ``(n,)``."""
    nearest = np.empty(vectors.shape[0], np.int64)
    step = max(1, _BLOCK_VALUES // centers.shape[0])
    for start in range(0, vectors.shape[0], step):
        dots = vectors[start : start + step] @ centers.T
        nearest[start : start + step] = dots.argmax(axis=1)
    return nearest


def mean_directions(vectors: Float32, buckets: Int64, n_buckets: int) -> Float32:
    """Direction of each bucket's sum of rows, float32 ``(n_buckets, d)``; zero where that is."""
    order = np.argsort(buckets, kind="stable")
    counts = np.bincount(buckets, minlength=n_buckets)
    starts = np.concatenate([[0], np.cumsum(counts)])
    sums = np.zeros((n_buckets, vectors.shape[1]))
    for bucket in np.flatnonzero(counts):
        rows = order[starts[bucket] : starts[bucket + 1]]
        sums[bucket] = vectors[rows].sum(axis=0, dtype=np.float64)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return (sums / np.where(norms == 0, 1, norms)).astype(np.float32)


def _trained(vectors: Float32, n_centers: int, generator: np.random.Generator) -> Float32:
    """Centers after a few rounds, started from rows; an empty one keeps its place."""
    n_centers = min(n_centers, vectors.shape[0])
    start = np.sort(generator.choice(vectors.shape[0], n_centers, replace=False))
    centers = vectors[start]
    for _ in range(_ROUNDS if n_centers > 1 else 0):
        buckets = assign(vectors, centers)
        means = mean_directions(vectors, buckets, n_centers)
        is_empty = ~means.any(axis=1)
        means[is_empty] = centers[is_empty]
        centers = means
    return centers
