"""CPU seconds of a fresh process up to its first answer, kernels compiled before.

    python -m benchmarks.bench_cold_search                 # median of 7, by part
    python -m benchmarks.bench_cold_search --runs 21

Small searches are answered by numpy, so that numba need not be started (``native_hash.starting``);
indexes of 28,942 and of 200,000 items show both sides of that line, and ``warmed`` starts the
kernels first whatever the size.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
GOAL_S = 0.7

CHILD = """
import sys, time
start = time.process_time()
import ildsdk
imported = time.process_time()
from ildsdk.index import Index
from ildsdk import defaults
path, mode, is_forced = sys.argv[1] or defaults.index_path(), sys.argv[2], sys.argv[3] == "forced"
index = Index.open(path)
label = index.items([0])[0].label
query = index.embeddings([len(index) // 2])
opened = time.process_time()
if is_forced:
    import native_hash.jit
found = index.search(query, 10, mode=mode)
searched = time.process_time()
index.search(query, 10, mode=mode)
again = time.process_time()
import json
loaded = compiled = 0
if "numba" in sys.modules:
    import numba
    for name, module in list(sys.modules.items()):
        if name.startswith("native_hash"):
            for value in vars(module).values():
                function = getattr(value, "py_func", None)
                if hasattr(value, "stats") and function is not None and function.__module__ == name:
                    loaded += sum(value.stats.cache_hits.values())
                    compiled += sum(value.stats.cache_misses.values())
print(json.dumps({
    "interpreter": start, "import ildsdk": imported - start, "open the index": opened - imported,
    "first search": searched - opened, "whole": searched, "second search": again - searched,
    "kernels loaded": loaded, "kernels compiled": compiled, "numba": "numba" in sys.modules,
}))
"""


def cold(path: Path | str, mode: str, is_forced: bool) -> dict[str, float]:
    """Parts of one fresh process, CPU seconds."""
    arguments = [str(path), mode, "forced" if is_forced else ""]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def make_index(folder: Path, kind: str, n: int) -> Path:
    """An index of drawn vectors, in a process of its own."""
    from benchmarks.build_million import item_records
    from benchmarks.search_data import make_data
    from ildsdk.index import Index

    path = folder / f"{kind}-{n}"
    vectors = make_data(kind, n, 128, n_queries=2).vectors
    with Index.create(
        path, name=path.name, bundle_hash="b" * 64, embedding_size=128, is_synthetic=True
    ) as index:
        index.add(vectors, item_records(0, n), (b"" for _ in range(n)), n_threads=2)
    return path


@click.command()
@click.option("--runs", default=7, show_default=True, help="Processes per line; medians are told.")
@click.option("--small", is_flag=True, help="The embedded index only.")
def main(runs: int, small: bool) -> None:
    """Measure the cold start of a search."""
    with tempfile.TemporaryDirectory(prefix="ildsdk-cold-") as held:
        cases: list[tuple[str, Path | str, str, bool]] = [
            ("embedded index", "", "exact", False),
            ("embedded index, kernels started", "", "exact", True),
        ]
        if not small:
            for kind, n in (("clustered", 28_942), ("clustered", 200_000), ("uniform", 200_000)):
                path = make_index(Path(held), kind, n)
                cases.append((f"{kind} {n:,}", path, "exact", False))
                cases.append((f"{kind} {n:,}, kernels started", path, "exact", True))
            cases.append(("uniform 200,000, fast, kernels started", path, "fast", True))
        for what, path, mode, is_forced in cases:
            cold(path, mode, is_forced)  # compiles what is not compiled yet
            found = [cold(path, mode, is_forced) for _ in range(runs)]
            parts = {name: statistics.median(one[name] for one in found) for name in found[0]}
            verdict = "met" if parts["whole"] < GOAL_S else "NOT MET"
            click.echo(f"{what}: {parts.pop('whole'):.3f} s of CPU (goal < {GOAL_S} s: {verdict})")
            numbers = ("kernels loaded", "kernels compiled", "numba")
            told = [f"{name} {parts[name]:.3f} s" for name in parts if name not in numbers]
            told += [f"{name} {parts[name]:.0f}" for name in numbers]
            click.echo(f"  {', '.join(told)}")


if __name__ == "__main__":
    main()
