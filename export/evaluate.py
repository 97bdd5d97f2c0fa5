"""Retrieval on held-out cases with the exported ONNX files, and its report.

What is measured is what ships: the graphs as written (compressed weights included), run by ONNX
Runtime. Held-out slices are the queries, the slices of the training cases the index.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tqdm import tqdm

from export.bundling import require_training_set
from export.dataset import SliceSet
from export.measures import retrieval_report
from export.provenance import model_hash
from export.to_onnx import BACKBONE_NAME, FUSION_NAME
from export.train import TrainedModel
from export.whole_files import write_json, write_whole
from ildsdk.radiomics.scaler import FeatureScaler

_SYSTEM_TITLES = {
    "fusion": "ILD-FFN + contrastive learning (what ships)",
    "deep": "deep features of the same backbone alone",
    "radiomics": "standardised radiomics alone",
}


def embed_slices(
    slices: SliceSet,
    onnx_folder: Path,
    scaler: FeatureScaler,
    n_threads: int = 2,
    show_progress: bool = True,
) -> dict[str, npt.NDArray[np.float32]]:
    """Unit vectors of every slice: ``fusion`` (the embedding), ``deep`` and ``radiomics`` alone.

    Returns
    -------
    dict
        System name to float32 ``(n, d)``, rows of norm 1.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    providers = ["CPUExecutionProvider"]
    backbone = onnxruntime.InferenceSession(
        onnx_folder / BACKBONE_NAME, options, providers=providers
    )
    fusion = onnxruntime.InferenceSession(onnx_folder / FUSION_NAME, options, providers=providers)
    radiomics = scaler.transform(slices.radiomics)
    deep, fused = [], []
    # One by one, as a query runs: batches gain nothing on a CPU.
    for row in tqdm(range(len(slices)), desc="embed", unit="slice", disable=not show_progress):
        image = slices.images[row : row + 1].astype(np.float32)
        x = backbone.run(["deep_features"], {"image": image})[0]
        y = radiomics[row : row + 1]
        deep.append(x[0])
        fused.append(fusion.run(["embedding"], {"deep_features": x, "radiomics": y})[0][0])
    return {
        "fusion": np.stack(fused),
        "deep": _unit(np.stack(deep)),
        "radiomics": _unit(radiomics),
    }


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norm, 1e-12)).astype(np.float32)


def evaluate(
    slices: SliceSet,
    trained: TrainedModel,
    onnx_folder: Path,
    out: Path,
    *,
    is_synthetic: bool,
    n_threads: int = 2,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Measure and write ``evaluation.json`` and ``evaluation.md``.

    Returns
    -------
    dict
        ``systems``: the measures of :func:`export.measures.retrieval_report` by system.
    """
    require_training_set(slices, trained)
    vectors = embed_slices(slices, onnx_folder, trained.scaler, n_threads, show_progress)
    query, stored = slices.rows_of(trained.held_out_cases), slices.rows_of(trained.train_cases)
    result: dict[str, Any] = {
        "schema": "export.evaluation/1",
        "is_synthetic": is_synthetic,
        "seed": trained.description["settings"]["seed"],
        "model_hash": model_hash(trained, slices.method),
        "systems": {
            system: retrieval_report(
                query_embeddings=values[query],
                query_labels=[slices.labels[i] for i in query],
                query_cases=[slices.case_ids[i] for i in query],
                index_embeddings=values[stored],
                index_labels=[slices.labels[i] for i in stored],
                index_cases=[slices.case_ids[i] for i in stored],
                label_names=trained.label_names,
            )
            for system, values in vectors.items()
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "evaluation.json", result)
    write_whole(out / "evaluation.md", markdown_report(result).encode())
    return result


def markdown_report(result: Mapping[str, Any]) -> str:
    """The result as Markdown; headings say where the figures come from."""
    data = "PHANTOM (synthetic) CT" if result["is_synthetic"] else "the user's archive"
    first = result["systems"]["fusion"]
    lines = [
        f"# Retrieval on held-out cases of {data}",
        "",
        f"{first['n_query_slices']} query slices of {first['n_query_cases']} held-out cases "
        f"against {first['n_index_slices']} slices of {first['n_index_cases']} cases; seed "
        f"{result['seed']}. One split, so no interval: with {first['n_query_cases']} cases small "
        "differences mean nothing.",
        "",
        f"## Systems ({data})",
        "",
        "Percent; class of the top-1 slice, mean over classes.",
        "",
        f"| system | precision | recall | F1 | precision@{first['top_n']} | mAP | case top-1 | "
        "D_intra | D_inter | s (eq. 16) | silhouette (Rousseeuw) |",
        "| --- " * 11 + "|",
    ]
    for system, m in result["systems"].items():
        top1 = m["slice_top1"]
        percents = (
            top1["precision"], top1["recall"], top1["f1"], m["precision_at_n"],
            m["mean_average_precision"], m["case_top1"]["accuracy"],
        )  # fmt: skip
        cells = [f"{100 * value:.1f}" for value in percents]
        cells += [
            f"{m[key]:.3f}" for key in ("d_intra", "d_inter", "s_eq16", "silhouette_rousseeuw")
        ]
        lines.append(f"| {_SYSTEM_TITLES[system]} | {' | '.join(cells)} |")
    baseline = first["baseline_prevalence"]
    lines += [
        "",
        "Baseline: a neighbor drawn at random has the right class in "
        f"{100 * baseline['accuracy_random_neighbor']:.1f} % of queries; always naming the most "
        f"frequent class is right in {100 * baseline['accuracy_most_frequent_class']:.1f} %.",
        "",
        f"## Confusion of the fused embedding, rows normalised ({data})",
        "",
        "| true \\ top-1 | " + " | ".join(first["labels"]) + " |",
        "| --- " * (len(first["labels"]) + 1) + "|",
    ]
    confusion = first["slice_top1"]["confusion_rows_normalized"]
    for label, row in zip(first["labels"], confusion, strict=True):
        lines.append(f"| {label} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    lines += [
        "",
        '## "No similar case"',
        "",
        f"Threshold on the best cosine: {first['no_match_threshold']:.4f}, the 1st percentile of "
        "the best scores of held-out slices. One in a hundred slices of the known kinds falls "
        "below it by construction; how many foreign slices do is not measured here.",
        "",
    ]
    return "\n".join(lines)
