"""Export of backbone and fusion net to ONNX, with parity checks that leave no file on failure."""

from __future__ import annotations

import dataclasses
import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from export.compress import compress_weights
from export.folding import FoldedBackbone, FoldedFusion
from export.models.ild_ffn import IldFfn
from export.models.resnet import ResNet50
from ildsdk.errors import ModelError

OPSET = 17
BACKBONE_NAME, FUSION_NAME = "backbone.onnx", "fusion.onnx"
# Largest |torch - ONNX Runtime| relative to the largest |torch| value; float32 and a different
# order of summation give about 1e-6.
PARITY_TOLERANCE = 5e-5
MIN_COMPRESSED_COSINE = 0.999

Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Differences of an exported graph from the torch module it came from.

    Attributes
    ----------
    max_difference, mean_difference : float
        Absolute, over all outputs of all inputs.
    largest_value : float
        Largest absolute torch output, what the tolerance refers to.
    """

    name: str
    max_difference: float
    mean_difference: float
    largest_value: float

    def __str__(self) -> str:
        return (
            f"{self.name}: torch vs ONNX Runtime max {self.max_difference:.3g}, "
            f"mean {self.mean_difference:.3g} (largest value {self.largest_value:.3g})"
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made and measured.

    Attributes
    ----------
    backbone, fusion : Path
    parity : tuple of Parity
        Of the uncompressed graphs.
    compressed_cosine_min, compressed_cosine_mean : float or None
        Embeddings of the files written against the uncompressed ones; None without compression.
    """

    backbone: Path
    fusion: Path
    parity: tuple[Parity, ...]
    compressed_cosine_min: float | None
    compressed_cosine_mean: float | None


