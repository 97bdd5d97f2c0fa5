"""Options that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from ildsdk.settings import Precision, Provider, RadiomicsEngine

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

existing_path = click.Path(exists=True, path_type=Path)
# Whether it exists is checked by study intake, whose error names no path.
study_path = click.Path(path_type=Path)
new_path = click.Path(path_type=Path)


def bundle_option(command: CommandT) -> CommandT:
    """``--bundle``."""
    return click.option(
        "--bundle",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Model bundle folder [default: the embedded phantom bundle].",
    )(command)


def index_option(command: CommandT) -> CommandT:
    """``--index``."""
    return click.option(
        "--index",
        "index_path",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Index folder built with that bundle [default: the embedded phantom index].",
    )(command)


def engine_folder_option(command: CommandT) -> CommandT:
    """``--engine-folder``."""
    return click.option(
        "--engine-folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of TensorRT engines; nobody else may write it [default: in the user's cache "
        "folder].",
    )(command)


def runtime_options(command: CommandT) -> CommandT:
    """``--provider``, ``--precision``, ``--threads`` and more as ``runtime=...``."""

    @click.option(
        "--provider",
        type=click.Choice(get_args(Provider)),
        default="auto",
        show_default=True,
        help="Execution provider; the one asked for runs, or an error says why not.",
    )
    @click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="auto",
        show_default=True,
        help="Arithmetic of the network; auto: the bundle's default where this processor is fast "
        "at it, else fp32.",
    )
    @click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Thread budget [default: the CPUs this process may use].",
    )
    @click.option(
        "--device", type=click.IntRange(min=0), default=0, show_default=True, help="GPU number."
    )
    @click.option(
        "--model-cache",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder that keeps networks optimized for this processor, for a quick start "
        "[default: in the user's cache folder].",
    )
    @click.option("--no-model-cache", is_flag=True, help="Keep none.")
    @click.option(
        "--gpu-memory-mb",
        type=click.IntRange(min=1),
        help="Upper limit of the networks' memory on the GPU [default: none].",
    )
    @engine_folder_option
    @click.option(
        "--allow-engine-build",
        is_flag=True,
        help="Build a missing TensorRT engine now, which takes minutes, instead of failing.",
    )
    @click.option(
        "--radiomics-engine",
        type=click.Choice(get_args(RadiomicsEngine)),
        default="fast",
        show_default=True,
        help="Our kernels, or pyradiomics (extra 'pyradiomics'); same features.",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        provider: str,
        precision: str,
        threads: int | None,
        device: int,
        model_cache: Path | None,
        no_model_cache: bool,
        gpu_memory_mb: int | None,
        engine_folder: Path | None,
        allow_engine_build: bool,
        radiomics_engine: str,
        **kwargs: Any,
    ) -> Any:
        # BLAS reads these once, when numpy is first imported: here it is not yet. Its threads wait
        # busily after each product and take the cores from what counts; nothing here needs them.
        for variable in _THREAD_VARIABLES:
            os.environ.setdefault(variable, "1")
        runtime = {
            "provider": provider,
            "precision": precision,
            "n_threads": threads,
            "device_id": device,
            "model_cache": None if no_model_cache else model_cache or user_model_cache(),
            "gpu_memory_bytes": None if gpu_memory_mb is None else gpu_memory_mb << 20,
            "engine_folder": engine_folder or user_engine_folder(),
            "allow_engine_build": allow_engine_build,
            "radiomics_engine": radiomics_engine,
        }
        return command(*args, runtime=runtime, **kwargs)

    return wrapped  # type: ignore[return-value]


def user_model_cache() -> Path | None:
    """Folder of this account for optimized networks; None for an account without a home."""
    return _user_cache("models")


def user_engine_folder() -> Path | None:
    """Folder of this account for TensorRT engines; None for an account without a home."""
    return _user_cache("engines")


def _user_cache(name: str) -> Path | None:
    from platformdirs import user_cache_path

    folder = user_cache_path("ildsdk", appauthor=False) / name
    return folder if folder.is_absolute() else None


def study_options(command: CommandT) -> CommandT:
    """``--series`` and ``--every-mm``."""
    command = click.option(
        "--every-mm",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        help="Take slices at least this far apart (mm); 0 takes all.",
    )(command)
    return click.option(
        "--series", "series_uid", help="Use this SeriesInstanceUID instead of the best series."
    )(command)


def explain_option(command: CommandT) -> CommandT:
    """``--explain``."""
    return click.option(
        "--explain",
        is_flag=True,
        help="Show on the page where in the slices their similarity comes from (the bundle must "
        "have activation maps; neighbors are mapped where the index keeps theirs).",
    )(command)


def quiet_option(command: CommandT) -> CommandT:
    """``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress bar on stderr.")(command)
