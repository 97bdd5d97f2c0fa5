"""How near a long study comes to what the network alone would allow, and why not nearer.

    python -m benchmarks.pipeline_run [--input 160|512] [--slices 300] [--threads 2] [--out FILE]

Parts, all in one process and in turns, so that a busy moment hits them alike:

network     slices a second of backbone and fusion alone: one run with all threads; one run of one
            thread on each thread; runs on each thread that share a session of all threads
stages      processor milliseconds of one slice by stage, and how much faster n threads do n slices
            (n: the stage holds no lock; 1: it does not overlap at all)
schedules   slices a second from files to embeddings, as in ``pipeline_schedules.py``
study       ``Retriever.iter_query`` on the whole study, nothing remembered, in turns with the
            network alone (one run of one thread on each thread); the share by processor time
            does not depend on what else runs on the machine
memory      peak resident memory (VmHWM) of a fresh process that answers the study, and one of twice
            the length
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from benchmarks.environment import need  # noqa: E402

need("onnx", "torch", made_by="make .venv/.dev")

import numpy as np  # noqa: E402

from benchmarks.larger_input import write_bundle_of_size  # noqa: E402
from benchmarks.long_study import write_long_study  # noqa: E402
from benchmarks.pipeline_schedules import Stages, prepare_ahead, slice_parallel  # noqa: E402
from ildsdk import QuerySettings, Retriever, defaults  # noqa: E402
from ildsdk.bundle import Bundle  # noqa: E402
from ildsdk.dicom import SliceHeader, discover, read_slice  # noqa: E402
from ildsdk.encoder import Encoder  # noqa: E402
from ildsdk.index import Index  # noqa: E402
from ildsdk.lung import segment_lung  # noqa: E402
from ildsdk.model_input import model_input  # noqa: E402
from ildsdk.runtime.networks import open_networks  # noqa: E402
from ildsdk.settings import RuntimeSettings  # noqa: E402

EVERY_SLICE = QuerySettings(every_mm=0)
TOLERANCE = 1e-4  # largest difference of embeddings of two schedules


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def in_turns(
    works: dict[str, Callable[[], Any]], n_slices: int, rounds: int, n_threads: int
) -> dict[str, dict[str, float]]:
    """Median figures of each work, measured in turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for round_number in range(rounds + 1):
        for name, work in works.items():
            found = timed(work)
            if round_number:  # the first one warms up
                times[name].append(found)
    return {
        name: {
            "slices_per_s": round(n_slices / statistics.median(wall for wall, _ in found), 2),
            "wall_ms": round(1e3 * statistics.median(wall for wall, _ in found) / n_slices, 2),
            "cpu_ms": round(1e3 * statistics.median(cpu for _, cpu in found) / n_slices, 2),
            "busy_share": round(
                statistics.median(cpu / wall for wall, cpu in found) / n_threads, 3
            ),
        }
        for name, found in times.items()
    }


def on_threads(n_threads: int, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, items))


