"""Linear head of "ResNet50 + SCL": deep features to a unit embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Projection(nn.Module):
    """``F = X w + b``, then L2 normalisation: ILD-FFN without radiomics and correlation.

    Parameters
    ----------
    n_deep : int
        q, the length of X.
    embedding_size : int
        Length of F.
    """

    def __init__(self, n_deep: int = 2048, embedding_size: int = 128) -> None:
        super().__init__()
        self.n_deep = n_deep
        self.linear = nn.Linear(n_deep, embedding_size)

    def fused(self, deep: Tensor, radiomics: Tensor | None = None) -> Tensor:
        """F before normalisation: ``(n, q) -> (n, embedding_size)``.

        ``radiomics`` is taken and left unused, so that both heads train in one loop.
        """
        with torch.autocast(device_type=deep.device.type, enabled=False):
            return self.linear(deep)

    def forward(self, deep: Tensor, radiomics: Tensor | None = None) -> Tensor:
        """X ``(n, q)`` -> unit embeddings ``(n, embedding_size)``."""
        return functional.normalize(self.fused(deep, radiomics), dim=1)
