"""The command line: the only place that prints, reads the environment and exits.

Command modules import click and settings only; everything heavy is imported inside the
commands, so that ``--help`` stays fast.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence

import click

from ildsdk._version import __version__
from ildsdk.cli.lazy_commands import LazyCommands
from ildsdk.errors import IldError, NoUsableSliceError

_MAX_LISTED = 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


_COMMANDS = (
    "query", "embed", "index", "bundle", "radiomics", "demo", "doctor", "warmup", "build-engine",
    "serve", "completion",
)  # fmt: skip


@click.group(
    commands=LazyCommands("ildsdk.cli", _COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ildsdk")
@click.option("--debug", is_flag=True, help="Print the full traceback of an unexpected error.")
def cli(debug: bool) -> None:
    """Find the most similar slices of diagnosed ILD cases for a chest CT.

    Research use only; not a medical device, not for diagnosis.

    Exit status: 0 answered, 1 defect, 2 option or setting, 3 study or image, 4 bundle, model or
    execution provider, 5 index, 6 stopped by --timeout, 7 resident server.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: runs a command and turns errors into a line on stderr and an exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        cli.main(args=arguments, prog_name="ildsdk", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except IldError as error:
        click.echo(f"error ({error.code}): {error}", err=True)
        if isinstance(error, NoUsableSliceError):
            _list_skipped(error)
        sys.exit(error.exit_code)
    except Exception as error:
        # click ends with 1 and says nothing where the reader of our output went away (`| head`).
        if isinstance(error, OSError) and error.errno in _FULL:
            click.echo(f"error (disk): nothing more can be written ({error.strerror})", err=True)
        elif "--debug" in arguments:
            traceback.print_exc()
        else:
            # The message of a foreign exception may quote the input: only its kind is shown.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.name}, line {frame.lineno}"
            click.echo(
                f"unexpected {type(error).__name__} in {place}: a defect of ildsdk, please report "
                "it; `ildsdk --debug ...` prints the traceback",
                err=True,
            )
        sys.exit(1)


def _list_skipped(error: NoUsableSliceError) -> None:
    for item in error.skipped[:_MAX_LISTED]:
        click.echo(f"  {item.source}: {item.reason}: {item.detail}", err=True)
    if len(error.skipped) > _MAX_LISTED:
        click.echo(f"  ... and {len(error.skipped) - _MAX_LISTED} more", err=True)
