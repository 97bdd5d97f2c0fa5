"""The embedded network at another input size, to measure where the network is the main work.

The weights are those of the embedded bundle, trained at 160 x 160: at 512 x 512 the answers mean
nothing, the arithmetic is that of a ResNet-50 of that size.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import onnx

from ildsdk import defaults
from ildsdk.bundle import Bundle, write_bundle


def write_bundle_of_size(folder: Path, input_size: int) -> Bundle:
    """Write a bundle whose backbone takes ``input_size`` x ``input_size`` pixels."""
    embedded = Bundle.open(defaults.bundle_path())
    model = onnx.load(embedded.backbone)
    for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_value = input_size
    for output in model.graph.output:
        for axis in output.type.tensor_type.shape.dim[2:]:
            axis.ClearField("dim_value")
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory() as parts:
        backbone = Path(parts) / "backbone.onnx"
        onnx.save(model, backbone)
        return write_bundle(
            folder,
            name=f"embedded-at-{input_size}",
            method=dataclasses.replace(embedded.method, input_size=input_size),
            backbone=backbone,
            fusion=embedded.fusion,
            scaler=embedded.scaler,
            labels=embedded.labels,
            embedding_size=embedded.embedding_size,
            gem_p=embedded.gem_p,
            is_synthetic=True,
            provenance={"made_by": "benchmarks.larger_input"},
            figures={},
            license=embedded.license,
            intended_use="measurements only",
        )
