"""Distributions of activations over calibration slices, and the ranges drawn from them.

Methods: ``minmax`` represents every value seen; ``percentile`` leaves a share of the largest
values out; ``entropy`` cuts where the rounded distribution stays closest to the real one
(Kullback-Leibler divergence; S. Migacz, "8-bit inference with TensorRT", GTC 2017); ``mse`` cuts
where the mean squared error of rounding and cutting is least.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from export.quantization.qdq import Range

_N_BINS = 4096
_SHARES = np.linspace(0.2, 1.0, 81)


@dataclasses.dataclass(frozen=True, slots=True)
class Distribution:
    """Histogram of one activation.

    Attributes
    ----------
    low, high : float
        Smallest and largest value seen.
    counts : ndarray
        int64 ``(4096,)``, values in equal bins of [-r, r], or of [0, r] where none is negative;
        r is the largest absolute value.
    """

    low: float
    high: float
    counts: npt.NDArray[np.int64]

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Edges of the bins, ``(4097,)``."""
        return np.linspace(*_span(self.low, self.high), _N_BINS + 1)


def collect(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    images: Sequence[npt.NDArray[np.float32]],
    *,
    n_threads: int = 2,
) -> dict[str, Distribution]:
    """Distributions of activations of a float32 graph over images ``(n, 1, S, S)``.

    The images are run twice, for limits and for counts: memory holds one image's activations.
    """
    limits = {name: (np.inf, -np.inf) for name in tensors}
    for values in _activations(model, tensors, images, n_threads):
        for name, value in values.items():
            low, high = limits[name]
            limits[name] = (min(low, float(value.min())), max(high, float(value.max())))
    counts = {name: np.zeros(_N_BINS, np.int64) for name in tensors}
    for values in _activations(model, tensors, images, n_threads):
        for name, value in values.items():
            counts[name] += np.histogram(value, _N_BINS, range=_span(*limits[name]))[0]
    return {name: Distribution(*limits[name], counts[name]) for name in tensors}


def ranges(
    distributions: Mapping[str, Distribution],
    method: str,
    percentile: float = 99.99,
    *,
    symmetric: bool = False,
) -> dict[str, Range]:
    """Range of each activation.

    Parameters
    ----------
    method : {"minmax", "percentile", "entropy", "mse"}
    percentile : float
        ``method="percentile"``: percent of absolute values inside the range.
    symmetric : bool
        For int8 with zero point 0, which has half the levels where no value is negative.
    """
    chosen = {}
    for name, distribution in distributions.items():
        low, high = distribution.low, distribution.high
        if method != "minmax" and high > low:
            limit = {
                "percentile": lambda d: _percentile_limit(d, percentile),
                "entropy": lambda d: _entropy_limit(d, symmetric),
                "mse": lambda d: _mse_limit(d, symmetric),
            }[method](distribution)
            low, high = max(low, -limit), min(high, limit)
        chosen[name] = (low, high)
    return chosen


def _span(low: float, high: float) -> tuple[float, float]:
    largest = max(abs(low), abs(high)) or 1.0
    return (0.0 if low >= 0 else -largest), largest


def _activations(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    images: Iterable[npt.NDArray[np.float32]],
    n_threads: int,
) -> Iterable[dict[str, npt.NDArray[np.float32]]]:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    input_name = watched.graph.input[0].name
    known = {value.name for value in watched.graph.output}
    inner = [name for name in tensors if name != input_name]
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in inner
        if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for image in images:
        found = dict(zip(inner, session.run(inner, {input_name: image}), strict=True))
        yield found | ({input_name: image} if input_name in tensors else {})


def _magnitudes(distribution: Distribution) -> npt.NDArray[np.int64]:
    """Counts of absolute values, in bins of equal width from 0."""
    counts = distribution.counts
    if distribution.low >= 0:
        return counts
    half = _N_BINS // 2
    folded: npt.NDArray[np.int64] = counts[half:] + counts[:half][::-1]
    return folded


def _percentile_limit(distribution: Distribution, percentile: float) -> float:
    counts = _magnitudes(distribution)
    bins = int(np.searchsorted(np.cumsum(counts), counts.sum() * percentile / 100)) + 1
    return bins * distribution.edges[-1] / counts.size


def _mse_limit(distribution: Distribution, symmetric: bool) -> float:
    edges = distribution.edges
    values, counts = (edges[:-1] + edges[1:]) / 2, distribution.counts
    errors = []
    for share in _SHARES:
        limit = share * edges[-1]
        low, high = max(distribution.low, -limit), min(distribution.high, limit)
        if symmetric:
            high = max(abs(low), abs(high))
            low = -high
        scale = (max(high, 0) - min(low, 0)) / (254 if symmetric else 255)
        rounded = np.clip(np.rint(values / scale), np.rint(low / scale), np.rint(high / scale))
        errors.append(float((counts * (values - rounded * scale) ** 2).sum()))
    return float(_SHARES[int(np.argmin(errors))] * edges[-1])


def _entropy_limit(distribution: Distribution, symmetric: bool) -> float:
    """Limit whose levels of magnitude keep the distribution best, by KL divergence.

    Zeros are left out, as a ReLU's share of them says nothing about the rest.
    """
    counts = _magnitudes(distribution).astype(np.float64)
    counts[0] = 0
    n_levels = 256 if distribution.low >= 0 and not symmetric else 128
    best, best_bins = np.inf, counts.size
    for bins in range(n_levels, counts.size + 1, 16):
        reference = counts[:bins].copy()
        reference[-1] += counts[bins:].sum()
        level = np.arange(bins) * n_levels // bins
        filled = counts[:bins] > 0
        totals = np.bincount(level, counts[:bins], n_levels)
        members = np.bincount(level, filled, n_levels)
        spread = np.where(filled, (totals / np.maximum(members, 1))[level], 0)
        divergence = _divergence(reference, spread)
        if divergence < best:
            best, best_bins = divergence, bins
    return best_bins * distribution.edges[-1] / counts.size


def _divergence(reference: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    if reference.sum() == 0 or other.sum() == 0:
        return np.inf
    p, q = reference / reference.sum(), other / other.sum()
    where = p > 0
    # A value that rounding leaves no room for counts as very rare, not as impossible.
    return float((p[where] * np.log(p[where] / np.maximum(q[where], 1e-12))).sum())
