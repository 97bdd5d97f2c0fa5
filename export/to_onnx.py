"""Export of backbone, fusion net and explain graph to ONNX, parity checked; all files or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from export.compress import compress_weights
from export.explain.locations import Locations, gradient_maps
from export.folding import FoldedBackbone, FoldedFusion
from export.models.ild_ffn import IldFfn
from export.models.resnet import ResNet50
from export.onnx_graph import OPSET, rows_of, run_graph, set_metadata, traced, write_graphs
from export.parity import TOLERANCES, Parity, check_parity, compare
from ildsdk.errors import ModelError

BACKBONE_NAME, FUSION_NAME, EXPLAIN_NAME = "backbone.onnx", "fusion.onnx", "explain.onnx"
MIN_COMPRESSED_COSINE = 0.999


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made and measured.

    Attributes
    ----------
    backbone, fusion, explain : Path
    parity : tuple of Parity
        Of the uncompressed graphs.
    compressed_cosine_min, compressed_cosine_mean : float or None
        Embeddings of the files written against the uncompressed ones; None without compression.
    """

    backbone: Path
    fusion: Path
    explain: Path
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
    """Write ``backbone.onnx``, ``fusion.onnx`` and ``explain.onnx``.

    Parameters
    ----------
    backbone, fusion
        Trained networks; not changed.
    out : Path
        Folder, made if missing.
    images : ndarray
        float32 ``(n, 1, S, S)`` real model inputs for the checks, n at least 2; S is fixed in
        the graph.
    radiomics : ndarray
        float32 ``(n, p)`` standardised features of the same slices.
    compress : bool
        Store the backbone's weights as int8 (:mod:`export.compress`).
    metadata : mapping or None
        Further metadata properties of all files.
    say : callable
        Gets one line per check.

    Raises
    ------
    ModelError
        ONNX Runtime differs from torch by more than the output's tolerance
        (:data:`export.parity.TOLERANCES`), or the compressed embeddings' cosine falls under
        :data:`MIN_COMPRESSED_COSINE`. No file is left.
    """
    out.mkdir(parents=True, exist_ok=True)
    images = np.ascontiguousarray(images, dtype=np.float32)
    radiomics = np.ascontiguousarray(radiomics, dtype=np.float32)
    # The reference of the checks is the trained networks, so folding is checked along with export.
    with torch.inference_mode():
        maps = [backbone.eval().feature_map(torch.from_numpy(image[None])) for image in images]
        deep = np.concatenate([backbone.gem(one).numpy() for one in maps])
        embedding = fusion.eval()(torch.from_numpy(deep), torch.from_numpy(radiomics)).numpy()
        feature_map = torch.cat(maps).numpy()
    about = {"opset": str(OPSET), "gem_p": f"{backbone.gem.p:g}", **(metadata or {})}
    inputs = {
        BACKBONE_NAME: {"image": images},
        FUSION_NAME: {"deep_features": deep, "radiomics": radiomics},
        EXPLAIN_NAME: {"feature_map": feature_map, "radiomics": radiomics},
    }
    locations = Locations(fusion, backbone.gem).eval()
    graphs = {
        name: traced(
            module,
            rows_of(inputs[name], slice(2)),
            outputs,
            {**about, "role": name.removesuffix(".onnx"), "weights": "float32"},
        )
        for name, module, outputs in (
            (BACKBONE_NAME, FoldedBackbone(backbone), ("deep_features", "feature_map")),
            (FUSION_NAME, FoldedFusion(fusion), ("embedding",)),
            (EXPLAIN_NAME, locations, ("locations",)),
        )
    }
    with torch.inference_mode():
        vectors = np.concatenate(
            [
                locations(one, torch.from_numpy(radiomics[i : i + 1])).numpy()
                for i, one in enumerate(maps)
            ]
        )
    expected = {
        (BACKBONE_NAME, "deep_features"): deep,
        (BACKBONE_NAME, "feature_map"): feature_map,
        (FUSION_NAME, "embedding"): embedding,
        (EXPLAIN_NAME, "locations"): vectors,
    }
    parity = []
    for (name, output), values in expected.items():
        parity.append(check_parity(name, graphs[name], inputs[name], output, values))
        say(str(parity[-1]))
    # What the location vectors are for: maps of the slices for each other, against autograd
    # through the trained networks, which knows nothing of how Locations is written.
    targets = np.roll(embedding, 1, axis=0)
    by_autograd = gradient_maps(
        fusion, backbone.gem, *map(torch.from_numpy, (feature_map, radiomics, targets))
    )
    found = np.concatenate(
        [
            run_graph(graphs[EXPLAIN_NAME], rows_of(inputs[EXPLAIN_NAME], slice(i, i + 1)))
            for i in range(len(images))
        ]
    )
    found = np.einsum("nkd,nd->nk", found, targets)
    parity.append(compare(f"{EXPLAIN_NAME} maps", found, by_autograd.numpy(), TOLERANCES["maps"]))
    say(str(parity[-1]))

    cosine_min = cosine_mean = None
    if compress:
        graphs[BACKBONE_NAME] = compress_weights(graphs[BACKBONE_NAME])
        set_metadata(
            graphs[BACKBONE_NAME], {**about, "role": "backbone", "weights": "int8 per channel"}
        )
        deep_again = run_graph(graphs[BACKBONE_NAME], {"image": images})
        again = run_graph(
            graphs[FUSION_NAME], {"deep_features": deep_again, "radiomics": radiomics}
        )
        cosine = (again * embedding).sum(axis=1)
        cosine_min, cosine_mean = float(cosine.min()), float(cosine.mean())
        say(f"compressed vs float32 embedding: cosine min {cosine_min:.6f}, mean {cosine_mean:.6f}")
        if not cosine_min >= MIN_COMPRESSED_COSINE:
            raise ModelError(
                f"compressed weights turn an embedding to cosine {cosine_min:.5f}, expected "
                f"{MIN_COMPRESSED_COSINE} or more; nothing was written. Export without compression"
            )
    write_graphs(out, graphs)
    return ExportReport(
        backbone=out / BACKBONE_NAME,
        fusion=out / FUSION_NAME,
        explain=out / EXPLAIN_NAME,
        parity=tuple(parity),
        compressed_cosine_min=cosine_min,
        compressed_cosine_mean=cosine_mean,
    )
