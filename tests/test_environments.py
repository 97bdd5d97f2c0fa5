"""Commands of a checkout, started in the environment of ``make demo``: one line, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = """
import runpy, sys
absent, module, *arguments = sys.argv[1:]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent.split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("absent", "module", "arguments", "made_by"),
    [
        ("onnx,torch", "export", ("triton", "repository"), ".venv/.dev"),
        ("onnx,torch", "benchmarks.pipeline_run", ("--help",), ".venv/.dev"),
        ("faiss,hnswlib,usearch", "benchmarks.report", ("--quick",), ".venv/.bench"),
        ("pytest_benchmark", "benchmarks.suite", ("results.json",), ".venv/.bench"),
        ("openvino", "benchmarks.compare_openvino", (), ".venv/.bench"),
    ],
)
def test_one_line_names_the_environment(
    repo: Path, tmp_path: Path, absent: str, module: str, arguments: tuple[str, ...], made_by: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ABSENT, absent, module, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repo), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"make {made_by}" in done.stderr
    assert not list(tmp_path.iterdir())
