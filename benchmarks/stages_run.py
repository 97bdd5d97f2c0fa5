"""What one slice costs beside the networks: pixels in memory to top-10, stage by stage.

    python -m benchmarks.stages_run [--against CHECKOUT] [--rounds 5]

Every real 512 x 512 slice of ILDSDK_TEST_DATA (or ../shared/data) goes through the array door, lung
mask, radiomics, model input, the scaling of the features, and a search among 28,942 items; the
networks are left out. Median over the slices that have lungs, in milliseconds, for a thread
budget of 1 and of 2. ``--against`` runs the same with the code of another checkout, in a process of
its own; the processes take turns round by round, so that a busy machine slows both. Masks, features
and model inputs of the two are compared before they count.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse  # noqa: E402
import hashlib  # noqa: E402
import inspect  # noqa: E402
import pickle  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

HOME = Path(__file__).resolve().parents[1]
N_ITEMS, SIZE = 28_942, 128
STAGES = ("array", "mask", "radiomics", "model input", "scaling", "search")
Answer = dict[str, Any]


def real_slices() -> list[tuple[np.ndarray, tuple[float, float]]]:
    """HU and spacing of the real slices of 512 x 512 pixels."""
    from pydicom import dcmread

    folder = Path(os.environ.get("ILDSDK_TEST_DATA", HOME.parent / "shared" / "data")) / "dicom"
    slices = []
    for path in sorted(folder.rglob("*.dcm")):
        header = dcmread(path)
        hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        if hu.shape == (512, 512):
            row_mm, column_mm = (float(step) for step in header.PixelSpacing)
            slices.append((hu.astype(np.float32), (row_mm, column_mm)))
    return slices


def search_of(folder: Path) -> Callable[[], Any]:
    """A search for ten neighbors in an index of random unit vectors."""
    from ildsdk.answers import find_neighbors
    from ildsdk.index import Index
    from ildsdk.settings import QuerySettings
    from tests.index_factory import make_items, unit_embeddings

    index = Index.create(
        folder / "index", name="bench", bundle_hash="b" * 64, embedding_size=SIZE, is_synthetic=True
    )
    items = make_items(0, N_ITEMS, per_case=362)
    index.add(unit_embeddings(0, N_ITEMS, SIZE), items, [b""] * N_ITEMS)
    query = unit_embeddings(1, 1, SIZE)[0]
    return lambda: find_neighbors(index, query, QuerySettings(), None)


class Stages:
    """One round over all slices with the code that this process imports."""

    def __init__(self, folder: Path) -> None:
        from ildsdk import defaults
        from ildsdk.bundle import Bundle
        from ildsdk.radiomics import RadiomicsExtractor

        self.slices = real_slices()
        self.bundle = Bundle.open(defaults.bundle_path())
        self.extractor = RadiomicsExtractor()
        self.has_threads = "n_threads" in inspect.signature(self.extractor.extract).parameters
        self.search = search_of(folder)
        for _ in range(40):
            self.search()  # beyond the searches that numpy does before kernels are loaded

    def round(self, n_threads: int) -> list[Answer]:
        """Milliseconds of each stage, and a digest of what came out, for each slice with lungs."""
        return [found for slice_ in self.slices if (found := self._one(slice_, n_threads))]

    def _one(self, slice_: tuple[np.ndarray, tuple[float, float]], n_threads: int) -> Answer | None:
        from ildsdk.array_input import slice_from_array
        from ildsdk.errors import SliceUnusableError
        from ildsdk.lung import segment_lung
        from ildsdk.model_input import model_input

        options = {"n_threads": n_threads} if self.has_threads else {}
        clock = [time.perf_counter()]
        try:
            ct = slice_from_array(*slice_)
            clock.append(time.perf_counter())
            mask = segment_lung(ct.pixels_hu, ct.pixel_spacing_mm).lung_mask
        except SliceUnusableError:
            return None
        clock.append(time.perf_counter())
        features = self.extractor.extract(ct.pixels_hu, mask, ct.pixel_spacing_mm, **options).values
        clock.append(time.perf_counter())
        image = model_input(ct.pixels_hu, ct.pixel_spacing_mm, mask, self.bundle.method)
        clock.append(time.perf_counter())
        self.bundle.scaler.transform(features)
        clock.append(time.perf_counter())
        self.search()
        clock.append(time.perf_counter())
        taken = dict(zip(STAGES, np.diff(clock) * 1e3, strict=True))
        mask_hash = hashlib.sha256(mask.tobytes()).hexdigest()
        return {"ms": taken, "mask": mask_hash, "features": features, "input": image}


class Worker:
    """The same in a process that imports another checkout."""

    def __init__(self, checkout: Path) -> None:
        environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{HOME}"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve"],
            env=environment, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def round(self, n_threads: int) -> list[Answer]:
        """As :meth:`Stages.round`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{n_threads}\n".encode())
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answer rounds on standard output, one for each line of standard input."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(Path(folder))
        for line in sys.stdin:
            pickle.dump(stages.round(int(line)), out)
            out.flush()


def compared(ours: list[Answer], theirs: list[Answer]) -> str:
    """Say how the two differ; masks must not."""
    if [one["mask"] for one in ours] != [one["mask"] for one in theirs]:
        raise SystemExit("lung masks differ: nothing is comparable")
    pairs = list(zip(ours, theirs, strict=True))
    features = max(
        float(
            np.nanmax(np.abs(a["features"] - b["features"]) / np.maximum(np.abs(b["features"]), 1))
        )
        for a, b in pairs
    )
    inputs = max(float(np.abs(a["input"] - b["input"]).max()) for a, b in pairs)
    return (
        f"{len(pairs)} slices: masks equal, features within {features:.1e} (relative), "
        f"model inputs within {inputs:.1e}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, measured in turns")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve()
        return
    contenders: dict[str, Worker] = {"here": Worker(HOME)}
    if chosen.against is not None:
        contenders["against"] = Worker(chosen.against.resolve())
    try:
        first = {name: worker.round(1) for name, worker in contenders.items()}  # kernels compiled
        if not first["here"]:
            raise SystemExit("no real slice found: set ILDSDK_TEST_DATA")
        if chosen.against is not None:
            print(compared(first["here"], first["against"]))
        found: dict[tuple[str, int], list[Answer]] = {}
        for _ in range(chosen.rounds):
            for n_threads in (1, 2):
                for name, worker in contenders.items():
                    found.setdefault((name, n_threads), []).extend(worker.round(n_threads))
    finally:
        for worker in contenders.values():
            worker.close()
    print(f"{'median ms':24}" + "".join(f"{stage:>12}" for stage in (*STAGES, "together")))
    together: dict[tuple[str, int], float] = {}
    for (name, n_threads), answers in found.items():
        medians = [statistics.median(one["ms"][stage] for one in answers) for stage in STAGES]
        together[name, n_threads] = statistics.median(sum(one["ms"].values()) for one in answers)
        figures = "".join(f"{value:12.2f}" for value in (*medians, together[name, n_threads]))
        print(f"{name + f', threads={n_threads}':24}" + figures)
    if chosen.against is not None:
        for n_threads in (1, 2):
            ratio = together["against", n_threads] / together["here", n_threads]
            print(f"threads={n_threads}: {ratio:.2f} times faster than the other checkout")


if __name__ == "__main__":
    main()