def network_figures(
    stages: dict[str, Stages], headers: Sequence[SliceHeader], n_threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    inputs = [stages["wide"].prepared(header) for header in headers]

    def run(kind: str, n_at_once: int) -> Callable[[], None]:
        return lambda: on_threads(n_at_once, lambda one: stages[kind].embedded(*one), inputs)

    works = {
        f"one run of {n_threads} threads": run("wide", 1),
        f"{n_threads} runs of one thread": run("narrow", n_threads),
        f"{n_threads} runs that share {n_threads} threads": run("wide", n_threads),
    }
    return in_turns(works, len(inputs), rounds, n_threads)


def stage_figures(
    stages: Stages, headers: Sequence[SliceHeader], n_threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Cost and scaling of each stage, on slices that were taken up to it beforehand."""
    method = stages.encoder.bundle.method
    slices = [read_slice(header) for header in headers]
    masks = [
        segment_lung(one.pixels_hu, one.pixel_spacing_mm, min_area_mm2=method.min_lung_area_mm2)
        for one in slices
    ]
    pairs = list(zip(slices, masks, strict=True))
    works: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
        "decode": (read_slice, headers),
        "mask": (
            lambda one: segment_lung(
                one.pixels_hu, one.pixel_spacing_mm, min_area_mm2=method.min_lung_area_mm2
            ),
            slices,
        ),
        "radiomics": (lambda pair: stages.encoder._features(*pair), pairs),
        "model_input": (
            lambda pair: model_input(
                pair[0].pixels_hu, pair[0].pixel_spacing_mm, pair[1].lung_mask, method
            ),
            pairs,
        ),
        "network": (lambda one: stages.embedded(*one), [stages.prepared(h) for h in headers]),
    }
    figures = {}
    for name, (work, items) in works.items():
        found = in_turns(
            {
                "one": lambda work=work, items=items: on_threads(1, work, items),
                "all": lambda work=work, items=items: on_threads(n_threads, work, items),
            },
            len(items),
            rounds,
            n_threads,
        )
        figures[name] = {
            "cpu_ms": found["one"]["cpu_ms"],
            "wall_ms": found["one"]["wall_ms"],
            "times_faster_on_all_threads": round(
                found["one"]["wall_ms"] / found["all"]["wall_ms"], 2
            ),
        }
    return figures


def schedule_figures(
    stages: dict[str, Stages], headers: Sequence[SliceHeader], n: int, rounds: int
) -> dict[str, dict[str, float]]:
    results: dict[str, list[np.ndarray]] = {}

    def keeping(name: str, work: Callable[[], list[np.ndarray]]) -> Callable[[], None]:
        def run() -> None:
            results[name] = work()

        return run

    works = {
        name: keeping(name, work)
        for name, work in {
            f"prepare on {max(n - 1, 1)}, network of {n} threads": lambda: prepare_ahead(
                stages["wide"], headers, n, max(n - 1, 1)
            ),
            f"prepare on {n}, network of {n} threads": lambda: prepare_ahead(
                stages["wide"], headers, n, n
            ),
            f"prepare on {n}, network of one thread": lambda: prepare_ahead(
                stages["narrow"], headers, n, n
            ),
            f"slices on {n}, networks of one thread": lambda: slice_parallel(
                stages["narrow"], headers, n
            ),
            f"slices on {n}, networks share {n} threads": lambda: slice_parallel(
                stages["wide"], headers, n
            ),
            f"slices on {n}, one network of {n} threads at a time": lambda: slice_parallel(
                stages["wide"], headers, n, 1
            ),
        }.items()
    }
    figures = in_turns(works, len(headers), rounds, n)
    first = np.stack(next(iter(results.values())))
    for name, found in results.items():
        largest = float(np.abs(np.stack(found) - first).max())
        assert largest <= TOLERANCE, f"{name}: embeddings differ by {largest}"
        figures[name]["largest_difference"] = largest
    return figures


def study_figures(
    bundle: Bundle,
    index: Path,
    study: Path,
    network: Callable[[], None],
    n_sample: int,
    n_threads: int,
    rounds: int,
) -> dict[str, Any]:
    """The whole study in turns with the network alone, before and after it."""
    encoder = Encoder(bundle, RuntimeSettings(provider="cpu", n_threads=n_threads))
    kept: dict[str, list[float]] = collections.defaultdict(list)
    with Retriever(bundle, Index.open(index), encoder, remembered_slices=0) as retriever:
        for round_number in range(rounds + 1):
            before = timed(network)
            started, cpu = time.perf_counter(), time.process_time()
            items = retriever.iter_query(study, EVERY_SLICE)
            next(items)
            first_ms = 1e3 * (time.perf_counter() - started)
            *_, answer = items
            wall, cpu = time.perf_counter() - started, time.process_time() - cpu
            after = timed(network)
            if round_number == 0:  # opens the networks of one thread
                continue
            n = len(answer.slices)
            alone_wall, alone_cpu = (
                (one + other) / (2 * n_sample) for one, other in zip(before, after, strict=True)
            )
            stage_s = sum(sum(one.timings_ms.values()) for one in answer.slices) / 1e3
            for name, value in {
                "slices_per_s": n / wall,
                "cpu_ms": 1e3 * cpu / n,
                "network_alone_slices_per_s": 1 / alone_wall,
                "network_alone_cpu_ms": 1e3 * alone_cpu,
                "share_of_network_alone": alone_wall / (wall / n),
                "share_by_cpu_time": alone_cpu / (cpu / n),
                "first_answer_ms": first_ms,
                "discover_ms": 1e3 * timed(lambda: discover(study, every_mm=0))[0],
                "stage_seconds_per_second": stage_s / wall,
            }.items():
                kept[name].append(value)
    return {name: round(statistics.median(values), 3) for name, values in kept.items()}


_MEMORY_CODE = """
import sys
from ildsdk import QuerySettings, Retriever
bundle, index, study, n_threads = sys.argv[1:]
with Retriever.open(bundle, index, provider="cpu", n_threads=int(n_threads)) as retriever:
    result = retriever.query(study, QuerySettings(every_mm=0))
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) / 1024, len(result.studies[0].slices))
"""


def peak_mb(bundle: Path, index: Path, study: Path, n_threads: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY_CODE, str(bundle), str(index), str(study), str(n_threads)],
        check=True,
        capture_output=True,
        text=True,
    )
    return round(float(done.stdout.split()[0]), 1)


def matching_index(folder: Path, bundle: Bundle) -> Path:
    """The embedded index, or one of random vectors that stands for this bundle."""
    embedded = Index.open(defaults.index_path())
    if embedded.bundle_hash == bundle.bundle_hash:
        return defaults.index_path()
    from ildsdk.index import ItemRecord

    rng = np.random.default_rng(0)
    n = 200
    vectors = rng.standard_normal((n, bundle.embedding_size)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Index.create(
        folder,
        name="random",
        bundle_hash=bundle.bundle_hash,
        embedding_size=bundle.embedding_size,
        is_synthetic=True,
    )
    with index:
        index.add(
            vectors,
            [
                ItemRecord(
                    item_id=f"item-{number}",
                    case_id=f"case-{number // 10}",
                    label=bundle.labels[number // 10 % len(bundle.labels)],
                    study_instance_uid=f"1.2.{number // 10}",
                    series_instance_uid=f"1.2.{number // 10}.1",
                    sop_instance_uid=f"1.2.{number // 10}.1.{number}",
                )
                for number in range(n)
            ],
            [b"none"] * n,
        )
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=int, default=160)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--sample", type=int, default=24, help="slices in a turn of the parts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--jpegls", action="store_true")
    parser.add_argument("--parts", default="network,stages,schedules,study,memory")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    n = arguments.threads
    report: dict[str, Any] = {key: getattr(arguments, key) for key in ("input", "slices", "jpegls")}
    report["threads"] = n
    with tempfile.TemporaryDirectory(prefix="ildsdk-pipeline-") as name:
        folder = Path(name)
        bundle = Bundle.open(defaults.bundle_path())
        if arguments.input != bundle.method.input_size:
            bundle = write_bundle_of_size(folder / "bundle", arguments.input)
        study = write_long_study(folder / "study", arguments.slices, is_compressed=arguments.jpegls)
        settings = RuntimeSettings(provider="cpu", n_threads=n)
        encoder = Encoder(bundle, settings)
        stages = {
            kind: Stages(encoder, open_networks(bundle, settings, n_session))
            for kind, n_session in (("wide", n), ("narrow", 1))
        }
        (found,) = discover(study, every_mm=0).studies
        step = math.ceil(len(found.slices) / arguments.sample)
        sample = found.slices[::step]
        report["precision"] = encoder.precision
        if "network" in parts:
            report["network"] = network_figures(stages, sample, n, arguments.rounds)
        if "stages" in parts:
            report["stages"] = stage_figures(stages["narrow"], sample, n, arguments.rounds)
        if "schedules" in parts:
            report["schedules"] = schedule_figures(stages, sample, n, arguments.rounds)
        index = matching_index(folder / "index", bundle)
        if "study" in parts:
            inputs = [stages["narrow"].prepared(header) for header in sample]
            report["study"] = study_figures(
                bundle,
                index,
                study,
                lambda: on_threads(n, lambda one: stages["narrow"].embedded(*one), inputs),
                len(inputs),
                n,
                min(arguments.rounds, 3),
            )
        if "memory" in parts:
            double = write_long_study(
                folder / "double", 2 * arguments.slices, is_compressed=arguments.jpegls
            )
            report["memory"] = {
                f"peak_mb_{arguments.slices}": peak_mb(bundle.folder, index, study, n),
                f"peak_mb_{2 * arguments.slices}": peak_mb(bundle.folder, index, double, n),
            }
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