def export_models(
    backbone: ResNet50,
    fusion: IldFfn,
    out: Path,
    *,
    images: npt.NDArray[np.float32],
    radiomics: npt.NDArray[np.float32],
    compress: bool = True,
    metadata: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ExportReport:
    """Write ``backbone.onnx`` and ``fusion.onnx``.

    Parameters
    ----------
    backbone, fusion
        Trained networks; not changed.
    out : Path
        Folder, made if missing.
    images : ndarray
        float32 ``(n, 1, S, S)`` real model inputs for the checks; S is fixed in the graph.
    radiomics : ndarray
        float32 ``(n, p)`` standardised features of the same slices.
    compress : bool
        Store the backbone's weights as int8 (:mod:`export.compress`).
    metadata : mapping or None
        Further metadata properties of both files.
    say : callable
        Gets one line per check.

    Raises
    ------
    ModelError
        ONNX Runtime differs from torch by more than :data:`PARITY_TOLERANCE`, or the compressed
        embeddings' cosine falls under :data:`MIN_COMPRESSED_COSINE`. No file is left.
    """
    out.mkdir(parents=True, exist_ok=True)
    images = np.ascontiguousarray(images, dtype=np.float32)
    radiomics = np.ascontiguousarray(radiomics, dtype=np.float32)
    with torch.inference_mode():
        deep = np.concatenate(
            [backbone.eval()(torch.from_numpy(image[None])).numpy() for image in images]
        )
        embedding = fusion.eval()(torch.from_numpy(deep), torch.from_numpy(radiomics)).numpy()
    about = {"opset": str(OPSET), "gem_p": f"{backbone.gem.p:g}", **(metadata or {})}

    # The reference of the checks is the trained module, so folding is checked along with export.
    backbone_graph = _graph(
        FoldedBackbone(backbone), {"image": images[:2]}, "deep_features",
        {**about, "role": "backbone", "weights": "float32"},
    )  # fmt: skip
    fusion_inputs = {"deep_features": deep, "radiomics": radiomics}
    fusion_graph = _graph(
        FoldedFusion(fusion), {k: v[:2] for k, v in fusion_inputs.items()}, "embedding",
        {**about, "role": "fusion", "weights": "float32"},
    )  # fmt: skip
    parity = (
        check_parity(BACKBONE_NAME, backbone_graph, {"image": images}, deep),
        check_parity(FUSION_NAME, fusion_graph, fusion_inputs, embedding),
    )
    for result in parity:
        say(str(result))

    cosine_min = cosine_mean = None
    if compress:
        backbone_graph = compress_weights(backbone_graph)
        _set_metadata(backbone_graph, {**about, "role": "backbone", "weights": "int8 per channel"})
        deep_again = run_graph(backbone_graph, {"image": images})
        again = run_graph(fusion_graph, {"deep_features": deep_again, "radiomics": radiomics})
        cosine = (again * embedding).sum(axis=1)
        cosine_min, cosine_mean = float(cosine.min()), float(cosine.mean())
        say(f"compressed vs float32 embedding: cosine min {cosine_min:.6f}, mean {cosine_mean:.6f}")
        if not cosine_min >= MIN_COMPRESSED_COSINE:
            raise ModelError(
                f"compressed weights turn an embedding to cosine {cosine_min:.5f}, expected "
                f"{MIN_COMPRESSED_COSINE} or more; nothing was written. Export without compression"
            )
    _write(out, ((BACKBONE_NAME, backbone_graph), (FUSION_NAME, fusion_graph)))
    return ExportReport(
        backbone=out / BACKBONE_NAME,
        fusion=out / FUSION_NAME,
        parity=parity,
        compressed_cosine_min=cosine_min,
        compressed_cosine_mean=cosine_mean,
    )


def check_parity(
    name: str,
    graph: onnx.ModelProto,
    inputs: Arrays,
    expected: npt.NDArray[np.float32],
    tolerance: float = PARITY_TOLERANCE,
) -> Parity:
    """Compare ONNX Runtime with torch on these inputs, as one batch and one by one.

    Raises
    ------
    ModelError
        The largest difference is above ``tolerance`` times the largest value, or not finite.
    """
    n = len(expected)
    single = [run_graph_row(graph, inputs, row) for row in range(min(n, 2))]
    found = np.concatenate([run_graph(graph, inputs), *single])
    reference = np.concatenate([expected, *(expected[i : i + 1] for i in range(min(n, 2)))])
    difference = np.abs(found - reference)
    result = Parity(
        name=name,
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        largest_value=float(np.abs(reference).max()),
    )
    limit = tolerance * result.largest_value
    if not result.max_difference <= limit:  # also true for NaN
        raise ModelError(f"{result}, allowed {limit:.3g}; nothing was written")
    return result


def run_graph(graph: onnx.ModelProto, inputs: Arrays) -> npt.NDArray[np.float32]:
    """First output of a graph on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, dict(inputs))[0], dtype=np.float32)


def run_graph_row(graph: onnx.ModelProto, inputs: Arrays, row: int) -> npt.NDArray[np.float32]:
    """First output for one row of the inputs, as a batch of one."""
    return run_graph(graph, {name: value[row : row + 1] for name, value in inputs.items()})


def _graph(
    module: nn.Module, example: Arrays, output: str, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    stream = io.BytesIO()
    names = list(example)
    with torch.inference_mode(), warnings.catch_warnings():
        # The TorchScript exporter is announced as legacy; it is four times faster than the
        # newer one and gives the same graph, which the parity check holds it to.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(torch.from_numpy(value) for value in example.values()),
            stream,
            dynamo=False,
            input_names=names,
            output_names=[output],
            dynamic_axes={name: {0: "batch"} for name in (*names, output)},
            opset_version=OPSET,
            do_constant_folding=True,
        )
    graph = onnx.load_from_string(stream.getvalue())
    _name_static_axes(graph, [output], module, example)
    _set_metadata(graph, metadata)
    return graph


def _name_static_axes(
    graph: onnx.ModelProto, outputs: Sequence[str], module: nn.Module, example: Arrays
) -> None:
    """State the width of the output, which the exporter leaves symbolic."""
    with torch.inference_mode():
        width = module(*(torch.from_numpy(value) for value in example.values())).shape[1]
    for value in graph.graph.output:
        if value.name in outputs:
            value.type.tensor_type.shape.dim[1].Clear()
            value.type.tensor_type.shape.dim[1].dim_value = width


def _set_metadata(graph: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    graph.producer_name = "ildsdk export"
    graph.producer_version = torch.__version__
    onnx.helper.set_model_props(graph, dict(metadata))


def _write(out: Path, graphs: Sequence[tuple[str, onnx.ModelProto]]) -> None:
    drafts = []
    try:
        for name, graph in graphs:
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
