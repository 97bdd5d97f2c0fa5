"""Builds an index of a million vectors and says what it took: time, memory, opening, adding.

    python -m benchmarks.build_million                     # 1,000,000 x 128, two threads
    python -m benchmarks.build_million --kind uniform --items 200000

Each step runs in a process of its own, so that its memory and its first use are its own. Needs
about three times the vectors' bytes on disk (``--folder``) and in memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ildsdk.index import ItemRecord

ADDED = 1000
GOAL_SECONDS, GOAL_MEMORY, GOAL_OPEN_MS = 30.0, 3.0, 50.0
ROOT = Path(__file__).resolve().parents[1]


def item_records(first: int, n: int) -> Iterator[ItemRecord]:
    """Items 300 to a case and study, as real ones have them: long UIDs, a position."""
    from ildsdk.index import ItemRecord

    for i in range(first, first + n):
        case = i // 300
        uid = f"1.2.826.0.1.3680043.8.498.{10**30 + i}"
        yield ItemRecord(
            item_id=uid,
            case_id=f"case-{case:05d}",
            label=f"label-{case % 4}",
            study_instance_uid=f"1.2.826.0.1.3680043.8.499.{10**30 + case}",
            series_instance_uid=f"1.2.826.0.1.3680043.8.500.{10**30 + case}",
            sop_instance_uid=uid,
            position_mm=float(i % 300),
        )


def kernel_figure(name: str) -> int:
    """A figure of this process from ``/proc/self``: peak memory in bytes, or bytes written."""
    file, key, unit = {
        "peak": ("status", "VmHWM:", 1024),
        "written": ("io", "write_bytes:", 1),
    }[name]
    for line in Path("/proc/self", file).read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * unit
    raise click.ClickException(f"/proc/self/{file} has no {key}: this needs Linux")


def build(vectors: Path, folder: Path, n_threads: int) -> dict[str, float]:
    """Hash, codes, files: everything between vectors on disk and an index on disk."""
    import native_hash
    from ildsdk.index import Index

    native_hash.warmup()  # compiled kernels are a matter of the installation
    embeddings: npt.NDArray[np.float32] = np.load(vectors, mmap_mode="r")
    n, d = embeddings.shape
    before = kernel_figure("peak")
    started, cpu = time.perf_counter(), time.process_time()
    with Index.create(
        folder, name="million", bundle_hash="b" * 64, embedding_size=d, is_synthetic=True
    ) as index:
        pictures = (b"" for _ in range(n))
        index.add(embeddings, item_records(0, n), pictures, n_threads=n_threads)
        has_tree = "exact.axes" in (index._snapshot.segments[0].codes() or {})
        n_bytes = index.info().n_bytes
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": kernel_figure("peak"),
        "peak_bytes_before": before,
        "has_tree": has_tree,
        "index_bytes": n_bytes,
    }


def open_first(folder: Path) -> dict[str, float]:
    """From a process that has imported the package to the first metadata out of an index."""
    from ildsdk.index import Index

    Index.open  # noqa: B018 - the import is not what is measured
    started = time.perf_counter()
    index = Index.open(folder)
    n = len(index)
    opened = time.perf_counter()
    item = index.items([n // 2])[0]
    labels, _ = index.coded("label")
    read = time.perf_counter()
    assert item.label in labels
    return {"open_ms": (opened - started) * 1e3, "metadata_ms": (read - started) * 1e3}


def add_more(folder: Path) -> dict[str, float]:
    """A thousand slices more: what is written, and how long it takes."""
    from ildsdk.index import Index

    with Index.open(folder) as index:
        n, d = len(index), index.embedding_size
        rows = np.random.default_rng(1).standard_normal((ADDED, d)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        written, started = kernel_figure("written"), time.perf_counter()
        index.add(rows, item_records(10**7, ADDED), [b""] * ADDED)
        seconds = time.perf_counter() - started
        assert len(index) == n + ADDED
    changed = [
        path.name for path in folder.iterdir() if before.get(path.name) != path.stat().st_mtime_ns
    ]
    old = [
        name for name in changed if name in before and not name.startswith(("manifest", "write"))
    ]
    assert not old, old
    return {
        "seconds": seconds,
        "written_bytes": kernel_figure("written") - written,
        "new_file_bytes": sum((folder / name).stat().st_size for name in changed),
    }


STEPS = {"build": build, "open": open_first, "add": add_more}


def in_process(step: str, *arguments: object) -> dict[str, float]:
    """One of ``STEPS`` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.build_million", "--step", step]
    done = subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


@click.command()
@click.option("--items", default=1_000_000, show_default=True, help="Vectors.")
@click.option("--dimension", default=128, show_default=True)
@click.option("--kind", type=click.Choice(["clustered", "uniform"]), default="clustered")
@click.option("--threads", default=2, show_default=True, help="Threads of the build.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work [default: /tmp].")
@click.option("--step", type=click.Choice(list(STEPS)), hidden=True)
@click.argument("rest", nargs=-1)
def main(
    items: int, dimension: int, kind: str, threads: int, folder: Path | None, step: str | None,
    rest: tuple[str, ...],
) -> None:  # fmt: skip
    """Measure the life of a large index."""
    if step is not None:
        arguments = [int(text) if text.isdigit() else Path(text) for text in rest]
        click.echo(json.dumps(STEPS[step](*arguments)))  # type: ignore[operator]
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix="ildsdk-million-") as held:
        vectors, path = Path(held) / "vectors.npy", Path(held) / "index"
        _draw(vectors, kind, items, dimension)
        _measure(vectors, path, threads, f"{kind}, {items:,} x {dimension}")


def _measure(vectors: Path, path: Path, threads: int, what: str) -> None:
    n_bytes = vectors.stat().st_size
    click.echo(f"{what}: {_mb(n_bytes)} of vectors, {threads} threads, {os.cpu_count()} processors")
    built = in_process("build", vectors, path, threads)
    _tell("build: hash, codes, files", built["seconds"], GOAL_SECONDS, "s")
    click.echo(
        f"  CPU {built['cpu_seconds']:.1f} s, tree: {bool(built['has_tree'])}, index of "
        f"{_mb(built['index_bytes'])}"
    )
    _tell("build: peak memory (VmHWM) / vectors", built["peak_bytes"] / n_bytes, GOAL_MEMORY, "x")
    click.echo(
        f"  {_mb(built['peak_bytes'])}, of them {_mb(built['peak_bytes_before'])} before it began"
    )
    opened = [in_process("open", path)["metadata_ms"] for _ in range(5)]
    _tell("open to first metadata, median of 5", float(np.median(opened)), GOAL_OPEN_MS, "ms")
    added = in_process("add", path)
    click.echo(
        f"add {ADDED:,} slices: {added['seconds']:.2f} s, {_mb(added['written_bytes'])} written, "
        f"{_mb(added['new_file_bytes'])} of new files; no older file changed"
    )


def _mb(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


def _draw(path: Path, kind: str, n: int, d: int) -> None:
    from benchmarks.search_data import make_data

    np.save(path, make_data(kind, n, d, n_queries=2).vectors)


def _tell(what: str, found: float, goal: float, unit: str) -> None:
    verdict = "met" if found < goal else "NOT MET"
    click.echo(f"{what}: {found:.2f} {unit} (goal < {goal:g} {unit}: {verdict})")


if __name__ == "__main__":
    main()
