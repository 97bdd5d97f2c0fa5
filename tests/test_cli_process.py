"""The command line as a process: what reaches the reader, and the exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LONG_OUTPUT = """
import sys, ildsdk.cli, ildsdk.__main__
def main():
    sys.stdout.write("x" * 1_000_000 + "end")  # stays in the buffer in part
    sys.exit(5)
ildsdk.cli.main = main
ildsdk.__main__.run()
"""
COMMAND = [sys.executable, "-m", "ildsdk"]


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["no-such-command"], 2), (["query", "/none"], 2)]
)
def test_output_is_complete_and_the_status_told(arguments: list[str], status: int) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status
    said, empty = (done.stdout, done.stderr) if status == 0 else (done.stderr, done.stdout)
    assert said.endswith("\n")
    assert empty == ""


def test_the_end_of_a_long_output_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LONG_OUTPUT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert done.stdout == "x" * 1_000_000 + "end"


def test_a_reader_that_went_away_is_no_defect() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*COMMAND, "--help"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
