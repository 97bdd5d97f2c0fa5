"""ResNet-50 trunk with torchvision's state-dict names, for grey CT slices.

The definition is our own because torchvision does not import beside the CPU build of torch used
here. Its parameter names are torchvision's, so that ImageNet or RadImageNet weights in that naming
load strictly; only the classifier (``fc.weight``, ``fc.bias``) is dropped, by name.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from export.models.gem import GeM
from ildsdk.errors import ModelError

N_DEEP_FEATURES = 2048
DROPPED_KEYS = ("fc.weight", "fc.bias")
_BLOCKS_PER_STAGE = (3, 4, 6, 3)
# One mean and one deviation for all three channels: with a grey input the three planes are equal,
# and a common mean lets conv1 fold to one channel exactly, zero padding included (export.to_onnx).
# The values are the channel averages of ImageNet's usual normalisation.
GREY_MEAN = 0.449
GREY_STD = 0.226


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


class ResNet50(nn.Module):
    """ResNet-50 without average pooling and classifier, pooled by GeM.

    Input is ``(n, 1, S, S)`` float32 in [0, 1] (lung-windowed); normalisation and the
    repetition to three channels happen inside, so one input contract serves any weights.

    Parameters
    ----------
    gem_p : float
        Exponent of the pooling (eq. 1).

    References
    ----------
    He et al. 2016, "Deep residual learning for image recognition"; Chen et al. 2025, section 2.
    """

    def __init__(self, gem_p: float = 3.0) -> None:
        super().__init__()
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
        self.gem = GeM(gem_p)
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

    def forward(self, image: Tensor) -> Tensor:
        """``(n, 1, S, S)`` in [0, 1] -> deep features X ``(n, 2048)``, float32."""
        return self.gem(self.feature_map(image))


def load_torchvision_weights(model: ResNet50, path: Path) -> None:
    """Load a state dict in torchvision's ResNet-50 naming, strictly, dropping the classifier.

    Parameters
    ----------
    model : ResNet50
        Changed in place.
    path : Path
        ``.safetensors``, or a ``torch.save`` file holding a plain state dict (read with
        ``weights_only=True``: no code in the file is run). A wrapping ``"state_dict"`` entry
        and a ``"module."`` prefix are unwrapped. The license of the weights is the user's to check.

    Raises
    ------
    ModelError
        The file cannot be read, or a key or shape differs from ResNet-50's.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"initial weights {path.name} cannot be read as a state dict: {error}"
        ) from error
    if isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if key not in DROPPED_KEYS}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelError(
            f"initial weights {path.name} are not ResNet-50 in torchvision's naming: {error}"
        ) from error
