"""``ildsdk serve``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ildsdk.cli.options import bundle_option, index_option, new_path, runtime_options
from ildsdk.errors import ConfigError
from ildsdk.serve.settings import ServeSettings

if TYPE_CHECKING:
    from ildsdk.serve.listening import Listener

_DEFAULTS = ServeSettings()


@click.command()
@click.option("--socket", "socket_path", type=new_path, help="Listen on a Unix socket here.")
@click.option(
    "--port", type=click.IntRange(0, 65535),
    help="Listen on this port of 127.0.0.1 instead; 0 takes a free one. Only uploads are taken.",
)  # fmt: skip
@index_option
@bundle_option
@click.option(
    "--workers", type=click.IntRange(1), default=_DEFAULTS.n_workers, show_default=True,
    help="Queries answered at the same time; each uses all --threads.",
)  # fmt: skip
@click.option(
    "--max-waiting", type=click.IntRange(0), default=_DEFAULTS.max_waiting, show_default=True,
    help="Queries that may wait; the next one is refused (status 503).",
)  # fmt: skip
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, min_open=True),
    default=_DEFAULTS.timeout_s, show_default=True,
    help="Seconds for one query, upload and waiting included.",
)  # fmt: skip
@click.option(
    "--grace", "grace_s", type=click.FloatRange(0), default=_DEFAULTS.grace_s, show_default=True,
    help="Seconds that queries may still run after SIGTERM.",
)  # fmt: skip
@click.option(
    "--max-upload-mib", type=click.IntRange(1), default=_DEFAULTS.max_upload_bytes >> 20,
    show_default=True, help="Largest upload.",
)  # fmt: skip
@click.option(
    "--upload-folder", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where uploads lie while their query runs [default: the system's temporary folder].",
)  # fmt: skip
@click.option(
    "--remembered-slices", type=click.IntRange(0), metavar="N",
    help="Keep the embeddings of the last N slices, to recognize repeated ones [default: 4096, "
    "about 8 MB; 0 keeps none].",
)  # fmt: skip
@click.option(
    "--reload-every", "reload_s", type=click.FloatRange(0), default=_DEFAULTS.reload_s,
    show_default=True,
    help="Seconds between looks whether the index changed; 0 looks only at SIGHUP.",
)  # fmt: skip
@click.option("--no-log", is_flag=True, help="Write no line per request to stderr.")
@runtime_options
def serve(
    socket_path: Path | None,
    port: int | None,
    index_path: Path | None,
    bundle: Path | None,
    workers: int,
    max_waiting: int,
    timeout_s: float,
    grace_s: float,
    max_upload_mib: int,
    upload_folder: Path | None,
    remembered_slices: int | None,
    reload_s: float,
    no_log: bool,
    runtime: dict[str, Any],
) -> None:
    """Stay resident and answer queries over HTTP on this machine.

    Needs the extra 'serve'. `ildsdk query --socket PATH STUDY` asks it; GET /docs describes the
    interface. Runs in the foreground until SIGTERM or Ctrl-C; "ready on ..." on stderr says that
    it is warm.
    """
    if (socket_path is None) == (port is None):
        raise click.UsageError("name either --socket or --port")
    _check_extra()
    from ildsdk.serve.server import Server
    from ildsdk.serve.signals import end_signals
    from ildsdk.settings import RuntimeSettings

    settings = ServeSettings(
        n_workers=workers,
        max_waiting=max_waiting,
        timeout_s=timeout_s,
        grace_s=grace_s,
        max_upload_bytes=max_upload_mib << 20,
        upload_folder=upload_folder,
        remembered_slices=remembered_slices,
        reload_s=reload_s,
    )
    _start_log(quiet=no_log)
    with end_signals() as wish, _listen(socket_path, port) as listener:
        server = Server(
            listener,
            bundle=bundle,
            index=index_path,
            runtime=RuntimeSettings(**runtime),
            settings=settings,
            on_ready=lambda line: click.echo(line, err=True),
            notify_socket=os.environ.get("NOTIFY_SOCKET"),
        )
        wish.then(server.stop)
        is_quiet = server.run()
    if not is_quiet:
        # The interpreter would wait for the thread that hangs.
        click.echo("ended although a query still works: its grace time is over", err=True)
        os._exit(1)


def _check_extra() -> None:
    for name in ("starlette", "uvicorn", "prometheus_client"):
        try:
            __import__(name)
        except ImportError as error:
            raise ConfigError(
                f"`ildsdk serve` needs {name}, which is not installed: pip install 'ildsdk[serve]'"
            ) from error


@contextlib.contextmanager
def _listen(socket_path: Path | None, port: int | None) -> Iterator[Listener]:
    from ildsdk.serve.listening import listen_on_port, listen_on_socket

    if socket_path is not None:
        with listen_on_socket(socket_path) as listener:
            yield listener
    else:
        with listen_on_port(port or 0) as listener:
            yield listener


def _start_log(*, quiet: bool) -> None:
    import logging

    from ildsdk.serve.log import LOGGER, NoForeignText

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(NoForeignText())
    for name in (LOGGER.name, "uvicorn.error", "asyncio", "concurrent.futures"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
    LOGGER.setLevel(logging.WARNING if quiet else logging.INFO)
