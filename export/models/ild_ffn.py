"""ILD-FFN: fuses deep and radiomics features into one embedding (Chen et al. 2025, eqs. 2-3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (16, 32, 64)


def outer_product(deep: Tensor, radiomics: Tensor) -> Tensor:
    """Eq. 2, ``z[b, 0, i, j] = x[b, i] * y[b, j]``: ``(n, q), (n, p) -> (n, 1, q, p)``."""
    return (deep.unsqueeze(2) * radiomics.unsqueeze(1)).unsqueeze(1)


def convolved_outer_product(deep: Tensor, radiomics: Tensor, weight: Tensor) -> Tensor:
    """``HalvingBlock.conv`` of the outer product, cut to half its size, without forming it.

    ``sum_uv w[c,u,v] x[2i+u-1] y[2j+v-1]`` over a 3 x 3 kernel separates into
    ``sum_v (sum_u w[c,u,v] x[2i+u-1]) y[2j+v-1]``: a convolution of x with three kernels per
    channel, then a product of small matrices. The same sum in another order; the q x p map of each
    sample is neither written nor read.

    Parameters
    ----------
    deep, radiomics : Tensor
        ``(n, q)``, ``(n, p)``.
    weight : Tensor
        ``(c, 1, 3, 3)``; stride 2, padding 1, no bias.

    Returns
    -------
    Tensor
        ``(n, c, q // 2, p // 2)``.
    """
    n_channels, n_rows, n_columns = weight.shape[0], deep.shape[1] // 2, radiomics.shape[1] // 2
    kernels = weight[:, 0].transpose(1, 2).reshape(n_channels * 3, 1, 3)  # (3 c, 1, 3): (c, v), u
    along = functional.conv1d(deep.unsqueeze(1), kernels, stride=2, padding=1)[:, :, :n_rows]
    along = along.unflatten(1, (n_channels, 3)).transpose(2, 3)  # (n, c, q // 2, 3)
    # Row v holds y[2j + v - 1]: (n, 1, 3, p // 2)
    across = functional.pad(radiomics, (1, 1)).unfold(1, 3, 2)[:, :n_columns].transpose(1, 2)
    return along @ across.unsqueeze(1)


class HalvingBlock(nn.Module):
    """3x3 convolution of stride 2, batch norm, ReLU: ``(n, c, h, w) -> (n, c', h // 2, w // 2)``.

    The paper says only that three blocks bring q x p to q//8 x p//8. A strided convolution does
    that with a quarter of the work of convolution and pooling. Padded by one, it gives one row or
    column more where the size is odd; that one is cut off.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, n_in, h, w) -> (n, n_out, h // 2, w // 2)``."""
        # int(): the sizes behind the batch axis are constants in an exported graph.
        n_rows, n_columns = int(x.shape[2]) // 2, int(x.shape[3]) // 2
        return functional.relu(self.bn(self.conv(x)[:, :, :n_rows, :n_columns]))


class IldFfn(nn.Module):
    """Feature fusion network: ``F = [X, Y, R] w + b``, then L2 normalisation.

    Parameters
    ----------
    n_deep, n_radiomics : int
        q and p, the lengths of X and Y; both at least 8.
    embedding_size : int
        Length of F. The paper does not give it.

    References
    ----------
    Chen et al. 2025, eqs. 2-3. Eq. 3 writes "+", the text says concatenate: we concatenate.
    """

    def __init__(
        self, n_deep: int = 2048, n_radiomics: int = 102, embedding_size: int = 128
    ) -> None:
        super().__init__()
        if min(n_deep, n_radiomics) < 8:
            raise ValueError(
                f"n_deep and n_radiomics must be 8 or more, got {n_deep}, {n_radiomics}"
            )
        self.n_deep, self.n_radiomics = n_deep, n_radiomics
        self.blocks = nn.Sequential(
            *(
                HalvingBlock(n_in, n_out)
                for n_in, n_out in zip((1, *CHANNELS[:-1]), CHANNELS, strict=True)
            )
        )
        self.merge = nn.Conv2d(CHANNELS[-1], 1, 1)
        n_correlation = (n_deep // 8) * (n_radiomics // 8)
        self.linear = nn.Linear(n_deep + n_radiomics + n_correlation, embedding_size)

    def correlation(self, deep: Tensor, radiomics: Tensor) -> Tensor:
        """R: ``(n, q), (n, p) -> (n, (q // 8) * (p // 8))``."""
        first, *others = self.blocks
        z = convolved_outer_product(deep, radiomics, first.conv.weight)
        z = functional.relu(first.bn(z))  # (n, 16, q // 2, p // 2)
        for block in others:
            z = block(z)  # (n, 32, q // 4, p // 4), then (n, 64, q // 8, p // 8)
        return self.merge(z).flatten(1)  # (n, (q // 8) * (p // 8))

    def fused(self, deep: Tensor, radiomics: Tensor) -> Tensor:
        """F before normalisation: ``(n, embedding_size)``."""
        correlation = self.correlation(deep, radiomics)
        # The embedding keeps the precision of its inputs whatever autocast says.
        with torch.autocast(device_type=deep.device.type, enabled=False):
            return self.linear(torch.cat([deep, radiomics, correlation.to(deep.dtype)], dim=1))

    def forward(self, deep: Tensor, radiomics: Tensor) -> Tensor:
        """X ``(n, q)``, standardised Y ``(n, p)`` -> unit embeddings ``(n, embedding_size)``."""
        return functional.normalize(self.fused(deep, radiomics), dim=1)
