"""From a torch module to a named, simplified ONNX graph, and graphs to files."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from ildsdk.errors import ModelError

OPSET = 17

Arrays = Mapping[str, npt.NDArray[np.float32]]

_LOG_ERROR = 3


def traced(
    module: nn.Module, example: Arrays, outputs: Sequence[str], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Graph of a module with fixed names and a free batch axis.

    Parameters
    ----------
    module : Module
        Takes the values of ``example`` in their order.
    example : mapping
        Input name to float32 array; all axes but the first are fixed by it.
    outputs : sequence of str
    metadata : mapping
        Metadata properties of the file.
    """
    stream = io.BytesIO()
    tensors = tuple(torch.from_numpy(value) for value in example.values())
    with torch.inference_mode(), warnings.catch_warnings():
        # The TorchScript exporter is announced as legacy; it is four times faster than the
        # newer one and gives the same graph, which the parity check holds it to.
        warnings.simplefilter("ignore")
        found = module.eval()(*tensors)
        torch.onnx.export(
            module,
            tensors,
            stream,
            dynamo=False,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (*example, *outputs)},
            opset_version=OPSET,
            do_constant_folding=True,
        )
    graph = simplified(onnx.load_from_string(stream.getvalue()))
    shapes = [value.shape[1:] for value in ((found,) if torch.is_tensor(found) else found)]
    _state_axes(graph, dict(zip(outputs, shapes, strict=True)))
    set_metadata(graph, metadata)
    return graph


def simplified(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Graph after ONNX Runtime's basic optimisations: constants folded, copies taken out.

    They are what every session begins with when it opens the file, so nothing else runs; the file
    says it with fewer nodes (of explain.onnx 107 instead of 267). A simplifier of its own would
    be one more dependency for the same.

    Raises
    ------
    ModelError
        The result needs operators that are not ONNX's own.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = _LOG_ERROR
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simplified.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        result = onnx.load(path)
    foreign = sorted({node.domain for node in result.graph.node} - {""})
    if foreign:
        raise ModelError(f"the simplified graph uses operators of {', '.join(foreign)}")
    # ONNX Runtime lists all domains it knows.
    del result.opset_import[:]
    result.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return result


def _state_axes(graph: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """State the axes behind the batch axis, which the exporter leaves symbolic."""
    for value in graph.graph.output:
        for axis, size in enumerate(shapes[value.name], start=1):
            value.type.tensor_type.shape.dim[axis].Clear()
            value.type.tensor_type.shape.dim[axis].dim_value = size


def set_metadata(graph: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Replace the metadata properties and name the producer."""
    graph.producer_name = "ildsdk export"
    graph.producer_version = torch.__version__
    onnx.helper.set_model_props(graph, dict(metadata))


def write_graphs(out: Path, graphs: Mapping[str, onnx.ModelProto]) -> None:
    """Check and write all graphs, or none: file name to graph."""
    drafts = []
    try:
        for name, graph in graphs.items():
            onnx.checker.check_model(graph, full_check=True)
            draft = out / f"{name}.partial"
            drafts.append((draft, out / name))
            onnx.save_model(graph, draft, save_as_external_data=False)
        for draft, final in drafts:
            os.replace(draft, final)
    except BaseException:
        for draft, _ in drafts:
            draft.unlink(missing_ok=True)
        raise


def run_graph(
    graph: onnx.ModelProto, inputs: Arrays, output: str | None = None
) -> npt.NDArray[np.float32]:
    """One output of a graph on the CPU, the first one if not named."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = output or session.get_outputs()[0].name
    return np.asarray(session.run([wanted], dict(inputs))[0], dtype=np.float32)


def rows_of(inputs: Arrays, rows: slice) -> dict[str, npt.NDArray[np.float32]]:
    """These rows of every input."""
    return {name: value[rows] for name, value in inputs.items()}
