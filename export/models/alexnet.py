"""AlexNet trunk with torchvision's state-dict names, for grey CT slices."""

from __future__ import annotations

from torch import Tensor, nn

from export.models.backbone import Backbone, three_planes


class AlexNet(Backbone):
    """AlexNet without its last max pooling and classifier, pooled by GeM.

    The single-column form that torchvision has (Krizhevsky 2014). It has no batch norm: started
    by the rule of He et al. 2015 it learns from random weights at a moderate learning rate. As
    in Radenovic et al. 2018, the pooling takes the place of the last max pooling.

    References
    ----------
    Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks";
    Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks".
    """

    n_features = 256
    dropped_keys = ("classifier.",)

    def __init__(self, gem_p: float = 3.0) -> None:
        super().__init__(gem_p)
        # Numbered as in torchvision. Sizes for S = 224: 55, 27, 13.
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),  # 0: (n, 64, ~S / 4, ~S / 4)
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # 2: (n, 64, ~S / 8, ~S / 8)
            nn.Conv2d(64, 192, 5, padding=2),  # 3: (n, 192, ~S / 8, ~S / 8)
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # 5: (n, 192, ~S / 16, ~S / 16)
            nn.Conv2d(192, 384, 3, padding=1),  # 6: (n, 384, ~S / 16, ~S / 16)
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),  # 8: (n, 256, ~S / 16, ~S / 16)
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),  # 10: (n, 256, ~S / 16, ~S / 16)
            nn.ReLU(inplace=True),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def feature_map(self, image: Tensor) -> Tensor:
        """``(n, 1, S, S)`` in [0, 1], S 32 or more -> last feature map ``(n, 256, h, w)``."""
        return self.features(three_planes(image))
