"""``ildsdk warmup``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from ildsdk.cli.options import bundle_option, user_model_cache
from ildsdk.runtime.threads import available_cpus
from ildsdk.settings import Precision

_PLACES = {
    "package": "in the package",
    "user": "in the user's cache folder",
    "nowhere": "nowhere: no folder for it is writable, so each process compiles anew",
}
_NETWORK = {
    "package": "network optimized for this processor lies in the package",
    "user": "network optimized for this processor lies in the user's cache folder",
    "nowhere": "network is kept nowhere: no folder for it is writable for this account alone",
    "not-needed": "network needs no optimized form at this precision",
}


@click.command()
@click.option(
    "--check", is_flag=True, help="Make nothing; exit status 1 where something is not cached."
)
@bundle_option
@click.option(
    "--precision", type=click.Choice(get_args(Precision)), default="auto", show_default=True,
    help="Precision that queries will ask for.",
)  # fmt: skip
def warmup(check: bool, bundle: Path | None, precision: Precision) -> None:
    """Make now, or find in the cache, what the first query would wait for.

    That is the compiled kernels, and the bundle's network optimized for this processor.

    Both are kept beside the package where that is writable, else in the user's cache
    folder. Run once when an image or a read-only installation is made, with the processor
    that will use it: for another one they are made anew. Exit status 1 where something
    could not be kept.
    """
    from ildsdk import defaults
    from ildsdk.bundle import Bundle
    from ildsdk.runtime.baking import keep_backbone
    from ildsdk.warming import warm_up

    place = keep_backbone(
        Bundle.open(bundle or defaults.bundle_path()),
        precision,
        user_model_cache(),
        n_threads=available_cpus(),
        may_write=not check,
    )
    done = warm_up(may_compile=not check)
    if done.cold is not None:
        click.echo(
            f"cold: kernel {done.cold} is not in the cache of this processor and version; run "
            "`ildsdk warmup`",
            err=True,
        )
        sys.exit(1)
    if check and place == "nowhere":
        click.echo(
            "cold: the network is not kept for this processor and version; run `ildsdk warmup`",
            err=True,
        )
        sys.exit(1)
    click.echo(
        f"{done.n_compiled} kernels compiled, {done.n_loaded} loaded from the cache in "
        f"{done.seconds:.1f} s; compiled code lies {_PLACES[done.kept]}"
    )
    click.echo(_NETWORK[place])
    if "nowhere" in (done.kept, place):
        sys.exit(1)
