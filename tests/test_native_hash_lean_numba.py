"""numba without what it only looks at: nobody else notices."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from native_hash import lean_numba


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scipy_and_yaml_are_left_out_and_can_be_imported_after_it(tmp_path: Path) -> None:
    run("""
import sys
import native_hash.jit
assert not {"yaml", "scipy"} & set(sys.modules)
import scipy, yaml
assert yaml.safe_load("a: 1") == {"a": 1}
""", tmp_path)  # fmt: skip


def test_a_file_of_settings_is_read(tmp_path: Path) -> None:
    (tmp_path / ".numba_config.yaml").write_text('opt: "1"\n')
    code = "import native_hash.jit, numba; print(numba.config.OPT)"
    assert "1" in run(code, tmp_path)


def test_imports_of_other_threads_are_not_refused() -> None:
    found: list[object] = []

    def look() -> None:
        import importlib.util

        found.append(importlib.util.find_spec("a_package_that_is_not_there"))

    with lean_numba._leaving_out("a_package_that_is_not_there"):
        other = threading.Thread(target=look)
        other.start()
        other.join()
        assert found == [None]
        with pytest.raises(ModuleNotFoundError, match="left out"):
            __import__("a_package_that_is_not_there")
    assert not any(isinstance(finder, lean_numba._Refusal) for finder in sys.meta_path)
