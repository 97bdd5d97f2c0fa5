"""ONNX Runtime beside OpenVINO: one backbone, batch 1, the same threads, in turns.

    python -m benchmarks.compare_openvino                  # prints the table
    python -m benchmarks.compare_openvino --json engines.json --document docs/engines.md

Each engine opens the same files of the bundle: ``backbone.onnx`` in float32 (and bfloat16, which
ONNX Runtime has not on a CPU) and ``backbone-int8.onnx``. Its answer is compared with that of
ONNX Runtime in float32 before its time counts. Takes about two minutes.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.environment import need
from ildsdk import defaults
from ildsdk.bundle import Bundle
from ildsdk.dicom import discover, read_slice
from ildsdk.lung import segment_lung
from ildsdk.model_input import model_input

Image = npt.NDArray[np.float32]
Run = Callable[[Image], Image]
BASELINE = "ONNX Runtime float32"
SHIPPED = "ONNX Runtime int8"  # with the session options of ildsdk
LEAST_COSINE = 0.99
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
# Engines whose threads still wait busily would take the cores of the next one.
PAUSE_S = 0.005
# As the slices of a study follow each other: the first of a burst finds another engine's weights
# in the cache and is not counted.
BURST = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Engine:
    """One engine with one form of the network, and how its session is made."""

    name: str
    precision: str
    options: dict[str, str]
    open: Callable[[Bundle, int, dict[str, str]], Run]


def _onnxruntime(file_of: Callable[[Bundle], Path | None]) -> Any:
    def start(bundle: Bundle, n_threads: int, config: dict[str, str]) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        for key, value in config.items():
            options.add_session_config_entry(key, value)
        session = onnxruntime.InferenceSession(
            str(file_of(bundle)), options, providers=["CPUExecutionProvider"]
        )
        return lambda image: session.run(["deep_features"], {"image": image})[0]

    return start


def _openvino(file_of: Callable[[Bundle], Path | None]) -> Any:
    def start(bundle: Bundle, n_threads: int, config: dict[str, str]) -> Run:
        import openvino

        core = openvino.Core()
        model = core.read_model(str(file_of(bundle)))
        size = bundle.method.input_size
        model.reshape({"image": [1, 1, size, size]})
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": n_threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                **config,
            },
        )
        request = compiled.create_infer_request()
        output = compiled.output("deep_features")
        return lambda image: np.array(request.infer({"image": image})[output])

    return start


def _backbone(bundle: Bundle) -> Path:
    return bundle.backbone


def _backbone_int8(bundle: Bundle) -> Path | None:
    return bundle.backbone_int8


_WAIT_IDLE = {"session.intra_op.allow_spinning": "0"}
_STOP_AFTER_RUN = {"session.force_spinning_stop": "1"}
_SMALL_BLOCKS = {**_STOP_AFTER_RUN, "session.dynamic_block_base": "4"}
_FLOAT32, _BFLOAT16 = {"INFERENCE_PRECISION_HINT": "f32"}, {"INFERENCE_PRECISION_HINT": "bf16"}
ENGINES = (
    Engine(BASELINE, "float32", _WAIT_IDLE, _onnxruntime(_backbone)),
    Engine("OpenVINO float32", "float32", _FLOAT32, _openvino(_backbone)),
    Engine("OpenVINO bfloat16", "bfloat16", _BFLOAT16, _openvino(_backbone)),
    Engine(SHIPPED, "int8", _WAIT_IDLE, _onnxruntime(_backbone_int8)),
    Engine(
        "ONNX Runtime int8, threads busy within a run", "int8", _STOP_AFTER_RUN,
        _onnxruntime(_backbone_int8),
    ),
    Engine(
        "ONNX Runtime int8, the same in smaller blocks", "int8", _SMALL_BLOCKS,
        _onnxruntime(_backbone_int8),
    ),
    Engine("OpenVINO int8", "int8", _FLOAT32, _openvino(_backbone_int8)),
)  # fmt: skip


def measure(bundle: Bundle, images: list[Image], n_threads: int, seconds: float) -> dict[str, Any]:
    """Check every engine's answers, then time them in turns, one image after the other."""
    runs = {engine.name: engine.open(bundle, n_threads, engine.options) for engine in ENGINES}
    expected = [runs[BASELINE](image) for image in images]
    cosine = {
        name: min(_cosine(run(image), right) for image, right in zip(images, expected, strict=True))
        for name, run in runs.items()
    }
    for name, least in cosine.items():
        if least < LEAST_COSINE:
            raise SystemExit(f"{name} answers otherwise: cosine {least:.5f}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    names, end = list(runs), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for image in images:
            for name in names:
                time.sleep(PAUSE_S)
                runs[name](image)
                for _ in range(BURST - 1):
                    start = time.perf_counter()
                    runs[name](image)
                    times[name].append((time.perf_counter() - start) * 1e3)
            names = names[1:] + names[:1]  # nobody always follows the same neighbor
    return {
        "engines": [
            {
                "name": engine.name,
                "precision": engine.precision,
                "options": engine.options,
                "median_ms": statistics.median(times[engine.name]),
                "quartiles_ms": statistics.quantiles(times[engine.name], n=4)[::2],
                "n_runs": len(times[engine.name]),
                "cosine_min": cosine[engine.name],
            }
            for engine in ENGINES
        ],
        "input_size": bundle.method.input_size,
        "n_images": len(images),
        "n_threads": n_threads,
        "machine": {
            "cpu": _cpu(),
            "n_cpus": len(os.sched_getaffinity(0)),
            "load_average": os.getloadavg()[0],
            "python": platform.python_version(),
            **{
                name: importlib.metadata.version(name)
                for name in ("onnxruntime-gpu", "openvino", "numpy")
            },
        },
    }


def markdown(result: dict[str, Any]) -> str:
    """Table of a measurement, ratios to ONNX Runtime in float32."""
    machine, rows = result["machine"], result["engines"]
    (baseline,) = (row["median_ms"] for row in rows if row["name"] == BASELINE)
    size = result["input_size"]
    lines = [
        f"Backbone of the embedded bundle, {size} x {size}, batch 1, {result['n_threads']} threads "
        f"on {machine['n_cpus']} cores of {machine['cpu']}, {result['n_images']} phantom slices; "
        f"ONNX Runtime {machine['onnxruntime-gpu']}, OpenVINO {machine['openvino']}. Medians and "
        f"quartiles of {rows[0]['n_runs']} runs, in turns of {BURST - 1}; cosine of deep features "
        "to ONNX Runtime in float32, least of the slices. Load average at the end "
        f"{machine['load_average']:.1f}.",
        "",
        "| engine and precision | ms | quartiles | of float32 | cosine |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        low, high = row["quartiles_ms"]
        lines.append(
            f"| {row['name']} | {row['median_ms']:.1f} | {low:.1f} to {high:.1f} | "
            f"{row['median_ms'] / baseline:.2f} | {row['cosine_min']:.5f} |"
        )
    (ours,) = (row["median_ms"] for row in rows if row["name"] == SHIPPED)
    best = min(row["median_ms"] for row in rows)
    lines += [
        "",
        f"{SHIPPED}, as ildsdk runs it, takes {ours / best:.2f} of the time of the best engine "
        "here.",
    ]
    return "\n".join(lines)


def demo_images(bundle: Bundle, n_images: int) -> list[Image]:
    """Model inputs ``(1, 1, S, S)`` of slices spread over the embedded demo study."""
    (study,) = discover(defaults.demo_study_path(), every_mm=0).studies
    places = np.linspace(0, len(study.slices) - 1, n_images + 2)[1:-1].astype(int)
    images = []
    for place in places:
        ct_slice = read_slice(study.slices[place])
        pixels, spacing = ct_slice.pixels_hu, ct_slice.pixel_spacing_mm
        lung = segment_lung(pixels, spacing, min_area_mm2=bundle.method.min_lung_area_mm2)
        images.append(model_input(pixels, spacing, lung.lung_mask, bundle.method)[np.newaxis])
    return images


def _cosine(a: Image, b: Image) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"


@click.command()
@click.option("--bundle", "folder", type=click.Path(path_type=Path), help="[default: embedded]")
@click.option("--threads", default=2, show_default=True)
@click.option("--seconds", default=90.0, show_default=True, help="Time of the timings.")
@click.option("--images", "n_images", default=6, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
@click.option("--document", type=click.Path(path_type=Path), help="Markdown between its markers.")
def main(
    folder: Path | None, threads: int, seconds: float, n_images: int, json_path: Path | None,
    document: Path | None,
) -> None:  # fmt: skip
    """Compare the engines and print the table."""
    need("openvino")
    bundle = Bundle.open(folder or defaults.bundle_path())
    if bundle.backbone_int8 is None:
        raise SystemExit("this bundle has no int8 form; make one with `python -m export quantize`")
    result = measure(bundle, demo_images(bundle, n_images), threads, seconds)
    text = markdown(result)
    click.echo(text)
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=1) + "\n")
    if document is not None:
        page = document.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
