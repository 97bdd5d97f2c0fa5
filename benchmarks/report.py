"""Measures the searches and writes docs/search-benchmarks.md with its figure.

    python -m benchmarks.report --quick                    # a few minutes
    python -m benchmarks.report --size 28942 --size 100000
    python -m benchmarks.report                            # hours: everything issue 3 names

Each set (kind, n, d) that was measured is kept in ``work/search-bench`` and not measured again
unless ``--fresh`` is given, so that a long run can be resumed; the report is written from
everything that is there.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.environment import need

if TYPE_CHECKING:
    from benchmarks.search_run import Effort

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "search-benchmarks.md"
FIGURE = ROOT / "docs" / "pictures" / "search-recall-latency.png"
KEPT = ROOT / "work" / "search-bench"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PACKAGES = ("numpy", "numba", "faiss-cpu", "hnswlib", "usearch")
SIZES, DIMENSIONS = (28_942, 100_000, 1_000_000), (128, 512)
PORTABLE_CPUS = ("x86-64-v3", "x86-64-v2", "generic")  # AVX2, SSE4.2, SSE2


@click.command()
@click.option("--size", "sizes", type=int, multiple=True, help="Vectors; may be repeated.")
@click.option("--dimension", "dimensions", type=int, multiple=True, help="May be repeated.")
@click.option(
    "--data",
    "kinds",
    type=click.Choice(["uniform", "clustered", "phantom"]),
    multiple=True,
    help="May be repeated.",
)
@click.option("--contender", "only", multiple=True, help="Part of a name; may be repeated.")
@click.option("--quick", is_flag=True, help="28,942 x 128 only, short timings.")
@click.option("--seconds", default=45.0, help="Rough time of each of the four timings of a set.")
@click.option("--build-threads", default=1, help="Threads for every contender's build.")
@click.option("--build-limit", default=900.0, help="Seconds after which a build is given up.")
@click.option(
    "--light-from",
    default=10**9,
    help="Vectors from which on a set gets no curve, few rounds, and no batches that take seconds.",
)
@click.option("--queries", default=600, help="Queries to tune on, and as many others to score.")
@click.option("--fresh", is_flag=True, help="Measure again what was measured before.")
@click.option(
    "--portable",
    type=click.Choice(PORTABLE_CPUS),
    help="Measure ours also by the code numba makes for this CPU.",
)
@click.option("--kept", type=click.Path(path_type=Path), default=KEPT, help="Folder of results.")
@click.option("--no-document", is_flag=True, help="Measure only.")
def main(
    sizes: Sequence[int],
    dimensions: Sequence[int],
    kinds: Sequence[str],
    only: Sequence[str],
    quick: bool,
    seconds: float,
    build_threads: int,
    build_limit: float,
    light_from: int,
    queries: int,
    fresh: bool,
    portable: str | None,
    kept: Path,
    no_document: bool,
) -> None:
    """Measure the searches of ildsdk and of other libraries, and write the report."""
    need("faiss", "hnswlib", "usearch")
    from benchmarks.search_run import LIGHT, Effort

    if quick:
        sizes, dimensions, seconds = sizes or (28_942,), dimensions or (128,), min(seconds, 8.0)
    sets = _sets(kinds or ("uniform", "clustered", "phantom"), sizes or SIZES, dimensions)
    for kind, n, dimension in sets:
        path = kept / f"{kind}-{n}-{dimension}.json"
        if path.exists() and not fresh:
            click.echo(f"{path.name} is there")
            continue
        effort = Effort(
            seconds=seconds,
            build_threads=build_threads,
            build_limit_s=build_limit,
            **(LIGHT if n >= light_from else {}),
        )
        _measure_to(path, kind, n, dimension, only, queries, effort)
    if portable is not None:
        _run_portable(portable, sets, kept / portable, seconds, queries, fresh)
    if not no_document:
        write_document(_cells(kept), {cpu: _cells(kept / cpu) for cpu in PORTABLE_CPUS})


def _sets(
    kinds: Sequence[str], sizes: Sequence[int], dimensions: Sequence[int]
) -> list[tuple[str, int, int]]:
    """Sets to measure, small ones first; the size of ``phantom`` is given by the index."""
    sets: list[tuple[str, int, int]] = [("phantom", 0, 0)] if "phantom" in kinds else []
    drawn = [kind for kind in kinds if kind != "phantom"]
    sets += [
        (kind, n, dimension)
        for dimension, n, kind in itertools.product(dimensions or DIMENSIONS, sizes, drawn)
    ]
    return sets


def _measure_to(
    path: Path,
    kind: str,
    n: int,
    dimension: int,
    only: Sequence[str],
    n_queries: int,
    effort: Effort,
) -> None:
    from benchmarks.search_data import make_data
    from benchmarks.search_ours import OURS
    from benchmarks.search_peers import PEERS
    from benchmarks.search_run import measure

    contenders = [
        kind_ for kind_ in (*PEERS, *OURS) if not only or any(part in kind_.name for part in only)
    ]
    click.echo(f"== {kind} {n} x {dimension}: {len(contenders)} contenders")
    data = make_data(kind, n, dimension, n_queries=n_queries)
    cell = measure(data, contenders, effort, tell=click.echo)
    cell["environment"] = environment()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(cell, indent=1))
    unfinished.replace(path)


def _run_portable(
    cpu: str,
    sets: Sequence[tuple[str, int, int]],
    kept: Path,
    seconds: float,
    queries: int,
    fresh: bool,
) -> None:
    """The same sets in processes whose numba compiles for another CPU; ours and Flat only."""
    switches = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    for kind, n, dimension in sets:
        command = [sys.executable, "-m", "benchmarks.report", "--no-document", "--data", kind]
        command += ["--contender", "ildsdk", "--contender", "IndexFlatIP", "--kept", str(kept)]
        command += ["--seconds", str(seconds), "--queries", str(queries)]  # or answers differ
        command += ["--fresh"] if fresh else []
        command += ["--size", str(n), "--dimension", str(dimension)]
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | switches)


def _cells(kept: Path) -> list[dict[str, Any]]:
    cells = [json.loads(path.read_text()) for path in sorted(kept.glob("*.json"))]
    order = ("clustered", "uniform", "phantom")
    return sorted(cells, key=lambda c: (order.index(c["kind"]), c["dimension"], c["n"]))


def environment() -> dict[str, str]:
    """Processor, its vector extensions, threads, and versions."""
    import llvmlite.binding
    import numba

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in found.items()}
    flags = set(facts.get("flags", "").split())
    vector = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_vpopcntdq") if f in flags]
    return {
        "processor": facts.get("model name", platform.processor() or platform.machine()),
        "vector extensions": " ".join(vector) or "none of AVX2 and AVX-512",
        "numba compiles for": numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name(),
        "processors": str(os.cpu_count()),
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def write_document(
    cells: Sequence[dict[str, Any]], portable: dict[str, list[dict[str, Any]]]
) -> None:
    """Replace what stands between the two marks of the document, and draw the figure."""
    from benchmarks.search_figure import draw
    from benchmarks.search_tables import cell_table, checklist, portable_table

    parts = ["## Asked and measured", "", checklist(cells), ""]
    for cpu, theirs in portable.items():
        if theirs:
            parts += [f"## Ours by the code for {cpu}", "", portable_table(cells, theirs, cpu), ""]
    parts += ["## All figures", ""]
    for cell in cells:
        parts += [cell_table(cell), ""]
    machines = {json.dumps(cell["environment"], sort_keys=True) for cell in cells}
    parts += ["## Machine", ""]
    for machine in sorted(machines):
        facts = ", ".join(f"{name}: {value}" for name, value in json.loads(machine).items())
        parts.append(f"- {facts}")
    text = DOCUMENT.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    DOCUMENT.write_text(f"{head}{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}{tail}")
    if draw(cells, FIGURE):
        click.echo(f"wrote {FIGURE.relative_to(ROOT)}")
    click.echo(f"wrote {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
