"""Kernels in the wild: threads, a sealed install, lazy imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import native_hash

_SEARCH = """
import sys
import native_hash
assert "numba" not in sys.modules, "importing native_hash loads numba"
import numpy as np
matrix = native_hash.unit_rows(np.random.default_rng(0).standard_normal((200, 16), np.float32))
fast = native_hash.top_n(matrix, matrix[:5], 3)
slow = native_hash.top_n(matrix, matrix[:5], 3, engine="numpy")
assert all(a.tobytes() == b.tobytes() for a, b in zip(fast, slow))
print(native_hash.__file__, native_hash.kernel_cache_is_used())
"""


def test_many_threads_answer_as_one() -> None:
    generator = np.random.default_rng(1)
    matrix = native_hash.unit_rows(generator.standard_normal((3000, 64), dtype=np.float32))
    rows = native_hash.checked_rows(matrix)
    queries = native_hash.unit_rows(generator.standard_normal((200, 64), dtype=np.float32))
    expected = [native_hash.top_n(rows, query, 10) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: native_hash.top_n(rows, query, 10), queries))
    for left, right in zip(found, expected, strict=True):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True))


def test_sealed_install_without_a_home_works(tmp_path: Path) -> None:
    """No folder takes numba's cache: a file stands in __pycache__'s place, HOME is no folder."""
    package = tmp_path / "native_hash"
    shutil.copytree(
        Path(native_hash.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    (package / "__pycache__").write_text("sealed")
    for path in (*package.iterdir(), package):
        path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "IPYTHONDIR")
    }
    environment |= {"HOME": os.devnull, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SEARCH], env=environment, cwd=tmp_path, check=False,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    finally:
        package.chmod(0o755)
    assert done.returncode == 0, done.stderr
    where, is_cached = done.stdout.split()
    assert Path(where).parent == package
    assert is_cached == "False"


def test_cache_is_used_here_and_warmup_runs() -> None:
    native_hash.warmup()
    assert isinstance(native_hash.kernel_cache_is_used(), bool)
