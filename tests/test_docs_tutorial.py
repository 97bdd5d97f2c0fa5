"""The tutorial's commands, run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs" / "train-on-your-archive.md"


def _commands() -> str:
    text = TUTORIAL.read_text(encoding="utf-8")
    inside = text.split("<!-- tutorial: begin -->")[1].split("<!-- tutorial: end -->")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", inside, flags=re.DOTALL))


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
    assert "PHANTOM" in page
