"""What the three backbones share: input, pooling, and the weights they can start from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from export.models.gem import GeM
from ildsdk.errors import ModelError

# One mean and one deviation for all three channels: with a grey input the three planes are equal,
# and a common mean lets conv1 fold to one channel exactly, zero padding included (export.to_onnx).
# The values are the channel averages of ImageNet's usual normalisation.
GREY_MEAN = 0.449
GREY_STD = 0.226


class Backbone(nn.Module, ABC):
    """A convolutional trunk pooled by GeM.

    Input is ``(n, 1, S, S)`` float32 in [0, 1] (lung-windowed); normalisation and the
    repetition to three channels happen inside, so one input contract serves any weights.

    Parameters
    ----------
    gem_p : float
        Exponent of the pooling (eq. 1).

    Attributes
    ----------
    n_features : int
        Channels of the last feature map, the length of the deep features X.
    dropped_keys : tuple of str
        Prefixes of torchvision's classifier, which is not part of the trunk.
    """

    n_features: ClassVar[int]
    dropped_keys: ClassVar[tuple[str, ...]]

    def __init__(self, gem_p: float = 3.0) -> None:
        super().__init__()
        self.gem = GeM(gem_p)

    @abstractmethod
    def feature_map(self, image: Tensor) -> Tensor:
        """``(n, 1, S, S)`` in [0, 1] -> last feature map ``(n, n_features, h, w)``, 0 or more."""

    def forward(self, image: Tensor) -> Tensor:
        """``(n, 1, S, S)`` in [0, 1] -> deep features X ``(n, n_features)``, float32."""
        return self.gem(self.feature_map(image))


def three_planes(image: Tensor) -> Tensor:
    """Normalise and repeat: ``(n, 1, S, S)`` in [0, 1] -> ``(n, 3, S, S)``, a view."""
    return ((image - GREY_MEAN) / GREY_STD).expand(-1, 3, -1, -1)


def make_backbone(name: str, gem_p: float = 3.0) -> Backbone:
    """A randomly started backbone by its name in :mod:`export.systems`."""
    from export.models.alexnet import AlexNet
    from export.models.resnet import ResNet50
    from export.models.vgg import Vgg16

    known = {"vgg16": Vgg16, "alexnet": AlexNet, "resnet50": ResNet50}
    if name not in known:
        raise ValueError(f"backbone is {name!r}, expected one of {', '.join(known)}")
    return known[name](gem_p)


def load_torchvision_weights(model: Backbone, path: Path) -> None:
    """Load a state dict in torchvision's naming, strictly, dropping the classifier by name.

    Parameters
    ----------
    model : Backbone
        Changed in place.
    path : Path
        ``.safetensors``, or a ``torch.save`` file holding a plain state dict (read with
        ``weights_only=True``: no code in the file is run). A wrapping ``"state_dict"`` entry
        and a ``"module."`` prefix are unwrapped. The license of the weights is the user's to check.

    Raises
    ------
    ModelError
        The file cannot be read, or a key or shape differs from the model's.
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
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ModelError(
            f"initial weights {path.name} hold a {type(state).__name__}, expected a state dict"
        )
    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {k: v for k, v in state.items() if not k.startswith(model.dropped_keys)}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelError(
            f"initial weights {path.name} are not {type(model).__name__} in torchvision's naming: "
            f"{error}"
        ) from error
