"""The contrastive loss of the method (Chen et al. 2025, eqs. 4-5)."""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 0.7


def euclidean_distance(first: Tensor, second: Tensor, eps: float = 1e-12) -> Tensor:
    """Row-wise Euclidean distance (eq. 4): ``(n, d), (n, d) -> (n,)``.

    ``eps`` under the root keeps the gradient finite where two rows are equal.
    """
    return ((first - second).square().sum(dim=1) + eps).sqrt()


def contrastive_loss(distance: Tensor, is_same_class: Tensor, margin: float = MARGIN) -> Tensor:
    """``1/2 sum(b D^2) + 1/2 sum((1 - b) max(0, margin - D)^2)`` over the pairs (eq. 5).

    Parameters
    ----------
    distance : Tensor
        ``(n_pairs,)`` Euclidean distances of unit embeddings, in [0, 2].
    is_same_class : Tensor
        bool ``(n_pairs,)``: b of eq. 5.
    margin : float
        Pairs of different class further apart than this cost nothing.

    Returns
    -------
    Tensor
        Scalar, the plain sum of eq. 5. Divide by the number of queries to compare batches.
    """
    same = 0.5 * distance.square()
    different = 0.5 * (margin - distance).clamp(min=0).square()
    return torch.where(is_same_class, same, different).sum()
