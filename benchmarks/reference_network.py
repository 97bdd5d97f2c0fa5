"""Torch networks of the reference stack: ResNet-50 with GeM, and ILD-FFN, as the paper says.

In the form in which a bundle keeps them: batch norm folded into the convolutions, one grey input
channel. Folding is a favor to this rival: torch in eager mode would run each batch norm on its own.
Nothing of ildsdk is imported here, so that the cold start of the stack is its own.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

_BLOCKS_PER_STAGE = (3, 4, 6, 3)
_FUSION_CHANNELS = (1, 16, 32, 64)
_GEM_EPS = 1e-6


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 residual block, its stride on the 3x3."""

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = 4 * width
        self.conv1 = nn.Conv2d(n_in, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1)
        self.conv3 = nn.Conv2d(width, n_out, 1)
        has_projection = stride != 1 or n_in != n_out
        self.downsample = nn.Conv2d(n_in, n_out, 1, stride=stride) if has_projection else None

    def forward(self, x: Tensor) -> Tensor:
        """``(n, n_in, h, w)`` -> ``(n, 4 * width, h / stride, w / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.conv1(x), inplace=True)
        x = functional.relu(self.conv2(x), inplace=True)
        return functional.relu(self.conv3(x).add_(shortcut), inplace=True)


class ReferenceBackbone(nn.Module):
    """ResNet-50 trunk pooled by the generalized mean (Chen et al. 2025, eq. 1).

    Parameters
    ----------
    gem_p : float
        Exponent of the pooling.
    """

    def __init__(self, gem_p: float) -> None:
        super().__init__()
        self.gem_p = gem_p
        self.register_buffer("mean", torch.zeros(()))
        self.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3)
        n_in = 64
        for stage, n_blocks in enumerate(_BLOCKS_PER_STAGE):
            width = 64 * 2**stage
            blocks = []
            for block in range(n_blocks):
                blocks.append(Bottleneck(n_in, width, 2 if stage > 0 and block == 0 else 1))
                n_in = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> Tensor:
        """``(n, 1, S, S)`` in [0, 1] -> deep features ``(n, 2048)``."""
        x = functional.relu(self.conv1(image - self.mean), inplace=True)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pooled = x.clamp(min=_GEM_EPS).pow(self.gem_p).mean(dim=(-2, -1))
        return pooled.pow(1.0 / self.gem_p)


class HalvingBlock(nn.Module):
    """3x3 convolution of stride 2 and ReLU: ``(n, c, h, w) -> (n, c', h // 2, w // 2)``."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """One row or column too many, where the size is odd, is cut off."""
        n_rows, n_columns = x.shape[2] // 2, x.shape[3] // 2
        return functional.relu(self.conv(x)[:, :, :n_rows, :n_columns])


class ReferenceFusion(nn.Module):
    """ILD-FFN (Chen et al. 2025, eqs. 2-3): ``F = [X, Y, R] w + b``, L2 normalized.

    Parameters
    ----------
    n_deep, n_radiomics, embedding_size : int
    """

    def __init__(self, n_deep: int, n_radiomics: int, embedding_size: int) -> None:
        super().__init__()
        pairs = itertools.pairwise(_FUSION_CHANNELS)
        self.blocks = nn.Sequential(*(HalvingBlock(n_in, n_out) for n_in, n_out in pairs))
        self.merge = nn.Conv2d(_FUSION_CHANNELS[-1], 1, 1)
        n_fused = n_deep + n_radiomics + (n_deep // 8) * (n_radiomics // 8)
        self.linear = nn.Linear(n_fused, embedding_size)

    def forward(self, deep: Tensor, radiomics: Tensor) -> Tensor:
        """X ``(n, q)``, standardized Y ``(n, p)`` -> unit embeddings ``(n, d)``."""
        products = (deep.unsqueeze(2) * radiomics.unsqueeze(1)).unsqueeze(1)  # (n, 1, q, p)
        correlation = self.merge(self.blocks(products)).flatten(1)
        fused = self.linear(torch.cat([deep, radiomics, correlation], dim=1))
        return functional.normalize(fused, dim=1)
