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
compiling = ("numba.np.arrayobj", "numba.np.linalg", "numba.cpython.unicode", "scipy.linalg")
for name in (*compiling, "numpy.ma"):
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


def test_arrays_have_the_types_that_numba_gives_them() -> None:
    run("""
import numba, numpy as np
base = np.arange(24.0).reshape(2, 3, 4)
fixed = base.copy()
fixed.flags.writeable = False
arrays = [base, base.T, base[::2, :, ::2], fixed, fixed.T, base[0, 0], base[:, 0, 0], np.array(1.5),
          base.astype("f4"), base.astype(bool), base.astype("u1"), base.astype("c8"),
          np.zeros(3, "M8[D]"), np.zeros(3, "S4"), np.zeros(2, [("a", "i4"), ("b", "f8")]),
          np.zeros((0, 3)), np.zeros(3, "f2"), np.zeros(3, "g"), base.astype(">f8"),
          np.array(["a"], object), np.ma.masked_array([1, 2])]
def found(array):
    try:
        return numba.typeof(array)
    except Exception as error:
        return type(error), str(error)
as_ever = [found(array) for array in arrays]
import native_hash.quick_load
from numba.core.typing.typeof import typeof_impl
assert typeof_impl.dispatch(np.ndarray).__module__ == "native_hash.array_types"
assert [found(array) for array in arrays] == as_ever
""")


def test_what_is_compiled_later_may_call_a_loaded_kernel() -> None:
    """Its bitcode is linked then, which loading left unparsed."""
    native_hash.warmup()
    if not native_hash.kernel_cache_is_used():
        pytest.skip("no folder for compiled code")
    run("""
import numba
import numpy as np
from native_hash import kernels
from native_hash.loaded_library import LoadedLibrary
rows = np.random.default_rng(0).standard_normal((64, 8), dtype=np.float32)
rows.flags.writeable = False
norms, again = np.empty(64), np.empty(64)
largest = kernels.row_norms(rows, norms)
(loaded,) = kernels.row_norms.overloads.values()
assert type(loaded.library) is LoadedLibrary
assert "_parsed" not in vars(loaded.library)
row_norms = kernels.row_norms
@numba.njit
def of_a_user(rows, norms):
    return row_norms(rows, norms) + 1
assert of_a_user(rows, again) == largest + 1
assert (again == norms).all() and norms.all()
assert "_parsed" in vars(loaded.library)
""")


def test_unknown_releases_start_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = numba.njit(cache=False)(lambda a: a + 1)
    assert not quick_load.load_quickly(kernel)  # nothing to load from
    monkeypatch.setattr(numba, "__version__", "9.0.0")
    from native_hash import kernels

    assert not quick_load.load_quickly(kernels.row_norms)
