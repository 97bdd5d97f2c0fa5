"""Our activation maps beside HiResCAM and GradCAM of the package grad-cam, on the same network.

grad-cam imports torchvision, which does not import beside the CPU build of torch used here, so it
runs under an interpreter of its own (some 5.5 GB):

    python3 -m venv /tmp/gradcam-venv
    /tmp/gradcam-venv/bin/pip install torch torchvision numpy scipy matplotlib scikit-learn \
        opencv-python-headless ttach tqdm
    /tmp/gradcam-venv/bin/pip install --no-deps grad-cam
    /tmp/gradcam-venv/bin/python benchmarks/compare_grad_cam.py

Random weights: the formulas are compared, not what a model looks at. HiResCAM is the same map.
GradCAM averages the gradient over the places first; how far it is from ours is printed for
reading, it need not agree.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pytorch_grad_cam import GradCAM, HiResCAM
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
from export.explain.locations import Locations
from export.models.ild_ffn import IldFfn
from export.models.resnet import ResNet50

N_SLICES, SIDE = 4, 160


class Embedder(nn.Module):
    """Image to embedding with radiomics held fixed: the one-input model that grad-cam takes."""

    def __init__(self, backbone: ResNet50, fusion: IldFfn, radiomics: Tensor) -> None:
        super().__init__()
        self.backbone, self.fusion, self.radiomics = backbone, fusion, radiomics

    def forward(self, image: Tensor) -> Tensor:
        """``(n, 1, S, S) -> (n, d)``."""
        return self.fusion(self.backbone(image), self.radiomics)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)
    backbone, fusion = ResNet50(), IldFfn()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
    with torch.no_grad():
        for network in (backbone, fusion):
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None  # statistics of the pass below
        fusion(backbone(torch.rand(8, 1, SIDE, SIDE)), torch.randn(8, 102))
    backbone.eval(), fusion.eval()
    image, radiomics = torch.rand(N_SLICES, 1, SIDE, SIDE), torch.randn(N_SLICES, 102)
    target = functional.normalize(torch.randn(N_SLICES, 128), dim=1)

    with torch.inference_mode():
        vectors = Locations(fusion, backbone.gem)(backbone.feature_map(image), radiomics)
        ours = (vectors @ target.unsqueeze(2)).squeeze(2).numpy()
    targets = [lambda embedding, t=t: embedding @ t for t in target]
    model = Embedder(backbone, fusion, radiomics)
    print(f"grad-cam {version('grad-cam')}, torch {torch.__version__}, {ours.shape} places")
    for method in (HiResCAM, GradCAM):
        with method(model, [backbone.layer4[-1]]) as cam:
            # The whole call once, which fills activations and gradients; then the signed map
            # before it is clipped, stretched to [0, 1] and enlarged.
            shown = cam(image, targets)
            hooks = cam.activations_and_grads
            signed = cam.get_cam_image(
                image, backbone.layer4[-1], targets,
                hooks.activations[0].numpy(), hooks.gradients[0].numpy(), False,
            )  # fmt: skip
        theirs = signed.reshape(N_SLICES, -1)
        difference = np.abs(theirs - ours).max() / np.abs(theirs).max()
        correlation = np.corrcoef(theirs.ravel(), ours.ravel())[0, 1]
        print(
            f"{method.__name__}: largest difference {difference:.3g} of the largest value, "
            f"correlation {correlation:.6f} (its picture: {shown.shape}, {shown.min():g} to "
            f"{shown.max():g})"
        )


if __name__ == "__main__":
    main()
