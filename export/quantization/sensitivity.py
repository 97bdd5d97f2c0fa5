"""Which steps suffer from integers: each alone in int8, all others in float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx

from export.quantization.qdq import Range, steps_of, to_qdq

Embed = Callable[[onnx.ModelProto], npt.NDArray[np.float32]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Change of the embeddings by one step in int8.

    Attributes
    ----------
    step : str
        Name of the node.
    squared_distance : float
        Mean over the slices, of the embedding to that of float32.
    share : float
        Of the sum over all steps.
    """

    step: str
    squared_distance: float
    share: float


def measure_sensitivity(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    embed: Embed,
    reference: npt.NDArray[np.float32],
    *,
    symmetric: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Sensitivity]:
    """Sensitivity of every step, the most sensitive first.

    Parameters
    ----------
    embed : callable
        Embeddings of the slices by a graph, float32 ``(n, d)``.
    reference : ndarray
        Those of float32.
    symmetric : bool
        As in :func:`~export.quantization.qdq.to_qdq`.
    """
    names = [step.name for step in steps_of(model, symmetric=symmetric)]
    found = {}
    for done, name in enumerate(names, start=1):
        others = [other for other in names if other != name]
        alone = to_qdq(model, ranges, others, symmetric=symmetric)
        change = embed(alone).astype(np.float64) - reference
        found[name] = float((change**2).sum(axis=1).mean())
        progress(done, len(names))
    total = sum(found.values()) or 1.0
    return [
        Sensitivity(step=name, squared_distance=distance, share=distance / total)
        for name, distance in sorted(found.items(), key=lambda entry: -entry[1])
    ]
