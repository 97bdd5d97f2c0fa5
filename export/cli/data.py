"""``phantom``, ``prepare``, ``check-leaks``: from nothing, or an archive, to a training set."""

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
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[CASES_CSV] OUT")
@click.option("--phantom", "n_phantoms", type=int, help="Phantom cases of each class, no archive.")
@click.option("--seed", default=0, show_default=True, help="Phantoms: seed of each class's first.")
@click.option("--size", default=512, show_default=True, help="Phantoms: rows and columns.")
@click.option("--difficulty", default=0.5, show_default=True, help="Phantoms: 0 (easy) to 1.")
@click.option("--input-size", default=160, show_default=True, help="Side of the model input.")
@click.option(
    "--every-mm", default=10.0, show_default=True, help="DICOM: slice sampling; 0 takes all."
)
@click.option(
    "--engine", type=click.Choice(["fast", "pyradiomics"]), default="fast", show_default=True
)
@click.option(
    "--warn-above", default=0.3, show_default=True, help="Lost share of a class that is too much."
)
@click.option("--processes", default=2, show_default=True)
@typed_errors
def prepare(
    paths: tuple[Path, ...],
    n_phantoms: int | None,
    seed: int,
    size: int,
    difficulty: float,
    input_size: int,
    every_mm: float,
    engine: Any,
    warn_above: float,
    processes: int,
) -> None:
    """Turn the archive of CASES_CSV into a training set in OUT; goes on where it stopped.

    CASES_CSV has the columns path, case_id, label and optionally site, verification. With
    --phantom N no table is given: N phantom cases of each class are made in memory. What was left
    out, and why, stands in OUT/skipped.csv.
    """
    from export.prepare import archive_sources, phantom_sources
    from export.prepare import prepare as run

    n_expected = 2 if n_phantoms is None else 1
    if len(paths) != n_expected:
        raise click.UsageError("expected CASES_CSV OUT, or --phantom N OUT")
    if n_phantoms is None:
        sources = archive_sources(paths[0], every_mm)
    else:
        sources = phantom_sources(n_phantoms, seed, size, difficulty)
    slices = run(
        sources, paths[-1], MethodSettings(input_size=input_size),
        engine=engine, n_processes=processes, warn_above=warn_above, say=say,
    )  # fmt: skip
    say(f"{len(slices)} slices of {len(set(slices.case_ids))} cases")


@click.command("check-leaks")
@click.argument("prepared", type=FOLDER)
@click.argument("folds_json", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--min-correlation", type=float, help="Correlation above which two slices are one picture."
)
@typed_errors
def check_leaks(prepared: Path, folds_json: Path, min_correlation: float | None) -> None:
    """Require that no fold of FOLDS_JSON shares anything between training and test.

    Compares patients, studies and pictures of the PREPARED set across sides, and ends with
    status 2 where one stands on both.
    """
    from export.dataset import load_slice_set
    from export.leaks import check_folds
    from export.near_duplicates import DuplicateRule
    from export.splits import read_folds

    rule = DuplicateRule()
    if min_correlation is not None:
        rule = DuplicateRule(min_correlation=min_correlation)
    for line in check_folds(load_slice_set(prepared), read_folds(folds_json), rule).summary():
        say(line)


@click.command("phantom-figure")
@click.argument("out", type=FOLDER)
@click.option("--seed", default=0, show_default=True, help="Seed of the first case of each class.")
@click.option("--size", default=512, show_default=True, help="Rows and columns of a slice.")
@click.option("--difficulty", default=0.5, show_default=True, help="0 (easy) to 1 (hard).")
@typed_errors
def phantom_figure(out: Path, seed: int, size: int, difficulty: float) -> None:
    """Draw example slices of each phantom class, and their lesions, into OUT."""
    from export.phantom.figure import draw_figures

    for path in draw_figures(out, seed, size, difficulty):
        say(f"{path.name}: {path.stat().st_size} bytes")
