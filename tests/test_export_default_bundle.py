"""The last stage of ``default-bundle``, int8: killed anywhere, it ends as if never killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")


@pytest.mark.slow  # ten seconds of processor time
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_anywhere_the_stage_ends_as_if_never_killed(repo: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.int8_stage", str(tmp_path)],
        cwd=repo, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.stdout == "ends as if never killed\n", done.stderr
