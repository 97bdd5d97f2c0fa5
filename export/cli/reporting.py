"""``report``."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli.options import FOLDER, say, typed_errors


@click.command()
@click.argument("work", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder of the report; WORK/report by default.")
@click.option(
    "--top-n",
    type=click.IntRange(min=5),
    default=10,
    show_default=True,
    help="Neighbors of precision@n, recall@n and nDCG@n.",
)
@click.option(
    "--bootstrap",
    "n_bootstrap",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Samples of cases behind each interval.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of samples, map and gallery.",
)
@typed_errors
def report(work: Path, out: Path | None, top_n: int, n_bootstrap: int, seed: int) -> None:
    """Write the report of the experiment in WORK: Markdown, HTML, JSON and pictures.

    Nothing is trained: vectors of each system and fold are read, searched, measured and
    compared. Systems and folds that are not finished are named as missing.
    """
    from export.reporting import write_report

    results = write_report(work, out, top_n=top_n, n_bootstrap=n_bootstrap, seed=seed)
    for sentence in results["conclusions"]:
        click.echo(sentence)
    folder = work / "report" if out is None else out
    say(f"report in {folder}: report.md, report.html, results.json, pictures/")
