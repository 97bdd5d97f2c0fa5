"""The same architecture with random weights: what its maps score is owed to no training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from export.explain.locations import Locations
from export.models.ild_ffn import IldFfn
from export.models.resnet import Bottleneck, ResNet50

Array = npt.NDArray[np.float32]


class RandomNetwork:
    """Randomly started backbone and fusion net, whose batch norms have seen some slices.

    Parameters
    ----------
    images, radiomics : ndarray
        float32 ``(n, 1, S, S)``, standardised ``(n, p)``: slices that give batch norm its
        statistics, without which activations would grow from layer to layer.
    embedding_size : int
    gem_p : float
    seed : int
    """

    def __init__(
        self, images: Array, radiomics: Array, embedding_size: int, gem_p: float, seed: int
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            backbone = ResNet50(gem_p)
            fusion = IldFfn(2048, radiomics.shape[1], embedding_size)
        for module in (*backbone.modules(), *fusion.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # plain averages
            elif isinstance(module, Bottleneck):
                nn.init.ones_(module.bn3.weight)  # training starts it at 0: no residual branch
        with torch.no_grad():
            fusion(backbone(torch.from_numpy(images)), torch.from_numpy(radiomics))
        self._backbone, self._fusion = backbone.eval(), fusion.eval()
        self._locations = Locations(fusion, backbone.gem).eval()

    def embed(self, image: Array, radiomics: Array) -> Array:
        """``(1, S, S)``, standardised ``(p,)`` -> unit ``(d,)``."""
        with torch.inference_mode():
            deep = self._backbone(torch.from_numpy(image[np.newaxis]))
            return self._fusion(deep, torch.from_numpy(radiomics[np.newaxis]))[0].numpy()

    def locate(self, image: Array, radiomics: Array) -> tuple[Array, Array]:
        """Embedding ``(d,)`` and location vectors ``(h, w, d)``."""
        values = torch.from_numpy(radiomics[np.newaxis])
        with torch.inference_mode():
            feature_map = self._backbone.feature_map(torch.from_numpy(image[np.newaxis]))
            embedding = self._fusion(self._backbone.gem(feature_map), values)[0].numpy()
            vectors = self._locations(feature_map, values)[0]
        return embedding, vectors.reshape(*feature_map.shape[2:], -1).numpy()
