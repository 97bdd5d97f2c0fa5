"""Breaks one bound of the certified search at a time and asks the tests whether they notice.

    python -m tests.bound_mutations                # all, about half a minute of CPU each
    python -m tests.bound_mutations --only radius  # those whose name has this word

The edits stand in ``bound_mutants.toml``. A copy of ``native_hash`` is edited in a temporary
folder, beside copies of the tests below, and compiled anew; the working tree is not touched. Exit
status 1 where a mutant lives that should not.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
TESTS = (
    "test_native_hash_codes.py", "test_native_hash_bounds.py", "test_native_hash_tree.py",
    "test_native_hash_code_kernels.py",
)  # fmt: skip
"""In the order in which they are asked; what compares answers comes first."""

_NEEDED = ("__init__.py", "conftest.py", "search_factory.py")
_TIMEOUT_S = 900


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One wrong edit; ``lives`` tells why no test can notice it, empty where one must."""

    name: str
    file: str
    old: str
    new: str
    lives: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Which test noticed; None where the mutant lives."""

    mutation: Mutation
    killed_by: str | None
    seconds: float

    @property
    def is_expected(self) -> bool:
        return (self.killed_by is None) == bool(self.mutation.lives)


def read_mutations() -> tuple[Mutation, ...]:
    with (REPO / "tests" / "bound_mutants.toml").open("rb") as file:
        return tuple(Mutation(**fields) for fields in tomllib.load(file)["mutant"])


def edited(mutation: Mutation, text: str) -> str:
    """The file with its bound broken.

    Raises
    ------
    ValueError
        The place is not in the file, or more than once.
    """
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {text.count(mutation.old)} places in {mutation.file}")
    return text.replace(mutation.old, mutation.new)


def run_mutant(mutation: Mutation | None, folder: Path) -> Verdict | None:
    """Verdict of the tests on one mutant; without a mutation None where they pass.

    Raises
    ------
    AssertionError
        The tests could not be run at all.
    """
    shutil.copytree(
        REPO / "native_hash", folder / "native_hash", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "tests").mkdir()
    for name in (*_NEEDED, *TESTS):
        shutil.copy(REPO / "tests" / name, folder / "tests" / name)
    shutil.copy(REPO / "pyproject.toml", folder / "pyproject.toml")
    if mutation is not None:
        path = folder / "native_hash" / mutation.file
        path.write_text(edited(mutation, path.read_text()))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA")}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--tb=no", "-rf"]
    command += ["-k", "not older_processors", "--hypothesis-seed=0"]
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, *(f"tests/{name}" for name in TESTS)],
            cwd=folder, env=environment | {"PYTHONPATH": str(folder)}, check=False,
            capture_output=True, text=True, timeout=_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        killed_by: str | None = f"no answer in {_TIMEOUT_S} s"
    else:
        failed = re.search(r"^FAILED tests/(\S+)", done.stdout, flags=re.MULTILINE)
        assert done.returncode <= 0 or failed, done.stdout[-3000:] + done.stderr[-3000:]
        killed_by = failed[1] if failed else None
        if done.returncode < 0:
            killed_by = f"ended by signal {-done.returncode}"
    if mutation is None:
        assert killed_by is None, killed_by
        return None
    return Verdict(mutation, killed_by, time.perf_counter() - started)


def table(verdicts: Iterable[Verdict]) -> str:
    """Markdown: what was broken, and which test noticed."""
    lines = ["| broken | file | noticed by |", "| --- | --- | --- |"]
    for verdict in verdicts:
        mutation = verdict.mutation
        told = f"`{verdict.killed_by}`" if verdict.killed_by else f"nobody: {mutation.lives or '?'}"
        lines.append(f"| {mutation.name} | {mutation.file} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """Run the mutants and print the table."""
    parser = argparse.ArgumentParser(description="Break one bound at a time.")
    parser.add_argument("--only", default="", help="part of a name")
    only = parser.parse_args().only
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        run_mutant(None, Path(folder))
    print("the tests pass without a mutation", flush=True)
    for mutation in read_mutations():
        if only in mutation.name:
            with tempfile.TemporaryDirectory() as folder:
                verdict = run_mutant(mutation, Path(folder))
            assert verdict is not None
            verdicts.append(verdict)
            print(f"{mutation.name}: {verdict.killed_by} ({verdict.seconds:.0f} s)", flush=True)
    print(table(verdicts))
    sys.exit(not all(verdict.is_expected for verdict in verdicts))


if __name__ == "__main__":
    main()
