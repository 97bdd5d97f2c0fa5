"""Compiled kernels load without numba's target, and everything still compiles after it."""

from __future__ import annotations

import subprocess
import sys

import numba
import pytest

import native_hash
from native_hash import quick_load

pytestmark = pytest.mark.skipif(
    not numba.__version__.startswith(quick_load.TESTED), reason="release of numba is not known"
)


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_loading_starts_nothing_that_only_compiling_needs() -> None:
    native_hash.warmup()
    if not native_hash.kernel_cache_is_used():
        pytest.skip("no folder for compiled code")
    run("""
import sys
import numpy as np
from native_hash import kernels
rows = np.random.default_rng(0).standard_normal((64, 8), dtype=np.float32)
rows.flags.writeable = False
norms = np.empty(64)
kernels.row_norms(rows, norms)
np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), rtol=1e-6)
assert sum(kernels.row_norms.stats.cache_hits.values()) == 1
for name in ("numba.np.arrayobj", "numba.np.linalg", "numba.cpython.unicode", "scipy.linalg"):
    assert name not in sys.modules, name
""")


def test_other_functions_compile_after_kernels_were_loaded() -> None:
    """Also with the functions whose modules loading left out."""
    run("""
import numba
import numpy as np
from ildsdk.kernel_loading import run_slice_kernels
run_slice_kernels(96, np.float32)
@numba.njit
def of_a_user(a, text):
    order = np.argsort(a)
    return np.median(a), np.dot(a, a), a[order].sum(), len(text + "x"), [i for i in range(3)]
a = np.array([3.0, 1.0, 2.0])
found = of_a_user(a, "ab")
assert found == (2.0, 14.0, 6.0, 3, [0, 1, 2]), found
""")


def test_unknown_releases_start_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = numba.njit(cache=False)(lambda a: a + 1)
    assert not quick_load.load_quickly(kernel)  # nothing to load from
    monkeypatch.setattr(numba, "__version__", "9.0.0")
    from native_hash import kernels

    assert not quick_load.load_quickly(kernels.row_norms)
