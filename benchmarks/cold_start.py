"""Where the time of a first query in a fresh process goes; see docs/cold-start.md.

``python benchmarks/cold_start.py FILE`` runs the command and its parts, each in fresh processes,
interleaved, and prints medians. Parts run one after another here, in the command some overlap.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

_CHILD = """
import sys, time
marks = [("python", time.time_ns(), time.process_time_ns())]
def mark(name):
    marks.append((name, time.time_ns(), time.process_time_ns()))
study, threads = sys.argv[1], int(sys.argv[2])
import ildsdk.cli
mark("import command line")
import numpy
mark("import numpy")
import ildsdk.dicom
mark("import ildsdk.dicom")
import onnxruntime
mark("import onnxruntime")
import native_hash.jit
mark("import and start numba")
import ildsdk.retriever, ildsdk.radiomics.fast
mark("import the rest")
from numba.core import caching
loads = []
load = caching.FunctionCache.load_overload
def timed(self, *arguments):
    started = time.perf_counter_ns()
    found = load(self, *arguments)
    loads.append((self._name, found is not None, time.perf_counter_ns() - started))
    return found
caching.FunctionCache.load_overload = timed
from ildsdk import defaults
from ildsdk.bundle import Bundle
from ildsdk.index import Index
from ildsdk.encoder import Encoder
from ildsdk.settings import QuerySettings, RuntimeSettings
bundle = Bundle.open(defaults.bundle_path())
mark("check bundle")
index = Index.open(defaults.index_path(), expected_bundle_hash=bundle.bundle_hash)
mark("open index")
encoder = Encoder(bundle, RuntimeSettings(n_threads=threads))
mark("create sessions")
from ildsdk.dicom import discover, read_slice
study = discover(study).studies[0]
mark("discover")
ct_slice = read_slice(study.slices[0])
mark("decode")
from ildsdk.lung import segment_lung
n_before = len(loads)
lung = segment_lung(ct_slice.pixels_hu, ct_slice.pixel_spacing_mm)
mark("first mask")
features = encoder._extractor.extract(
    ct_slice.pixels_hu, lung.lung_mask, ct_slice.pixel_spacing_mm).values
mark("first radiomics")
from ildsdk.model_input import model_input
image = model_input(ct_slice.pixels_hu, ct_slice.pixel_spacing_mm, lung.lung_mask, bundle.method)
mark("first model input")
deep = encoder._networks.backbone.run_all(["deep_features"], {"image": image[None]})[0]
mark("first run of the network")
from ildsdk.retriever import Retriever
answer = Retriever(bundle, index, encoder)
encoded = encoder.encode(ct_slice)
mark("second encode")
from ildsdk.answers import find_neighbors, ranked_cases
neighbors = find_neighbors(index, encoded.embedding, QuerySettings(), None)
ranked_cases(index, [encoded.embedding], [neighbors], 10, None)
mark("search and rank")
import json
print(json.dumps({"marks": marks, "loads": loads, "modules": len(sys.modules)}))
"""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="One DICOM file.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--whole-only", action="store_true", help="Leave the parts out.")
    arguments = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as a user starts it
    command = [
        sys.executable, "-m", "ildsdk", "query", str(arguments.study), "--format", "json", "-q",
        "--threads", str(arguments.threads),
    ]  # fmt: skip
    walls: list[float] = []
    parts: dict[str, list[tuple[float, float]]] = {}
    loads: list[list[tuple[str, bool, int]]] = []
    for repeat in range(arguments.repeats + 1):
        started = time.perf_counter()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        if repeat:  # the first run fills caches
            walls.append((time.perf_counter() - started) * 1e3)
        if arguments.whole_only:
            continue
        child = [sys.executable, "-c", _CHILD, str(arguments.study), str(arguments.threads)]
        last_ns, last_cpu_ns = time.time_ns(), 0
        done = subprocess.run(child, env=environment, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        for name, now_ns, cpu_ns in found["marks"]:
            if repeat:
                parts.setdefault(name, []).append(
                    ((now_ns - last_ns) / 1e6, (cpu_ns - last_cpu_ns) / 1e6)
                )
            last_ns, last_cpu_ns = now_ns, cpu_ns
        if repeat:
            loads.append(found["loads"])
    print("| part | wall ms | CPU ms |\n| --- | --- | --- |")
    for name, times in parts.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {name} | {wall:.0f} | {cpu:.0f} |")
    if loads:
        spent = statistics.median(sum(load[2] for load in run) for run in loads) / 1e6
        n_missed = sum(not load[1] for load in loads[-1])
        print(f"\nkernels: {len(loads[-1])} looked up, {n_missed} not cached, {spent:.0f} ms")
        for kernel, _, nanoseconds in sorted(loads[-1], key=lambda load: -load[2])[:40]:
            print(f"    {nanoseconds / 1e6:6.1f} ms {kernel}")
    middle = statistics.median(walls)
    print(f"\nildsdk query one file: median {middle:.0f} ms, {min(walls):.0f} to {max(walls):.0f}")


if __name__ == "__main__":
    main()
