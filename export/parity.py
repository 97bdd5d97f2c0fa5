"""Is an exported graph the network it came from: torch against ONNX Runtime."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import onnx

from export.onnx_graph import Arrays, rows_of, run_graph
from ildsdk.errors import ModelError

# Largest |torch - ONNX Runtime| relative to the largest |torch| value, per output. float32 and a
# different order of summation give about 1e-6. Location vectors and maps get more: a ReLU whose
# input is rounded to the other side of 0 switches a gradient on or off (2.4e-4 was seen on a barely
# trained net). What is allowed stays under the rounding to 8 bits with which an index keeps them.
TOLERANCES = {
    "deep_features": 5e-5,
    "feature_map": 5e-5,
    "embedding": 5e-5,
    "locations": 5e-4,
    "maps": 5e-4,
}
_BATCH = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Differences of an exported graph from the torch module it came from.

    Attributes
    ----------
    name : str
        File and output.
    max_difference, mean_difference : float
        Absolute, over all values of all inputs.
    largest_value : float
        Largest absolute torch value, what the tolerance refers to.
    tolerance : float
        Largest difference allowed, as a share of ``largest_value``.
    """

    name: str
    max_difference: float
    mean_difference: float
    largest_value: float
    tolerance: float

    def __str__(self) -> str:
        return (
            f"{self.name}: torch vs ONNX Runtime max {self.max_difference:.3g}, "
            f"mean {self.mean_difference:.3g} (largest value {self.largest_value:.3g}, allowed "
            f"{self.tolerance * self.largest_value:.3g})"
        )


def check_parity(
    file_name: str,
    graph: onnx.ModelProto,
    inputs: Arrays,
    output: str,
    expected: npt.NDArray[np.float32],
) -> Parity:
    """Compare one output with torch on these inputs, in batches and alone.

    Raises
    ------
    ModelError
        The largest difference is above the output's tolerance, or not finite.
    """
    n = len(expected)
    # A batch at a time: the arrays between the nodes of explain.onnx take 50 MB a slice.
    batches = [slice(i, i + _BATCH) for i in range(0, n, _BATCH)]
    batches += [slice(i, i + 1) for i in range(min(n, 2))]
    found = [run_graph(graph, rows_of(inputs, rows), output) for rows in batches]
    reference = np.concatenate([expected[rows] for rows in batches])
    return compare(f"{file_name} {output}", np.concatenate(found), reference, TOLERANCES[output])


def compare(
    name: str,
    found: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    tolerance: float,
) -> Parity:
    """Differences of two arrays, refused above the tolerance.

    Raises
    ------
    ModelError
        As :func:`check_parity`.
    """
    difference = np.abs(found - expected)
    result = Parity(
        name=name,
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        largest_value=float(np.abs(expected).max()),
        tolerance=tolerance,
    )
    if not result.max_difference <= tolerance * result.largest_value:  # also true for NaN
        raise ModelError(f"{result}; nothing was written")
    return result
