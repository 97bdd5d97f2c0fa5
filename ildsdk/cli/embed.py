"""``ildsdk embed STUDY``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ildsdk.cli.options import (
    bundle_option,
    quiet_option,
    runtime_options,
    study_options,
    study_path,
)
from ildsdk.cli.progress import progress_bar
from ildsdk.settings import QuerySettings, RuntimeSettings


@click.command()
@click.argument("study", type=study_path)
@bundle_option
@study_options
@runtime_options
@quiet_option
def embed(
    study: Path,
    bundle: Path | None,
    series_uid: str | None,
    every_mm: float,
    runtime: dict[str, Any],
    quiet: bool,
) -> None:
    """Print the embeddings of a STUDY's slices as JSON.

    Embeddings compare only with embeddings of the same bundle (``bundle_hash``).
    """
    from ildsdk import defaults
    from ildsdk.bundle import Bundle
    from ildsdk.encoder import Encoder
    from ildsdk.kernel_loading import loading_kernels
    from ildsdk.slice_memory import SliceMemory
    from ildsdk.study_encoding import embed_study

    settings = QuerySettings(every_mm=every_mm, series_uid=series_uid)
    runtime_settings = RuntimeSettings(**runtime)
    with loading_kernels(runtime_settings.radiomics_engine):
        encoder = Encoder(Bundle.open(bundle or defaults.bundle_path()), runtime_settings)
    with progress_bar("slice", quiet=quiet) as progress:
        result = embed_study(study, SliceMemory(encoder), settings, progress)
    click.echo(result.to_json())
