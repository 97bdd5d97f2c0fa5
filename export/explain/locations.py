"""Location vectors of a slice: how each place of its last feature map moves its embedding.

For a slice with feature map A (q, h, w), deep features X = GeM(A), standardised radiomics y,
fusion F(X, y) and embedding e = F / ||F||, place (i, j) gets the vector

    L_ij = (I - e e^T) (dF/dX) u_ij / ||F||,   u_ij[c] = (dX_c / dA_cij) A_cij

so that for any other unit embedding t the product t . L_ij is gradient x activation of the cosine
of e and t with respect to the last feature map, summed over channels: HiResCAM (Draelos & Carin
2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks")
with the cosine as its target. One pass of a slice serves every neighbor. Radiomics are held fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.folding import FoldedFusion
from export.models.gem import GeM, generalized_mean
from export.models.ild_ffn import IldFfn, outer_product

# Three halvings: an entry of the correlation map sees 15 x 15 entries of the outer product, from
# 7 before to 7 behind 8 times its own place.
_STRIDE = 8


class Locations(nn.Module):
    """``feature_map (n, q, h, w)``, ``radiomics (n, p)`` -> ``locations (n, h * w, d)``.

    Parameters
    ----------
    trained : IldFfn
        Fusion net; batch norm is folded in a copy.
    gem : GeM
        The backbone's pooling.

    Notes
    -----
    The derivative dR/dX of the correlation map R (q//8, p//8) is taken in reverse mode, written
    out because an ONNX graph has no autograd. Every second entry of R in both directions has a
    window of its own, so four backward passes (one per parity of row and column), each with all
    entries of its parity at once, give the derivative of every entry of R. So the cost depends
    neither on the number of places nor on the length of the embedding. The gates of the ReLUs
    come from the forward pass.

    Each buffer is used in one orientation only: whatever the graph would reshape, cut or
    transpose of them the exporter would store a second time.
    """

    of_deep: Tensor
    of_radiomics: Tensor
    of_correlation: Tensor
    bias: Tensor
    parity: Tensor
    row_parity: Tensor
    column_parity: Tensor

    def __init__(self, trained: IldFfn, gem: GeM) -> None:
        super().__init__()
        self.p, self.eps = gem.p, gem.eps
        net = FoldedFusion(trained).model
        n_deep, n_radiomics = net.n_deep, net.n_radiomics
        self.n_rows, self.n_columns = n_deep // _STRIDE, n_radiomics // _STRIDE
        self.n_rest = n_deep % _STRIDE
        self.blocks = net.blocks
        self.merge = net.merge
        weight = net.linear.weight.detach().T  # (q + p + (q // 8) * (p // 8), d)
        of_deep, of_radiomics, of_correlation = weight.split(
            [n_deep, n_radiomics, self.n_rows * self.n_columns]
        )
        self.register_buffer("of_deep", of_deep.contiguous())
        self.register_buffer("of_radiomics", of_radiomics.contiguous())
        self.register_buffer(
            "of_correlation", of_correlation.reshape(self.n_rows, self.n_columns, -1).contiguous()
        )
        self.register_buffer("bias", net.linear.bias.detach().clone())
        row_parity = functional.one_hot(torch.arange(self.n_rows) % 2, 2).T.to(weight.dtype)
        column_parity = functional.one_hot(torch.arange(self.n_columns) % 2, 2).T.to(weight.dtype)
        parity = row_parity[:, None, :, None] * column_parity[None, :, None]
        self.register_buffer("parity", parity.reshape(4, 1, self.n_rows, self.n_columns))
        self.register_buffer("row_parity", row_parity.reshape(2, self.n_rows, 1, 1))
        self.register_buffer("column_parity", column_parity.reshape(2, 1, self.n_columns))
        self.requires_grad_(False)

    def forward(self, feature_map: Tensor, radiomics: Tensor) -> Tensor:
        """``(n, q, h, w), (n, p) -> (n, h * w, d)``, places row by row."""
        deep, shares = self.pooled(feature_map)
        fused, jacobian = self.fused_with_jacobian(deep, radiomics)
        moved = shares.transpose(1, 2) @ jacobian  # (n, h * w, d)
        norm = fused.norm(dim=1, keepdim=True)  # (n, 1)
        embedding = (fused / norm).unsqueeze(1)  # (n, 1, d)
        along = (moved * embedding).sum(dim=2, keepdim=True)  # (n, h * w, 1)
        return (moved - along * embedding) / norm.unsqueeze(2)

    def pooled(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """X ``(n, q)`` by eq. 1, and the share u of each place in it, ``(n, q, h * w)``.

        ``u = A^p X^(1-p) / (h w)``: by Euler's theorem the shares add up to X, but for what the
        clamp of GeM adds.
        """
        flat = feature_map.flatten(2)
        n_places = int(flat.shape[2])
        deep = generalized_mean(feature_map, self.p, self.eps)  # (n, q)
        # (A / X)^p stays in range where A^p and X^(1-p) alone would not.
        shares = (flat / deep.unsqueeze(2)).pow(self.p) * (deep / n_places).unsqueeze(2)
        return deep, shares * (flat > self.eps).to(flat.dtype)

    def fused_with_jacobian(self, deep: Tensor, radiomics: Tensor) -> tuple[Tensor, Tensor]:
        """F ``(n, d)`` before normalisation, and dF/dX transposed, ``(n, q, d)``."""
        maps = outer_product(deep, radiomics)  # (n, 1, q, p)
        gates = []
        for block in self.blocks:
            maps = block(maps)
            gates.append((maps > 0).to(maps.dtype))
        correlation = self.merge(maps).transpose(1, 2)  # (n, q // 8, 1, p // 8)
        fused = (
            deep @ self.of_deep
            + radiomics @ self.of_radiomics
            + (correlation @ self.of_correlation).sum(dim=(1, 2))
            + self.bias
        )
        return fused, self.of_deep + self._through_correlation(gates, radiomics)

    def _through_correlation(self, gates: list[Tensor], radiomics: Tensor) -> Tensor:
        """Part of dF/dX that goes through R: ``(n, q, d)``."""
        n_rows, n_columns = self.n_rows, self.n_columns
        # What R of each parity adds up to, by the outputs of block 3: (n, 4, 64, q // 8, p // 8).
        back = (gates[2] * self.merge.weight).unsqueeze(1) * self.parity
        for number in (2, 1, 0):
            weight = self.blocks[number].conv.weight  # (n_out, n_in, 3, 3)
            n_out, n_in = int(weight.shape[0]), int(weight.shape[1])
            height, width = n_rows * 2 ** (2 - number), n_columns * 2 ** (2 - number)
            back = functional.conv_transpose2d(
                back.reshape(-1, n_out, height, width),
                weight, stride=2, padding=1, output_padding=1,
            ).reshape(-1, 4, n_in, 2 * height, 2 * width)  # fmt: skip
            if number > 0:
                # The remainder of an odd size reaches nothing and is left out.
                back = back * gates[number - 1][:, :, : 2 * height, : 2 * width].unsqueeze(1)
        # From the outer product to X: times y, summed over the columns of each window. A block of
        # 8 columns lies in the window of the same number in its own parity, and in the next
        # window in the other parity.
        back = back.reshape(-1, 2, 2, _STRIDE * n_rows, n_columns, _STRIDE)
        scale = radiomics[:, : _STRIDE * n_columns].reshape(-1, 1, 1, 1, n_columns, _STRIDE)
        sums = (back * scale).sum(dim=5)  # (n, 2, 2, 8 * (q // 8), p // 8)
        own = (sums * self.column_parity).sum(dim=2)
        other = (sums * (1 - self.column_parity)).sum(dim=2)
        sums = own + functional.pad(other[..., :-1], (1, 0))  # (n, 2, 8 * (q // 8), p // 8)
        # Blocks of 8 rows likewise; now for each row of R, the two blocks of X it depends on.
        sums = sums.reshape(-1, 2, n_rows, _STRIDE, n_columns)
        own = (sums * self.row_parity).sum(dim=1)  # (n, q // 8, 8, p // 8)
        other = (sums * (1 - self.row_parity)).sum(dim=1)
        before = functional.pad(other[:, :-1], (0, 0, 0, 0, 1, 0))
        through = torch.cat([before, own], dim=2) @ self.of_correlation  # (n, q // 8, 16, d)
        after = functional.pad(through[:, 1:, :_STRIDE], (0, 0, 0, 0, 0, 1))
        jacobian = through[:, :, _STRIDE:] + after  # (n, q // 8, 8, d)
        embedding_size = int(self.of_correlation.shape[2])
        jacobian = jacobian.reshape(-1, _STRIDE * n_rows, embedding_size)
        return functional.pad(jacobian, (0, 0, 0, self.n_rest))


def gradient_maps(
    fusion: IldFfn, gem: GeM, feature_map: Tensor, radiomics: Tensor, targets: Tensor
) -> Tensor:
    """Gradient x activation of the cosine by autograd: what location vectors are checked against.

    Parameters
    ----------
    feature_map, radiomics, targets : Tensor
        ``(n, q, h, w)``, ``(n, p)``, unit ``(n, d)``.

    Returns
    -------
    Tensor
        ``(n, h * w)``, signed.
    """
    with torch.enable_grad():
        activation = feature_map.clone().requires_grad_()
        cosine = (fusion.eval()(gem(activation), radiomics) * targets).sum()
        (gradient,) = torch.autograd.grad(cosine, activation)
    return (gradient * activation.detach()).sum(dim=1).flatten(1)
