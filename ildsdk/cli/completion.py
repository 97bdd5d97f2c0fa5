"""``ildsdk completion SHELL``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash, put ``eval "$(ildsdk completion bash)"`` into ~/.bashrc; zsh likewise; for fish
    save the output to ~/.config/fish/completions/ildsdk.fish.
    """
    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    root = context.find_root().command
    click.echo(completion_class(root, {}, "ildsdk", "_ILDSDK_COMPLETE").source())
