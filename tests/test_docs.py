"""What the README says must be so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ildsdk.cli import cli


def readme_commands(repo: Path) -> list[str]:
    text = (repo / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_make_targets_exist(repo: Path) -> None:
    makefile = (repo / "Makefile").read_text()
    targets = [line.split()[1] for line in readme_commands(repo) if line.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_ildsdk_commands_parse(repo: Path) -> None:
    commands = [line for line in readme_commands(repo) if line.startswith("ildsdk ")]
    assert len(commands) >= 8
    for line in commands:
        words = shlex.split(line.split(">")[0])[1:]
        command: click.Command = cli
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            if word.startswith("-"):
                assert word in known, f"{line}: {word} is no option of {command.name}"


def test_ci_runs_the_test_command_of_the_readme(repo: Path) -> None:
    assert "make test" in readme_commands(repo)
    assert "make test" in (repo / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_to_files_exist(repo: Path, name: str) -> None:
    text = (repo / name).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (repo / target).exists(), target


def test_exit_codes_are_in_the_help() -> None:
    help_text = cli.get_help(click.Context(cli))
    for words in ("2 option or setting", "3 study or image", "4 bundle, model", "5 index"):
        assert words in " ".join(help_text.split())
