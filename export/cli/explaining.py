"""``pointing``: are activation maps where the lesions are, on phantoms."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli.options import FOLDER, typed_errors


@click.command()
@click.argument("prepared", type=FOLDER)
@click.argument("bundle_folder", metavar="BUNDLE", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--cases", type=int, help="Held-out cases of each class; default: all.")
@click.option("--neighbors", default=4, show_default=True, help="Neighbors whose maps are scored.")
@click.option(
    "--min-lesion-mm2", default=200.0, show_default=True,
    help="Slices with less lesion inside the lung mask are not scored.",
)  # fmt: skip
@click.option("--size", default=512, show_default=True, help="Rows and columns of the phantoms.")
@click.option("--difficulty", default=0.5, show_default=True, help="Of the phantoms.")
@click.option("--seed", default=0, show_default=True, help="Of bootstrap and random network.")
@click.option("--threads", default=2, show_default=True)
@typed_errors
def pointing(
    prepared: Path, bundle_folder: Path, out: Path, cases: int | None, neighbors: int,
    min_lesion_mm2: float, size: int, difficulty: float, seed: int, threads: int,
) -> None:  # fmt: skip
    """Score the maps of BUNDLE on held-out phantoms, whose lesions are known; report in OUT.

    PREPARED is the set that the bundle's model was trained with: its training cases are the
    index. Held-out cases are made again from their case ids, so size and difficulty must be those
    of the phantoms (checked). Maps are compared with chance and with an untrained network.
    """
    import torch

    from export.dataset import load_slice_set
    from export.explain.pointing import PointingSettings
    from export.explain.pointing_report import markdown_report, play_and_report
    from export.phantom import PhantomSettings
    from ildsdk.bundle import Bundle

    torch.set_num_threads(threads)
    result = play_and_report(
        load_slice_set(prepared),
        Bundle.open(bundle_folder),
        out,
        PointingSettings(
            n_cases_per_label=cases,
            n_neighbors=neighbors,
            min_lesion_mm2=min_lesion_mm2,
            phantom=PhantomSettings(size=size, difficulty=difficulty),
            seed=seed,
            n_threads=threads,
        ),
    )
    click.echo(markdown_report(result))
