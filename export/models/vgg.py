"""VGG-16 trunk with torchvision's state-dict names (``vgg16_bn``), for grey CT slices."""

from __future__ import annotations

from torch import Tensor, nn

from export.models.backbone import Backbone, three_planes

# Channels of the 13 convolutions; "pool" halves the picture.
_LAYERS: tuple[int | str, ...] = (
    64, 64, "pool",
    128, 128, "pool",
    256, 256, 256, "pool",
    512, 512, 512, "pool",
    512, 512, 512,
)  # fmt: skip


class Vgg16(Backbone):
    """VGG-16 with batch norm, without its last max pooling and classifier, pooled by GeM.

    The paper says "VGG" and no more. We take configuration D (13 convolutions) with batch norm:
    from a random start the plain one needs staged initialisation or very many epochs (its authors
    started from a shallower net), and the comparison should measure the architecture, not a failed
    start. As in Radenovic et al. 2018, the pooling takes the place of the last max pooling.

    References
    ----------
    Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image
    recognition"; Ioffe and Szegedy 2015 (batch norm).
    """

    n_features = 512
    dropped_keys = ("classifier.",)

    def __init__(self, gem_p: float = 3.0) -> None:
        super().__init__(gem_p)
        layers: list[nn.Module] = []
        n_in = 3
        for entry in _LAYERS:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [
                    nn.Conv2d(n_in, entry, 3, padding=1),
                    nn.BatchNorm2d(entry),
                    nn.ReLU(inplace=True),
                ]
                n_in = entry
        # Numbered as in torchvision: features.0 is the first convolution, features.1 its norm.
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def feature_map(self, image: Tensor) -> Tensor:
        """``(n, 1, S, S)`` in [0, 1] -> last feature map ``(n, 512, S / 16, S / 16)``."""
        x = self.features[:7](three_planes(image))  # (n, 64, S / 2, S / 2)
        x = self.features[7:14](x)  # (n, 128, S / 4, S / 4)
        x = self.features[14:24](x)  # (n, 256, S / 8, S / 8)
        x = self.features[24:34](x)  # (n, 512, S / 16, S / 16)
        return self.features[34:](x)  # (n, 512, S / 16, S / 16)
