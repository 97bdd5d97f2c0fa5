"""Made-up results files of the regression suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.acceptance import (
    COLD_GROUP,
    MEMORY_GROUP,
    SLICE_GROUP,
    STAGE_GROUP,
    STUDY_GROUP,
)

CPU = "Made-up CPU (family 1, model 2)"
ALONE_GROUP = "radiomics|features=102|growth with pixels"


def entry(
    group: str,
    name: str,
    role: str,
    seconds: float,
    *,
    seed: int,
    noise: float = 0.02,
    n_rounds: int = 30,
    drift: np.ndarray | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """One entry whose rounds scatter by ``noise`` around ``seconds``, times a common drift."""
    generator = np.random.default_rng(seed)
    data = seconds * np.exp(noise * generator.standard_normal(n_rounds))
    if drift is not None:
        data = data * drift[:n_rounds]
    return {
        "group": group,
        "name": name,
        "fullname": f"benchmarks/bench_x.py::{name}",
        "extra_info": {"role": role, "threads": 2, **facts},
        "stats": {"data": data.tolist()},
    }


def document(
    *,
    seed: int = 0,
    ours_slice: float = 0.025,
    machine_factor: float = 1.0,
    cpu: str = CPU,
    noise: float = 0.02,
    peak_mb: float = 500.0,
) -> dict[str, Any]:
    """A whole file: a slice, a stage, a study, a cold start, memory, and a group without rival."""
    f = machine_factor
    drift = np.exp(0.3 * np.sin(np.arange(60) / 5 + seed))  # a machine that others use too
    equality = {
        "n_slices": 6,
        "mask_dice_min": 0.97,
        "feature_difference_max": 1e-9,
        "cosine_min": 0.999999,
        "top10_overlap": 1.0,
        "own_mask_cosine_min": 0.99,
        "own_mask_top10_overlap": 0.8,
        "own_mask_same_label": 1.0,
    }
    default = {"is_default": True, "precision": "fp32"}
    made = {"noise": noise, "drift": drift}
    steady = {"drift": None}  # nobody beside it to cancel a drift
    thrice = {**steady, "n_rounds": 3}
    stages, study = STAGE_GROUP.format("all but network"), STUDY_GROUP.format(300)
    few, some, study_facts = {"n_rounds": 5}, {"n_rounds": 11}, {"n_slices": 300}
    peaks = [[peak_mb + i for i in range(3)], [peak_mb + 3, peak_mb + 4]]
    rows: list[tuple[str, str, str, float, dict[str, Any]]] = [
        (SLICE_GROUP, "ildsdk fp32", "ours", ours_slice, {**default, "equality": equality}),
        (SLICE_GROUP, "reference stack", "rival", 0.3, {}),
        (stages, "ildsdk fp32", "ours", 0.012, {**steady, **default}),
        (study, "ildsdk fp32", "ours", 6.0, {**few, **study_facts, **default}),
        (study, "network alone, fp32", "yardstick", 5.4, {**few, "precision": "fp32"}),
        (COLD_GROUP, "ildsdk query", "ours", 1.2, {**some, **default}),
        (COLD_GROUP, "reference stack", "rival", 7.0, some),
        (MEMORY_GROUP.format(300), "ildsdk", "ours", 9.0, {**thrice, "peak_mb": peaks[0]}),
        (MEMORY_GROUP.format(600), "ildsdk", "ours", 17.0, {**thrice, "peak_mb": peaks[1]}),
        (ALONE_GROUP, "fast", "ours", 0.004, steady),
    ]
    return {
        "machine_info": {
            "ildsdk": {
                "cpu": cpu,
                "threads": 2,
                "n_cpus": 2,
                "python": "3.11.7",
                "vector_extensions": ["avx2"],
                "versions": {"numpy": "2.4.6", "torch": "2.13.0"},
            }
        },
        "commit_info": {"id": "0123456789abcdef"},
        "datetime": "2026-11-26T03:00:00+00:00",
        "benchmarks": [
            entry(group, name, role, f * seconds, **{**made, "seed": 100 * seed + i, **facts})
            for i, (group, name, role, seconds, facts) in enumerate(rows)
        ],
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    """Write a results file."""
    path.write_text(json.dumps(content))
    return path


def engines() -> dict[str, Any]:
    """What the comparison of inference engines writes."""
    rows = (
        ("ONNX Runtime float32", 20.0),
        ("ONNX Runtime int8", 5.0),
        ("ONNX Runtime int8, threads busy within a run", 4.5),
        ("OpenVINO int8", 4.0),
    )
    return {
        "engines": [
            {
                "name": name,
                "precision": "int8" if "int8" in name else "float32",
                "options": {},
                "median_ms": ms,
                "quartiles_ms": [ms, ms],
                "n_runs": 10,
                "cosine_min": 0.999,
            }
            for name, ms in rows
        ],
        "input_size": 160,
        "n_images": 6,
        "n_threads": 2,
        "machine": {
            "cpu": CPU,
            "n_cpus": 2,
            "load_average": 0.1,
            "python": "3.11.7",
            "onnxruntime-gpu": "1",
            "openvino": "1",
            "numpy": "1",
        },
    }
