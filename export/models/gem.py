"""Generalised-mean pooling (Chen et al. 2025, eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GeM(nn.Module):
    """Pool each channel of a feature map by its generalised mean.

    ``GeM(x) = (1 / (H W) * sum_ij x_ij ** p) ** (1 / p)`` per channel: ``p = 1`` is the average,
    ``p -> inf`` the maximum.

    Parameters
    ----------
    p : float
        Exponent, above 0; a hyper-parameter, not learned (the paper calls it one).
    eps : float
        Values are clamped to at least this before the power, so that the root has a finite
        gradient where a channel is all zero after ReLU.

    References
    ----------
    Chen et al. 2025, eq. 1; Radenovic et al. 2018, "Fine-tuning CNN image retrieval with no human
    annotation".
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        if not p > 0 or not eps > 0:
            raise ValueError(f"p and eps must be above 0, got p={p!r}, eps={eps!r}")
        self.p = float(p)
        self.eps = float(eps)

    def forward(self, feature_map: Tensor) -> Tensor:
        """``(n, K, H, W)`` -> ``(n, K)``, computed in float32 whatever autocast says."""
        # A cube in bfloat16 keeps 8 bits: too few for a mean over many small values.
        with torch.autocast(device_type=feature_map.device.type, enabled=False):
            return generalized_mean(feature_map.float(), self.p, self.eps)


def generalized_mean(feature_map: Tensor, p: float, eps: float) -> Tensor:
    """Eq. 1 in the dtype of its input, ``(n, K, H, W) -> (n, K)``; see :class:`GeM`."""
    return feature_map.clamp(min=eps).pow(p).mean(dim=(-2, -1)).pow(1.0 / p)
