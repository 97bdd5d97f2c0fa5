"""``experiment``: six systems, folds by case, report."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from export.cli.options import FOLDER, say, typed_errors


@click.command()
@click.argument("experiment")
@click.option("--work", type=FOLDER, help="Folder of the run; default: work/NAME.")
@click.option("--processes", default=2, show_default=True, help="Of the preparation.")
@typed_errors
def experiment(experiment: str, work: Path | None, processes: int) -> None:
    """Run EXPERIMENT, a TOML file or a built-in one (small.toml, paper.toml), and report.

    Trains every system of the file on every fold, then writes WORK/report/report.md and
    report.html. A killed run goes on where it stopped: give the same command again. Cases, not
    slices, are held out, and a leak between training and test cases ends the run.
    """
    from export.experiment import load_settings, run_experiment
    from export.experiment.settings import find_experiment

    settings = load_settings(find_experiment(experiment))
    # No folders: the report is passed on.
    names = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    command = shlex.join(["python", "-m", "export", *names])
    report = run_experiment(
        settings,
        work or Path("work") / settings.name,
        n_processes=processes,
        say=say,
        command=command,
    )
    click.echo(report)
