"""Embeddings of prepared slices by one form of the backbone and the bundle's fusion net."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

_LOG_ERROR = 3


def open_graph(
    graph: Path | bytes, n_threads: int, *, optimized: bool = True
) -> onnxruntime.InferenceSession:
    """Session of a graph on the CPU; a file is opened by its path, for what it refers to."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = _LOG_ERROR
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        graph if isinstance(graph, bytes) else str(graph),
        options,
        providers=["CPUExecutionProvider"],
    )


def deep_features(
    graph: Path | bytes, images: Sequence[npt.NDArray[np.float32]], *, n_threads: int = 2
) -> npt.NDArray[np.float32]:
    """Deep features of images ``(1, 1, S, S)``, float32 ``(n, q)``, one by one as a query runs."""
    session = open_graph(graph, n_threads)
    found = [session.run(["deep_features"], {"image": image})[0][0] for image in images]
    return np.stack(found).astype(np.float32)


def embed(
    fusion: Path, deep: npt.NDArray[np.float32], radiomics: npt.NDArray[np.float32],
    *, n_threads: int = 2,
) -> npt.NDArray[np.float32]:  # fmt: skip
    """Embeddings from deep features and standardised radiomics, float32 ``(n, d)``, unit norm."""
    session = open_graph(fusion, n_threads)
    found = np.concatenate(
        [
            session.run(
                ["embedding"],
                {"deep_features": deep[row : row + 1], "radiomics": radiomics[row : row + 1]},
            )[0]
            for row in range(len(deep))
        ]
    )
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)
