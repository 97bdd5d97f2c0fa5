"""What a CPU without VNNI would cut off: pairs of products in saturating 16-bit arithmetic.

Without VNNI, integer kernels for uint8 activations and int8 weights multiply and add pairs
(``vpmaddubsw``): a0 w0 + a1 w1 is held in int16 and cut at its limits before it is summed in 32
bits. Two products reach 2 x 255 x 127 = 64,770, the limit is 32,767. Kernels walk the values of
a place channel by channel, so pairs are neighboring channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from export.quantization.embedding import open_graph

_INT16 = np.iinfo(np.int16)
_PRODUCTS_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """How much of one convolution is cut off.

    Attributes
    ----------
    name : str
    pairs, sums : float
        Share of pairs of products, and of output values, that the limit changes.
    error : float
        Root mean square of the change over that of the exact sums.
    """

    name: str
    pairs: float
    sums: float
    error: float


def saturating_product(
    activations: npt.NDArray[np.uint8], weights: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int]:
    """Matrix product as with VNNI, as without, and how many pairs were cut.

    Parameters
    ----------
    activations : ndarray
        uint8 ``(n, k)``.
    weights : ndarray
        int8 ``(m, k)``.

    Returns
    -------
    exact, saturated : ndarray
        int32 ``(n, m)``.
    n_cut : int
        Of ``n m ceil(k / 2)`` pairs.
    """
    padding = [(0, 0), (0, activations.shape[1] % 2)]
    a = np.pad(activations, padding).astype(np.int32)[:, np.newaxis]
    w = np.pad(weights, padding).astype(np.int32)[np.newaxis]
    products = a * w
    pairs = products[..., ::2] + products[..., 1::2]
    cut = np.clip(pairs, _INT16.min, _INT16.max)
    return pairs.sum(axis=2), cut.sum(axis=2), int(np.count_nonzero(cut != pairs))


def measure_saturation(
    model: onnx.ModelProto,
    images: Sequence[npt.NDArray[np.float32]],
    names: Sequence[str] | None = None,
    *,
    every: int = 1,
) -> list[Saturation]:
    """Saturation of the integer convolutions of a QDQ graph on these images.

    Parameters
    ----------
    model : ModelProto
        QDQ graph that holds its weights.
    names : sequence of str, optional
        Node names of the convolutions; all by default.
    every : int
        Looks at every so-manieth place of the output.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and made_by[node.input[1]].op_type == "DequantizeLinear"
        and (names is None or node.name in names)
    ]
    integers = {node.name: made_by[node.input[0]].input[0] for node in convolutions}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    wanted = sorted(set(integers.values()))
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in wanted
    )
    session = open_graph(watched.SerializeToString(), 1)
    found = [
        dict(zip(wanted, session.run(wanted, {"image": image}), strict=True)) for image in images
    ]
    result = []
    for node in convolutions:
        weight = numpy_helper.to_array(constants[made_by[node.input[1]].input[0]])
        zero = numpy_helper.to_array(constants[made_by[node.input[0]].input[2]])
        attributes = {a.name: a for a in node.attribute}
        patches = np.concatenate(
            [
                _patches(
                    values[integers[node.name]][0], weight.shape[2:],
                    list(attributes["strides"].ints), list(attributes["pads"].ints), int(zero),
                )[::every]
                for values in found
            ]
        )  # fmt: skip
        result.append(_of_convolution(node.name, patches, weight))
    return result


def _of_convolution(
    name: str, patches: npt.NDArray[np.uint8], weight: npt.NDArray[np.int8]
) -> Saturation:
    flat = np.ascontiguousarray(weight.transpose(0, 2, 3, 1).reshape(len(weight), -1))
    n_cut, changed, square_change, square = 0, 0, 0.0, 0.0
    at_once = max(1, _PRODUCTS_AT_ONCE // flat.size)
    for start in range(0, len(patches), at_once):
        exact, saturated, cut = saturating_product(patches[start : start + at_once], flat)
        change = (saturated - exact).astype(np.float64)
        n_cut += cut
        changed += int(np.count_nonzero(change))
        square_change += float((change**2).sum())
        square += float((exact.astype(np.float64) ** 2).sum())
    n_sums = len(patches) * len(weight)
    return Saturation(
        name=name,
        pairs=n_cut / (n_sums * -(-flat.shape[1] // 2)),
        sums=changed / n_sums,
        error=float(np.sqrt(square_change / square)) if square else 0.0,
    )


def _patches(
    image: npt.NDArray[np.uint8],
    kernel: tuple[int, ...],
    strides: Sequence[int],
    pads: Sequence[int],
    zero: int,
) -> npt.NDArray[np.uint8]:
    """Values under the kernel at each place, ``(n_places, rows columns channels)``."""
    padded = np.pad(
        image, [(0, 0), (pads[0], pads[2]), (pads[1], pads[3])], constant_values=zero
    )  # fmt: skip
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1]]
    rows, columns = windows.shape[1:3]
    return np.ascontiguousarray(windows.transpose(1, 2, 3, 4, 0)).reshape(rows * columns, -1)
