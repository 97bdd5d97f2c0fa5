"""``phantom`` and ``prepare``: from nothing, or an archive, to a training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from export.cli.options import FOLDER, say, typed_errors
from ildsdk.settings import MethodSettings


@click.command()
@click.argument("out", type=FOLDER)
@click.option("--cases", default=20, show_default=True, help="Cases of each class.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first case of each class.")
@click.option("--size", default=512, show_default=True, help="Rows and columns of a slice.")
@click.option("--difficulty", default=0.5, show_default=True, help="0 (easy) to 1 (hard).")
@click.option("--processes", default=2, show_default=True)
@typed_errors
def phantom(out: Path, cases: int, seed: int, size: int, difficulty: float, processes: int) -> None:
    """Write a phantom archive (DICOM, a folder per case, cases.csv) to OUT."""
    from export.phantom import PhantomSettings, write_archive

    n_slices = write_archive(
        out, cases, seed, PhantomSettings(size=size, difficulty=difficulty), processes
    )
    say(f"{n_slices} slices")


@click.command()
@click.argument("cases_csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=FOLDER)
@click.option("--input-size", default=160, show_default=True, help="Side of the model input.")
@click.option("--every-mm", default=10.0, show_default=True, help="Slice sampling; 0 takes all.")
@click.option(
    "--engine", type=click.Choice(["fast", "pyradiomics"]), default="fast", show_default=True
)
@click.option("--processes", default=2, show_default=True)
@typed_errors
def prepare(
    cases_csv: Path, out: Path, input_size: int, every_mm: float, engine: Any, processes: int
) -> None:
    """Turn the archive of CASES_CSV into a training set in OUT; goes on where it stopped.

    CASES_CSV has the columns path, case_id, label and optionally site, verification. What was left
    out, and why, stands in OUT/skipped.csv.
    """
    from export.prepare import archive_sources
    from export.prepare import prepare as run

    slices = run(
        archive_sources(cases_csv, every_mm), out, MethodSettings(input_size=input_size),
        engine=engine, n_processes=processes,
    )  # fmt: skip
    say(f"{len(slices)} slices of {len(set(slices.case_ids))} cases")
