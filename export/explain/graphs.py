"""The three exported graphs of a folder, one slice at a time: embedding and location vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from export.to_onnx import BACKBONE_NAME, EXPLAIN_NAME, FUSION_NAME
from ildsdk.errors import ModelError

Array = npt.NDArray[np.float32]


class Graphs:
    """``backbone.onnx``, ``fusion.onnx`` and ``explain.onnx`` of a bundle or ONNX folder.

    Raises
    ------
    ModelError
        The folder has no ``explain.onnx``.
    """

    def __init__(self, folder: Path, n_threads: int = 2) -> None:
        if not (folder / EXPLAIN_NAME).is_file():
            raise ModelError(
                f"{folder.name!r} has no {EXPLAIN_NAME}: export the model again, and assemble the "
                "bundle from that"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        self._backbone, self._fusion, self._explain = (
            onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
            for name in (BACKBONE_NAME, FUSION_NAME, EXPLAIN_NAME)
        )

    def embed(self, image: Array, radiomics: Array) -> Array:
        """``(1, S, S)``, standardised ``(p,)`` -> unit ``(d,)``."""
        (deep,) = self._backbone.run(["deep_features"], {"image": image[np.newaxis]})
        return self._fuse(deep, radiomics)

    def locate(self, image: Array, radiomics: Array) -> tuple[Array, Array]:
        """Embedding ``(d,)`` and location vectors ``(h, w, d)``."""
        deep, feature_map = self._backbone.run(
            ["deep_features", "feature_map"], {"image": image[np.newaxis]}
        )
        (vectors,) = self._explain.run(
            ["locations"], {"feature_map": feature_map, "radiomics": radiomics[np.newaxis]}
        )
        return self._fuse(deep, radiomics), vectors.reshape(*feature_map.shape[2:], -1)

    def _fuse(self, deep: Array, radiomics: Array) -> Array:
        inputs = {"deep_features": deep, "radiomics": radiomics[np.newaxis]}
        return np.asarray(self._fusion.run(["embedding"], inputs)[0][0])
