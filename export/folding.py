"""Inference forms of the networks: batch norm folded, conv1 with one input channel."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.models.gem import generalized_mean
from export.models.ild_ffn import HalvingBlock, IldFfn, outer_product
from export.models.resnet import GREY_MEAN, GREY_STD, Bottleneck, ResNet50


class FoldedBackbone(nn.Module):
    """``image (n, 1, S, S)`` in [0, 1] -> ``deep_features (n, 2048)`` of :class:`ResNet50`.

    The second output is the last feature map, ``(n, 2048, S / 32, S / 32)``, for activation maps.

    The three planes of a grey input are equal and normalised alike, so conv1's weights sum
    over their input channels and take the division by the deviation. The mean stays a
    subtraction: zero padding comes after it, and a bias would be wrong at the border.
    """

    def __init__(self, trained: ResNet50) -> None:
        super().__init__()
        model = copy.deepcopy(trained).eval().to(memory_format=torch.contiguous_format)
        model.conv1 = fuse_conv_bn_eval(model.conv1, model.bn1)
        model.conv1.weight = nn.Parameter(model.conv1.weight.sum(dim=1, keepdim=True) / GREY_STD)
        model.conv1.in_channels = 1
        model.bn1 = nn.Identity()
        for block in model.modules():
            if isinstance(block, Bottleneck):
                for number in (1, 2, 3):
                    conv, norm = getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
                    setattr(block, f"conv{number}", fuse_conv_bn_eval(conv, norm))
                    setattr(block, f"bn{number}", nn.Identity())
                if block.downsample is not None:
                    block.downsample = fuse_conv_bn_eval(*block.downsample)
        self.model = model.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """``(n, 1, S, S) -> (n, 2048), (n, 2048, S / 32, S / 32)``."""
        model = self.model
        x = model.maxpool(model.relu(model.conv1(image - GREY_MEAN)))
        x = model.layer4(model.layer3(model.layer2(model.layer1(x))))
        # Not by GeM itself: its cast to float32 would stay in the graph, between two outputs.
        return generalized_mean(x, model.gem.p, model.gem.eps), x


class FoldedHalving(nn.Module):
    """What :class:`~export.models.ild_ffn.HalvingBlock` computes, cut to size by its padding.

    Padded on the near sides only, a 3x3 convolution of stride 2 gives ``h // 2`` rows and
    ``w // 2`` columns of any h and w: nothing is left to cut off. A cut between convolution and
    ReLU would take the map out of the layout that ONNX Runtime convolves in, and back. The graph's
    simplification takes the pad into the convolution (only one whose value is stated).
    """

    def __init__(self, trained: HalvingBlock) -> None:
        super().__init__()
        self.conv = fuse_conv_bn_eval(trained.conv, trained.bn)
        self.conv.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c, h, w) -> (n, c', h // 2, w // 2)``."""
        return functional.relu(self.conv(functional.pad(x, (1, 0, 1, 0), value=0.0)))


class FoldedFusion(nn.Module):
    """``deep_features (n, q)``, ``radiomics (n, p)`` -> ``embedding (n, d)`` of :class:`IldFfn`."""

    def __init__(self, trained: IldFfn) -> None:
        super().__init__()
        model = copy.deepcopy(trained).eval().to(memory_format=torch.contiguous_format)
        model.blocks = nn.Sequential(*map(FoldedHalving, model.blocks))
        self.model = model.requires_grad_(False)

    def forward(self, deep_features: Tensor, radiomics: Tensor) -> Tensor:
        """``(n, q), (n, p) -> (n, d)``, unit norm."""
        model = self.model
        maps = model.blocks(outer_product(deep_features, radiomics))
        correlation = model.merge(maps).flatten(1)
        fused = model.linear(torch.cat([deep_features, radiomics, correlation], dim=1))
        return functional.normalize(fused, dim=1)
