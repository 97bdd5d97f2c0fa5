"""The table that the default bundle's input size and precision are chosen by.

For each input size: retrieval on held-out phantom cases, with the weights stored as float32 and as
int8, file sizes, and the network's time for one slice as ONNX Runtime runs it here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from export.default_bundle import DefaultBundleSettings, Say, train_and_evaluate
from export.whole_files import write_json

_N_ROUNDS = 30
_N_WARM = 3
STORAGE = {"int8": "onnx", "float32": "onnx-float32"}
"""How weights are stored, and the folder of those graphs; both run in float32."""


def compare_input_sizes(
    work: Path,
    settings: DefaultBundleSettings,
    sizes: Sequence[int],
    *,
    n_processes: int = 2,
    say: Say = lambda line: None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Train and evaluate at each size, time the networks in turns.

    Returns
    -------
    dict
        ``rows``: one per size and storage; ``machine``: what the times belong to. Also written
        to ``input-sizes.json`` in ``work``.
    """
    from export.bundling import export_trained
    from export.dataset import load_slice_set
    from export.evaluate import evaluate
    from export.train import MODEL_NAME, load_trained

    rows = []
    for size in sizes:
        own = dataclasses.replace(settings, input_size=size)
        folder = train_and_evaluate(
            work, own, n_processes=n_processes, say=say, show_progress=show_progress
        )
        if not (folder / "evaluation-float32" / "evaluation.md").exists():
            say(f"float32 weights at {size} px")
            slices = load_slice_set(folder / "prepared")
            trained = load_trained(folder / "training" / MODEL_NAME)
            export_trained(slices, trained, folder / STORAGE["float32"], compress=False)
            evaluate(
                slices, trained, folder / STORAGE["float32"], folder / "evaluation-float32",
                is_synthetic=True, n_threads=own.training.n_threads, show_progress=show_progress,
            )  # fmt: skip
        rows += [_row(folder, size, storage) for storage in STORAGE]
    n_threads = settings.training.n_threads
    milliseconds = _time_networks([work / f"size-{size}" / "onnx" for size in sizes], n_threads)
    for row in rows:
        row["network_ms"] = milliseconds[sizes.index(row["input_size"])]
    result = {
        "schema": "export.input-sizes/1",
        "rows": rows,
        "machine": {
            "processor": _processor(),
            "threads": n_threads,
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
        },
    }
    write_json(work / "input-sizes.json", result)
    return result


def _row(folder: Path, size: int, storage: str) -> dict[str, Any]:
    evaluation = folder / ("evaluation" if storage == "int8" else "evaluation-float32")
    figures = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))
    fused = figures["systems"]["fusion"]
    models = [path for path in (folder / STORAGE[storage]).iterdir() if path.suffix == ".onnx"]
    return {
        "input_size": size,
        "weights": storage,
        "megabytes": sum(path.stat().st_size for path in models) / 1e6,
        "f1": fused["slice_top1"]["f1"],
        "precision_at_n": fused["precision_at_n"],
        "mean_average_precision": fused["mean_average_precision"],
        "case_accuracy": fused["case_top1"]["accuracy"],
        "n_query_slices": fused["n_query_slices"],
        "n_query_cases": fused["n_query_cases"],
    }


def _time_networks(folders: Sequence[Path], n_threads: int) -> list[float]:
    """Median milliseconds of backbone and fusion net for one slice, sizes taking turns."""
    from export.to_onnx import BACKBONE_NAME, FUSION_NAME

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    sessions = [
        [
            onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
            for name in (BACKBONE_NAME, FUSION_NAME)
        ]
        for folder in folders
    ]
    rng = np.random.default_rng(0)
    times: list[list[float]] = [[] for _ in sessions]
    for turn in range(_N_WARM + _N_ROUNDS):
        for taken, (backbone, fusion) in zip(times, sessions, strict=True):
            side = backbone.get_inputs()[0].shape[-1]
            image = rng.random((1, 1, side, side), dtype=np.float32)
            radiomics = rng.standard_normal((1, fusion.get_inputs()[1].shape[-1]), np.float32)
            started = time.perf_counter()
            (deep,) = backbone.run(["deep_features"], {"image": image})
            fusion.run(["embedding"], {"deep_features": deep, "radiomics": radiomics})
            if turn >= _N_WARM:
                taken.append(1e3 * (time.perf_counter() - started))
    return [float(np.median(taken)) for taken in times]


def markdown_table(result: dict[str, Any], settings: DefaultBundleSettings) -> str:
    """The document ``docs/input-size.md``."""
    machine = result["machine"]
    first = result["rows"][0]
    lines = [
        "# Input size and stored precision of the default bundle",
        "",
        "Written by `python -m export input-sizes`. PHANTOM (synthetic) CT: "
        f"{first['n_query_slices']} slices of {first['n_query_cases']} held-out cases. Every size "
        f"starts from the same ResNet-50, trained at {settings.trunk_schedule[-1][0]} px for "
        f"{settings.trunk_schedule[-1][1]} epochs, goes on for {settings.n_epochs} epochs at its "
        f"own size and has {settings.training.fusion_epochs} epochs of contrastive training. "
        f"One split: differences of a few percent between {first['n_query_cases']} cases mean "
        "nothing.",
        "",
        "F1, precision@10 and mAP in percent, by slice; class of the best-ranked case in percent, "
        "by case. Network: backbone and fusion net of one slice, median of "
        f"{_N_ROUNDS} in turns, {machine['threads']} threads on {machine['cpus']} cores of "
        f"{machine['processor']}, ONNX Runtime {machine['onnxruntime']}. Weights are stored as "
        "float32 or as int8 with one scale per channel (files: backbone, fusion net and the graph "
        "of activation maps); the network runs in float32 either way, timed with int8 files.",
        "",
        "| input | weights | files, MB | F1 | precision@10 | mAP | case top-1 | network, ms |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        percents = (
            f"{100 * row[key]:.1f}"
            for key in ("f1", "precision_at_n", "mean_average_precision", "case_accuracy")
        )
        lines.append(
            f"| {row['input_size']} x {row['input_size']} | {row['weights']} | "
            f"{row['megabytes']:.1f} | {' | '.join(percents)} | {row['network_ms']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
