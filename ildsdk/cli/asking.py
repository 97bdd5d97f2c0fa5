"""``ildsdk query --socket``: the same question to a resident server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ildsdk.cli.answer_output import print_result
from ildsdk.cli.options import new_path
from ildsdk.settings import QuerySettings

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

# What was chosen when the server was started, and what an answer over the socket does not carry.
_OF_THE_SERVER = ("index_path", "bundle", "provider", "precision", "threads", "device",
                  "radiomics_engine")  # fmt: skip
_NEEDS_PICTURES = ("report", "explain")


def socket_options(command: CommandT) -> CommandT:
    """``--socket`` and ``--upload``."""
    command = click.option(
        "--upload", is_flag=True,
        help="With --socket: send the file's bytes, for a server that cannot read the path.",
    )(command)  # fmt: skip
    return click.option(
        "--socket", "socket_path", type=new_path,
        help="Ask the server that listens there (`ildsdk serve --socket`) instead of loading "
        "everything: same answer, no start-up.",
    )(command)  # fmt: skip


def ask_server(
    socket_path: Path,
    study: Path,
    settings: QuerySettings,
    output_format: str,
    *,
    upload: bool,
    timeout_s: float | None,
) -> None:
    """Ask, and print what ``ildsdk query`` itself would print.

    Raises
    ------
    IldError
        As without the server, and ServerError, ServerBusyError, QueryTimeoutError.
    """
    _refuse(_OF_THE_SERVER, "was chosen when the server was started: leave it out with --socket")
    _refuse(_NEEDS_PICTURES, "needs pictures, which the server does not send: leave out --socket")
    from ildsdk.serve.client import Client, RefusedQueryError

    with Client(socket_path, timeout_s) as client:
        ask = client.upload if upload else client.query
        try:
            answer = ask(study, settings)
        except RefusedQueryError as refused:
            if output_format == "json" and refused.answer is not None:
                click.echo(refused.answer)
            raise refused.error from None
    if output_format == "json":
        click.echo(answer)
        return
    from ildsdk.serve.answers import result_from_dict

    print_result(result_from_dict(json.loads(answer)), output_format)


def _refuse(names: tuple[str, ...], why: str) -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        if (
            parameter.name in names
            and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        ):
            raise click.UsageError(f"{parameter.opts[0]} {why}")
