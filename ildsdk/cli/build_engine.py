"""``ildsdk build-engine``."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from ildsdk.cli.options import (
    bundle_option,
    engine_folder_option,
    quiet_option,
    user_engine_folder,
)
from ildsdk.settings import Precision

if TYPE_CHECKING:
    from ildsdk.runtime.engine_cache import Engine, EngineCache
    from ildsdk.runtime.tensorrt_engine import CompileModel, EngineRequest, TensorrtMachine

_PRECISIONS = [name for name in get_args(Precision) if name != "auto"]
_TICK_S = 1.0
_LINE_EVERY_S = 30.0


@click.command("build-engine")
@bundle_option
@click.option(
    "--precision",
    type=click.Choice(_PRECISIONS),
    default="fp32",
    show_default=True,
    help="Arithmetic of the backbone, as the query will ask for it.",
)
@click.option(
    "--device", type=click.IntRange(min=0), default=0, show_default=True, help="GPU number."
)
@click.option(
    "--batch-max",
    type=click.IntRange(min=1, max=1024),
    default=1,
    show_default=True,
    help="Largest batch; it is tuned for 1, which queries take.",
)
@engine_folder_option
@click.option("--force", is_flag=True, help="Build anew what is there.")
@click.option("--list", "only_list", is_flag=True, help="Print the engines there are; build none.")
@quiet_option
def build_engine(
    bundle: Path | None,
    precision: str,
    device: int,
    batch_max: int,
    engine_folder: Path | None,
    force: bool,
    only_list: bool,
    quiet: bool,
) -> None:
    """Build a bundle's TensorRT engines ahead of time, so that no query has to.

    An engine serves for this model, GPU, driver, TensorRT, onnxruntime and precision, and for
    nothing else: build again after any of them changed. What is there already is not built again.
    Needs the NVIDIA driver, CUDA and TensorRT on the machine that will answer queries.
    """
    from ildsdk.errors import ConfigError
    from ildsdk.runtime.engine_cache import EngineCache

    folder = engine_folder or user_engine_folder()
    if folder is None:
        raise ConfigError("this account has no cache folder; name one with --engine-folder")
    cache = EngineCache(folder)
    if only_list:
        _list(cache)
        return
    _build(cache, bundle, precision, device, batch_max, force, quiet)


def _build(
    cache: EngineCache,
    bundle: Path | None,
    precision: str,
    device: int,
    batch_max: int,
    force: bool,
    quiet: bool,
) -> None:
    from ildsdk import defaults
    from ildsdk.bundle import Bundle
    from ildsdk.runtime.bundle_engines import engine_requests
    from ildsdk.runtime.gpu_session import compile_with_tensorrt
    from ildsdk.runtime.providers import choose_provider
    from ildsdk.runtime.tensorrt_engine import TensorrtMachine

    opened = Bundle.open(bundle or defaults.bundle_path())
    requests = engine_requests(
        opened,
        precision,  # type: ignore[arg-type]
        batch_max=batch_max,
        device_id=device,
    )
    choose_provider("tensorrt")
    build_all(
        requests, TensorrtMachine.here(), cache, compile_with_tensorrt, force=force, quiet=quiet
    )


def build_all(
    requests: Sequence[EngineRequest],
    machine: TensorrtMachine,
    cache: EngineCache,
    compile_model: CompileModel,
    *,
    force: bool,
    quiet: bool,
) -> None:
    """Build engines one after the other and print a line for each."""
    from ildsdk.runtime.tensorrt_engine import build_engine as build_one

    for request in requests:
        with _elapsed(f"{request.model.name} {request.precision}", quiet=quiet):
            engine, is_new = build_one(request, machine, cache, compile_model, force=force)
        word = f"built in {engine.build_seconds:.0f} s" if is_new else "there already"
        click.echo(f"{request.model.name}: {_described(engine)}, {word}")


def _list(cache: EngineCache) -> None:
    engines, problems = cache.scan()
    for engine in engines:
        key = engine.key
        click.echo(
            f"{_described(engine)}, model {key.model_sha256[:12]}, {key.gpu}, TensorRT "
            f"{key.tensorrt}, onnxruntime {key.onnxruntime}, driver {key.driver}"
        )
    for problem in problems:
        click.echo(problem, err=True)
    if not engines:
        click.echo("no engines", err=True)
    if problems:
        sys.exit(4)


def _described(engine: Engine) -> str:
    return f"{engine.folder.name} ({engine.n_bytes / 1e6:.1f} MB)"


@contextlib.contextmanager
def _elapsed(what: str, *, quiet: bool) -> Iterator[None]:
    """Seconds on stderr while TensorRT builds: it tells no share through ONNX Runtime."""
    if quiet:
        yield
        return
    done = threading.Event()
    ticker = threading.Thread(target=_tick, args=(what, done), daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()


def _tick(what: str, done: threading.Event) -> None:
    is_terminal = sys.stderr.isatty()
    started = time.monotonic()
    click.echo(f"building {what} ...", err=True, nl=not is_terminal)
    while not done.wait(_TICK_S if is_terminal else _LINE_EVERY_S):
        text = f"building {what} ... {time.monotonic() - started:.0f} s"
        click.echo(f"\r{text}" if is_terminal else text, err=True, nl=not is_terminal)
    if is_terminal:
        click.echo("", err=True)
