"""``triton``: a model repository for NVIDIA Triton Inference Server."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli.options import FOLDER, typed_errors


@click.command()
@click.argument("out", type=FOLDER)
@click.option(
    "--bundle", "bundle_folder", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Model bundle folder [default: the embedded phantom bundle].",
)  # fmt: skip
@click.option(
    "--version", "version_number", type=click.IntRange(min=1), default=1, show_default=True,
    help="Number of the version folders.",
)  # fmt: skip
@click.option(
    "--max-batch", type=click.IntRange(min=1, max=1024), default=8, show_default=True,
    help="Largest batch Triton puts together.",
)  # fmt: skip
@click.option(
    "--queue-delay-us", type=click.IntRange(min=0), default=2000, show_default=True,
    help="How long a request may wait for others (microseconds).",
)  # fmt: skip
@click.option(
    "--instances", type=click.IntRange(min=1), default=1, show_default=True,
    help="Copies of each network on each GPU.",
)  # fmt: skip
@click.option(
    "--engine-folder", default="/var/cache/ildsdk/engines", show_default=True,
    help="Where TensorRT keeps engines on the server; nobody else may write it.",
)  # fmt: skip
@click.option("--int8", is_flag=True, help="Also the 8-bit backbone, for CPUs (variant cpu-int8).")
@typed_errors
def triton(
    out: Path,
    bundle_folder: Path | None,
    version_number: int,
    max_batch: int,
    queue_delay_us: int,
    instances: int,
    engine_folder: str,
    int8: bool,
) -> None:
    """Write a bundle as a model repository OUT: backbone, fusion net, and both as one ensemble."""
    from export.triton.configs import TritonSettings
    from export.triton.repository import write_repository
    from ildsdk import defaults
    from ildsdk.bundle import Bundle

    bundle = Bundle.open(bundle_folder or defaults.bundle_path())
    settings = TritonSettings(
        max_batch_size=max_batch,
        queue_delay_us=queue_delay_us,
        instances=instances,
        engine_folder=engine_folder,
        metric_tag=bundle.bundle_hash[:12],
    )
    click.echo(write_repository(out, bundle, settings, version=version_number, with_int8=int8))
