"""Import contracts and the frozen public surface."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ildsdk


def test_import_contracts(repo: Path) -> None:
    pytest.importorskip("importlinter")
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_public_names_are_these_and_load() -> None:
    assert ildsdk.__all__ == [
        "Bundle",
        "ConfigError",
        "DecodeError",
        "EmbedResult",
        "IldError",
        "Index",
        "IndexFileError",
        "InputError",
        "ItemRecord",
        "MethodSettings",
        "ModelError",
        "Neighbor",
        "NoUsableSliceError",
        "QueryCancelledError",
        "QueryResult",
        "QuerySettings",
        "QueryStoppedError",
        "QueryTimeoutError",
        "Retriever",
        "RuntimeSettings",
        "ServerBusyError",
        "ServerError",
        "SkippedItem",
        "SliceAnswer",
        "SliceUnusableError",
        "StudyAnswer",
        "__version__",
        "build_index",
        "write_bundle",
    ]
    for name in ildsdk.__all__:
        assert getattr(ildsdk, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Retreiver'"):
        _ = ildsdk.Retreiver


def test_every_error_has_its_own_exit_code_and_home_in_the_tree() -> None:
    from ildsdk import errors

    codes = {
        cls: cls.exit_code
        for cls in (
            errors.ConfigError,
            errors.InputError,
            errors.ModelError,
            errors.IndexFileError,
            errors.QueryStoppedError,
        )
    }
    assert list(codes.values()) == [2, 3, 4, 5, 6]
    tree = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert name in tree, f"{name} is missing in the drawn tree"


def test_files_stay_small(repo: Path) -> None:
    for package in ("ildsdk", "native_hash", "export"):
        for path in (repo / package).rglob("*.py"):
            n_lines = len(path.read_text().splitlines())
            assert n_lines <= 450, f"{path.relative_to(repo)} has {n_lines} lines"
