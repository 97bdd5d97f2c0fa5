"""``ildsdk warmup``."""

from __future__ import annotations

import sys

import click

_PLACES = {
    "package": "in the package",
    "user": "in the user's cache folder",
    "nowhere": "nowhere: no folder for it is writable, so each process compiles anew",
}


@click.command()
@click.option(
    "--check", is_flag=True, help="Compile nothing; exit status 1 where a kernel is not cached."
)
def warmup(check: bool) -> None:
    """Compile all kernels now, or load them from the cache, so that the first query need not.

    Compiled code is kept beside the package where that is writable, else in the user's cache
    folder. Run once when an image or a read-only installation is made, with the processor
    that will use it: code for another one is compiled anew. Exit status 1 where nothing
    could be kept.
    """
    from ildsdk.warming import warm_up

    done = warm_up(may_compile=not check)
    if done.cold is not None:
        click.echo(
            f"cold: kernel {done.cold} is not in the cache of this processor and version; run "
            "`ildsdk warmup`",
            err=True,
        )
        sys.exit(1)
    click.echo(
        f"{done.n_compiled} kernels compiled, {done.n_loaded} loaded from the cache in "
        f"{done.seconds:.1f} s; compiled code lies {_PLACES[done.kept]}"
    )
    if done.kept == "nowhere":
        sys.exit(1)
