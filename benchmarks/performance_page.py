"""Writes docs/performance.md and the README's performance table from a results file.

python -m benchmarks.performance_page benchmarks/baseline.json            # write both
python -m benchmarks.performance_page benchmarks/baseline.json --check    # exit 1 where they differ
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import jinja2

from benchmarks.compare import LEAST_CHANGE, as_text, compare
from benchmarks.elsewhere import MOST
from benchmarks.result_tables import acceptance_table, group_tables, machine_line, readme_table
from benchmarks.results import Results, ResultsError, read_results

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = Path(__file__).with_name("performance_page.md.jinja")
PAGE, README = ROOT / "docs" / "performance.md", ROOT / "README.md"
PREVIOUS = Path(__file__).with_name("baseline-previous.json")
BEGIN, END = "<!-- performance: begin -->", "<!-- performance: end -->"


def performance_page(results: Results, previous: Results | None) -> str:
    """The whole page.

    Parameters
    ----------
    previous : Results or None
        The baseline before this one, for "what changed".
    """
    template = jinja2.Template(
        TEMPLATE.read_text(encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    changed = "No baseline before this one is kept here to compare it with."
    if previous is not None:
        text = as_text(compare(previous, results))
        changed = f"Against the baseline of {previous.taken[:10]}:\n\n```\n{text}\n```"
    return template.render(
        least_change=f"{(LEAST_CHANGE - 1) * 100:g}",
        most_elsewhere=f"{MOST * 100:g}",
        machine=machine_line(results),
        acceptance=acceptance_table(results),
        engines=_engines(results),
        changed=changed,
        groups=group_tables(results),
    )


def _engines(results: Results) -> str | None:
    if results.engines is None:
        return None
    from benchmarks.compare_openvino import markdown

    return markdown(results.engines)


def with_readme_table(readme: str, results: Results) -> str:
    """The README with the table between its marks replaced.

    Raises
    ------
    ResultsError
        The marks are not there, once each and in order.
    """
    if (
        readme.count(BEGIN) != 1
        or readme.count(END) != 1
        or readme.index(BEGIN) > readme.index(END)
    ):
        raise ResultsError(f"README.md must hold {BEGIN} and {END} once each, in this order")
    head, rest = readme.split(BEGIN)
    tail = rest.split(END)[1]
    return f"{head}{BEGIN}\n{readme_table(results)}\n{END}{tail}"


@click.command()
@click.argument("path", metavar="RESULTS", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Write nothing; exit status 1 where a file differs.")
@click.option(
    "--previous", type=click.Path(path_type=Path), default=PREVIOUS,
    help="Baseline before this one, for 'what changed'; left out where it does not exist.",
)  # fmt: skip
@click.option("--page-only", is_flag=True, help="Leave the README alone.")
def main(path: Path, check: bool, previous: Path, page_only: bool) -> None:
    """Write docs/performance.md and the README's table from RESULTS."""
    try:
        results = read_results(path)
        before = read_results(previous) if previous.exists() else None
        wanted = {PAGE: performance_page(results, before)}
        if not page_only:
            wanted[README] = with_readme_table(README.read_text(encoding="utf-8"), results)
    except ResultsError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    differing = []
    for file, text in wanted.items():
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        differing.append(file.name)
        if not check:
            file.write_text(text, encoding="utf-8", newline="\n")
    for name in differing:
        click.echo(f"{'differs from' if check else 'written from'} {path.name}: {name}")
    sys.exit(1 if check and differing else 0)


if __name__ == "__main__":
    main()
