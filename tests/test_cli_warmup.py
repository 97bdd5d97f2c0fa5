"""``ildsdk warmup``: every kernel, a cache that other processes use, an honest check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with numba's cache in a folder of ours or none."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    return subprocess.run(
        [sys.executable, "-m", "ildsdk", "warmup", *arguments], env=environment,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_check_passes_after_a_warm_up(repo: Path) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.fullmatch(
        r"\d+ kernels compiled, \d+ loaded from the cache in [\d.]+ s; compiled code lies "
        r"in the (package|user's cache folder)\n"
        r"network (optimized for this processor lies in the (package|user's cache folder)"
        r"|needs no optimized form at this precision)\n",
        done.stdout,
    )
    checked = run("--check")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith("0 kernels compiled, ")
    assert str(repo) not in done.stdout + checked.stdout


def test_check_of_a_cold_cache_fails_and_compiles_nothing(tmp_path: Path) -> None:
    done = run("--check", cache=tmp_path / "planted-name")
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.match(r"cold: kernel \w+ is not in the cache .* run `ildsdk warmup`\n", done.stderr)
    assert "planted-name" not in done.stderr
    assert not list(tmp_path.rglob("*.nb?"))


def test_nothing_is_left_to_compile_for_a_query() -> None:
    """Versions of kernels that a real query runs and the warm-up did not are missing in it."""
    code = """
from ildsdk import Index, QuerySettings, Retriever, defaults
from ildsdk.warming import loaded_kernels, warm_up
assert warm_up().cold is None
def versions():
    return {(k.py_func.__module__, k.py_func.__name__, s) for k in loaded_kernels()
            for s in k.signatures}
before = versions()
with Retriever.open() as retriever:
    retriever.query(defaults.demo_study_path(), QuerySettings(every_mm=30))
index = Index.open(defaults.index_path())
for mode in ("exact", "paper"):
    index.search(index.embeddings([3, 4]), 5, mode=mode)
missing = {version[:2] for version in versions() - before}
assert not missing, missing
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_warm_up_fills_an_empty_cache(tmp_path: Path) -> None:
    cache = tmp_path / "planted-name"
    first = run(cache=cache)
    assert first.returncode == 0, first.stderr
    assert re.match(r"[1-9]\d* kernels compiled, ", first.stdout)
    assert "compiled code lies in the user's cache folder\n" in first.stdout
    checked = run("--check", cache=cache)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith("0 kernels compiled, ")
    assert "planted-name" not in first.stdout + first.stderr + checked.stdout + checked.stderr
