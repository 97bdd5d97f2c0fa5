"""ResNet-50 trunk with torchvision's state-dict names, for grey CT slices.

The definition is our own because torchvision does not import beside the CPU build of torch used
here. Its parameter names are torchvision's, so that ImageNet or RadImageNet weights in that naming
load strictly; only the classifier (``fc.weight``, ``fc.bias``) is dropped, by name.
"""

from __future__ import annotations

from torch import Tensor, nn

from export.models.backbone import GREY_MEAN, GREY_STD, Backbone

N_DEEP_FEATURES = 2048
_BLOCKS_PER_STAGE = (3, 4, 6, 3)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 residual block; the stride sits on the 3x3 (torchvision's "v1.5")."""

    expansion = 4

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = width * self.expansion
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``(n, n_in, h, w)`` -> ``(n, 4 * width, h / stride, w / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(Backbone):
    """ResNet-50 without average pooling and classifier, pooled by GeM.

    References
    ----------
    He et al. 2016, "Deep residual learning for image recognition"; Chen et al. 2025, section 2.
    """

    n_features = N_DEEP_FEATURES
    dropped_keys = ("fc.",)

    def __init__(self, gem_p: float = 3.0) -> None:
        super().__init__(gem_p)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        n_in = 64
        for stage, n_blocks in enumerate(_BLOCKS_PER_STAGE):
            width = 64 * 2**stage
            blocks = []
            for block in range(n_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Bottleneck(n_in, width, stride))
                n_in = width * Bottleneck.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                # Residual branches start at zero: a random-init run of few epochs converges sooner.
                nn.init.zeros_(module.bn3.weight)

    def feature_map(self, image: Tensor) -> Tensor:
        """``(n, 1, S, S)`` in [0, 1] -> last feature map ``(n, 2048, S / 32, S / 32)``."""
        x = ((image - GREY_MEAN) / GREY_STD).expand(-1, self.conv1.in_channels, -1, -1)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (n, 64, S / 4, S / 4)
        x = self.layer1(x)  # (n, 256, S / 4, S / 4)
        x = self.layer2(x)  # (n, 512, S / 8, S / 8)
        x = self.layer3(x)  # (n, 1024, S / 16, S / 16)
        return self.layer4(x)  # (n, 2048, S / 32, S / 32)
