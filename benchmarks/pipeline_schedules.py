"""Ways to spread the stages of many slices over a few threads, for comparison.

Each takes headers and returns embeddings in order. ``slice_parallel`` is what the library does;
``prepare_ahead`` is what it did before: decoding, mask and radiomics on all threads but one, the
network with all threads on the caller's.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ildsdk.dicom import SliceHeader, read_slice
from ildsdk.encoder import Encoder
from ildsdk.lung import segment_lung
from ildsdk.model_input import model_input
from ildsdk.runtime.networks import Networks

Embeddings = list[np.ndarray]


class Stages:
    """The stages of one slice with the networks of a caller's choice."""

    def __init__(self, encoder: Encoder, networks: Networks) -> None:
        self.encoder, self.networks = encoder, networks

    def prepared(self, header: SliceHeader) -> tuple[np.ndarray, np.ndarray]:
        """Model input and radiomics features."""
        ct_slice = read_slice(header)
        method = self.encoder.bundle.method
        lung = segment_lung(
            ct_slice.pixels_hu, ct_slice.pixel_spacing_mm, min_area_mm2=method.min_lung_area_mm2
        )
        features, _ = self.encoder._features(ct_slice, lung)
        image = model_input(ct_slice.pixels_hu, ct_slice.pixel_spacing_mm, lung.lung_mask, method)
        return image, features

    def embedded(self, image: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Embedding of a prepared slice."""
        radiomics = self.encoder.bundle.scaler.transform(features)[np.newaxis]
        return self.networks.embed(image[np.newaxis], lambda: radiomics)[0][0]


def prepare_ahead(
    stages: Stages, headers: Sequence[SliceHeader], n_threads: int, n_preparing: int
) -> Embeddings:
    """Prepare slices on ``n_preparing`` threads, run the network on the caller's."""
    found: Embeddings = []
    pending: collections.deque = collections.deque()
    with ThreadPoolExecutor(n_preparing) as pool:
        for header in headers:
            pending.append(pool.submit(stages.prepared, header))
            if len(pending) >= 2 * n_threads:
                found.append(stages.embedded(*pending.popleft().result()))
        while pending:
            found.append(stages.embedded(*pending.popleft().result()))
    return found


def slice_parallel(
    stages: Stages, headers: Sequence[SliceHeader], n_threads: int, n_networks: int | None = None
) -> Embeddings:
    """Take each slice through all stages on one thread; ``n_networks`` run at once at most."""
    gate = threading.Semaphore(n_networks or n_threads)

    def work(header: SliceHeader) -> np.ndarray:
        image, features = stages.prepared(header)
        with gate:
            return stages.embedded(image, features)

    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, headers))
