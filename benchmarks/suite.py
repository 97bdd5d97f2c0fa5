"""The regression suite in one run: results as JSON and Markdown, acceptance figures printed.

    python -m benchmarks.suite [RESULTS.json]        # make bench

Under 20 minutes on 2 cores. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.acceptance import acceptance, as_text
from benchmarks.environment import need
from benchmarks.result_tables import acceptance_table, group_tables, machine_line
from benchmarks.results import ResultsError, read_results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
# Not bench_search.py, which tunes a dozen contenders: bench_index_search.py has its main groups.
FILES = (
    "bench_slice.py",
    "bench_study.py",
    "bench_cold.py",
    "bench_memory.py",
    "bench_socket.py",
    "bench_index_search.py",
    "bench_radiomics.py",
    "bench_lung.py",
)
MOST_ROUNDS = 200
DIGITS = 9  # of seconds: nanoseconds


def condensed(document: dict[str, Any]) -> dict[str, Any]:
    """The results without what nobody reads: at most some hundred rounds of each entry."""
    for one in document["benchmarks"]:
        data = one["stats"]["data"]
        step = -(-len(data) // MOST_ROUNDS)
        one["stats"]["data"] = [round(seconds, DIGITS) for seconds in data[::step]]
        one.pop("options", None)
    document.get("commit_info", {}).pop("project", None)
    return document


def as_lines(document: dict[str, Any]) -> str:
    """JSON with one line for each entry, which a diff can show."""
    entries = ",\n".join(json.dumps(one) for one in document["benchmarks"])
    rest = json.dumps({k: v for k, v in document.items() if k != "benchmarks"}, indent=1)
    return f'{rest[:-2]},\n "benchmarks": [\n{entries}\n]\n}}\n'


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=RESULTS)
@click.option(
    "--engines", type=click.Path(path_type=Path, exists=True),
    help="JSON of benchmarks.compare_openvino, taken into RESULTS for the performance page.",
)  # fmt: skip
@click.option("--only", multiple=True, help="Part of a file's name; may be repeated.")
def main(results: Path, engines: Path | None, only: tuple[str, ...]) -> None:
    """Run the suite and write RESULTS (JSON) and, beside it, the tables (Markdown)."""
    need("pytest", "pytest_benchmark", "skimage")
    chosen = [
        f"benchmarks/{name}" for name in FILES if not only or any(part in name for part in only)
    ]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        command = [sys.executable, "-m", "pytest", *chosen, "--benchmark-enable"]
        command += [f"--benchmark-json={raw}", "-p", "no:cacheprovider", "-rs"]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not raw.exists():
            sys.exit(status or 1)
        document = condensed(json.loads(raw.read_text()))
    if engines is not None:
        document["engines"] = json.loads(engines.read_text())
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(as_lines(document))
    try:
        found = read_results(results)
    except ResultsError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    tables = (machine_line(found), acceptance_table(found), group_tables(found))
    results.with_suffix(".md").write_text("\n\n".join(tables) + "\n")
    click.echo(as_text(acceptance(found)))
    disturbed = sorted({entry.group for entry in found.entries if entry.is_disturbed})
    for group in disturbed:
        click.echo(f"warning: the machine was busy with other work during {group}", err=True)
    minutes = (time.monotonic() - started) / 60
    click.echo(f"{len(found.entries)} entries in {minutes:.1f} minutes: {results.name}")
    sys.exit(status)


if __name__ == "__main__":
    main()
