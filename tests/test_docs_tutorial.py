"""The tutorial's commands, run as they are written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs" / "train-on-your-archive.md"


def _commands() -> str:
    text = TUTORIAL.read_text(encoding="utf-8")
    inside = text.split("<!-- tutorial: begin -->")[1].split("<!-- tutorial: end -->")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", inside, flags=re.DOTALL))


def test_every_command_of_the_page_is_one_that_exists() -> None:
    """Options and sub-commands are known; nothing is run."""
    pytest.importorskip("torch", reason="the training side needs torch")
    from export.cli import main as export_main
    from ildsdk.cli import cli as ildsdk_main

    lines = _commands().replace("\\\n", " ").splitlines()
    checked = 0
    for line in lines:
        words = shlex.split(line)
        if words[:3] == ["python", "-m", "export"]:
            command, words = export_main, words[3:]
        elif words[:1] == ["ildsdk"]:
            command, words = ildsdk_main, words[1:]
        else:
            continue
        while isinstance(command, click.Group):
            with click.Context(command) as context:
                found = command.get_command(context, words[0])
            assert found is not None, f"no such command: {line}"
            command, words = found, words[1:]
        options = command.params
        known = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        given = {word for word in words if word.startswith("--")}
        assert given <= known, f"{given - known} in: {line}"
        n_arguments = sum(isinstance(option, click.Argument) for option in options)
        assert n_arguments >= 1
        checked += 1
    assert checked >= 8


@pytest.mark.slow
def test_tutorial_runs_as_written_and_its_bundle_answers(tmp_path) -> None:
    pytest.importorskip("torch", reason="the training side needs torch")
    # The commands of this environment and the code of this checkout, from another folder.
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _commands()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "my-first-bundle" in done.stdout
    page = (tmp_path / "answer.html").read_text(encoding="utf-8")
    assert "not a medical device" in page.lower()
    assert "phantom (synthetic)" in page.lower() or "computer-made" in page.lower()
    # A map of a query and one of its neighbor, drawn and not left empty.
    assert '<figure class="map-pair">' in page
    assert "its map is strongest" in page
