"""Kernels in the wild: threads, forks, sealed installs, no numba, lazy imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import native_hash
from native_hash import cache_locator, kernels
from native_hash.probing import Tables
from native_hash.starting import engine_for

_SEARCH = """
import sys
import native_hash
assert "numba" not in sys.modules, "importing native_hash loads numba"
import numpy as np
matrix = native_hash.unit_rows(np.random.default_rng(0).standard_normal((200, 16), np.float32))
fast = native_hash.top_n(matrix, matrix[:5], 3)
slow = native_hash.top_n(matrix, matrix[:5], 3, engine="numpy")
assert all(a.tobytes() == b.tobytes() for a, b in zip(fast, slow))
from native_hash import kernels
stats = kernels.scan.stats
n_compiled, n_loaded = sum(stats.cache_misses.values()), sum(stats.cache_hits.values())
print(native_hash.__file__, native_hash.kernel_cache_is_used(), n_compiled, n_loaded)
"""

# Root may write where permissions forbid it: the child gives that right up for good.
_UNPRIVILEGED = """
import ctypes, os, sys
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
        sys.exit(77)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def _environment(**changes: str) -> dict[str, str]:
    """This process's environment, with no folder in it where numba might keep a cache."""
    removed = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "IPYTHONDIR")
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    return kept | {"HOME": os.devnull, "PYTHONDONTWRITEBYTECODE": "1"} | changes


def _run_unprivileged(code: str, folder: Path, environment: dict[str, str]) -> list[str]:
    if not sys.platform.startswith("linux"):
        pytest.skip("giving up the right to write anywhere is told here for Linux only")
    done = subprocess.run(
        [sys.executable, "-c", _UNPRIVILEGED, "-c", code], env=environment, cwd=folder,
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("root cannot give up the right to write anywhere in this sandbox")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def baked(tmp_path: Path) -> Iterator[Path]:
    """A read-only copy of the package with the cache that a warm-up wrote into it."""
    native_hash.warmup()
    if Path(kernels.scan.stats.cache_path) != Path(kernels.__file__).parent / "__pycache__":
        pytest.skip("numba keeps its cache outside of this checkout")
    package = tmp_path / "native_hash"
    shutil.copytree(Path(native_hash.__file__).parent, package)
    folders = (package, package / "__pycache__")
    for path in (*package.rglob("*"), *folders):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield package
    for path in folders:
        path.chmod(0o755)


def test_many_threads_answer_as_one() -> None:
    generator = np.random.default_rng(1)
    matrix = native_hash.unit_rows(generator.standard_normal((3000, 64), dtype=np.float32))
    rows = native_hash.checked_rows(matrix)
    queries = native_hash.unit_rows(generator.standard_normal((200, 64), dtype=np.float32))
    planes = native_hash.draw_hyperplanes(4, 8, 64, seed=2)
    tables = Tables.build(native_hash.signatures(matrix, planes), planes)

    def answer(query: np.ndarray) -> list[bytes]:
        found = tables.candidates(query, 40)
        return [
            array.tobytes()
            for array in (
                *native_hash.top_n(rows, query, 10), found,
                *native_hash.top_n(rows, query, 10, candidates=found),
            )
        ]  # fmt: skip

    expected = [answer(query) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, queries)) == expected


def test_first_use_by_many_threads_at_once() -> None:
    """In a process that has not loaded numba yet."""
    code = """
import sys, threading
import numpy as np
import native_hash
from native_hash.probing import Tables
sys.setswitchinterval(1e-5)
matrix = native_hash.unit_rows(np.random.default_rng(0).standard_normal((300, 32), np.float32))
planes = native_hash.draw_hyperplanes(2, 5, 32, seed=1)
def answer(engine):
    tables = Tables.build(native_hash.signatures(matrix, planes, engine=engine), planes,
                          engine=engine)
    arrays = (*native_hash.top_n(matrix, matrix[:9], 7, engine=engine),
              tables.candidates(matrix[3], 6))
    return [array.tobytes() for array in arrays]
assert "numba" not in sys.modules
found, together = [], threading.Barrier(8)
def first():
    together.wait()
    found.append(answer("numba"))
threads = [threading.Thread(target=first) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert found == [answer("numpy")] * 8
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_search_after_a_fork() -> None:
    """Parent searches, with a thread pool too; the forked child must search alike, and end."""
    code = """
import os
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import native_hash
from native_hash.probing import Tables
matrix = native_hash.unit_rows(np.random.default_rng(0).standard_normal((500, 32), np.float32))
planes = native_hash.draw_hyperplanes(2, 5, 32, seed=1)
def answer(query):
    tables = Tables.build(native_hash.signatures(matrix, planes), planes)
    arrays = (*native_hash.top_n(matrix, query, 7), tables.candidates(query, 6))
    return [array.tobytes() for array in arrays]
with ThreadPoolExecutor(2) as pool:
    expected = list(pool.map(answer, matrix[:20]))
child = os.fork()
if child == 0:
    os._exit(0 if [answer(query) for query in matrix[:20]] == expected else 1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert [answer(query) for query in matrix[:20]] == expected
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_sealed_install_without_a_home_works(tmp_path: Path) -> None:
    """No folder takes numba's cache: a file stands in __pycache__'s place, HOME is no folder."""
    package = tmp_path / "native_hash"
    shutil.copytree(
        Path(native_hash.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    (package / "__pycache__").write_text("sealed")
    done = subprocess.run(
        [sys.executable, "-c", _SEARCH], env=_environment(PYTHONPATH=str(tmp_path)),
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, is_cached, _, n_loaded = done.stdout.split()
    assert Path(where).parent == package
    assert (is_cached, n_loaded) == ("False", "0")


def test_sealed_install_uses_the_cache_baked_into_it(baked: Path) -> None:
    environment = _environment(PYTHONPATH=str(baked.parent))
    probe = "import pathlib, native_hash\ntry: pathlib.Path(native_hash.__path__[0], '__pycache__'"
    probe += ", 'x').touch()\nexcept OSError: print('sealed')"
    assert _run_unprivileged(probe, baked.parent, environment) == ["sealed"]
    where, is_cached, n_compiled, n_loaded = _run_unprivileged(_SEARCH, baked.parent, environment)
    assert Path(where).parent == baked
    assert (is_cached, n_compiled, n_loaded) == ("True", "0", "1")


def test_sealed_install_prefers_its_baked_cache_to_the_users(baked: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = _environment(PYTHONPATH=str(baked.parent), HOME=str(home))
    _, is_cached, n_compiled, n_loaded = _run_unprivileged(_SEARCH, baked.parent, environment)
    assert (is_cached, n_compiled, n_loaded) == ("True", "0", "1")
    assert not list(home.rglob("*.nbc"))


def test_damaged_baked_cache_costs_time_only(baked: Path) -> None:
    for path in baked.glob("__pycache__/kernels.scan-*.nb?"):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:40])
    environment = _environment(PYTHONPATH=str(baked.parent))
    _, _, n_compiled, n_loaded = _run_unprivileged(_SEARCH, baked.parent, environment)
    assert (n_compiled, n_loaded) == ("1", "0")


def test_baked_cache_of_other_source_is_not_used(baked: Path) -> None:
    source = baked / "kernels.py"
    source.chmod(0o644)
    source.write_text(source.read_text() + "# edited\n")
    environment = _environment(PYTHONPATH=str(baked.parent))
    _, _, n_compiled, n_loaded = _run_unprivileged(_SEARCH, baked.parent, environment)
    assert (n_compiled, n_loaded) == ("1", "0")


def test_the_parts_of_numba_that_the_baked_cache_leans_on_are_there() -> None:
    """Fails when a numba release moved them; then sealed installs only start slower."""
    reader = cache_locator._baked_cache(kernels.scan.py_func)
    assert Path(reader.cache_path) == Path(kernels.__file__).parent / "__pycache__"
    assert reader._impl.filename_base.startswith("kernels.scan-")
    for name in ("load_overload", "save_overload", "enable", "disable", "flush", "cache_path"):
        assert hasattr(kernels.scan._cache, name), name


def test_without_those_parts_numbas_own_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba
    from numba.core import caching

    native_hash.warmup()
    if Path(kernels.scan.stats.cache_path) != Path(kernels.__file__).parent / "__pycache__":
        pytest.skip("numba keeps its cache outside of this checkout")
    assert cache_locator.read_baked_cache(numba.njit(kernels.scan.py_func))
    sealed = numba.njit(kernels.scan.py_func)
    own = sealed._cache
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert not cache_locator.read_baked_cache(sealed)
    assert sealed._cache is own


def test_cache_is_used_here_and_warmup_runs() -> None:
    native_hash.warmup()
    assert isinstance(native_hash.kernel_cache_is_used(), bool)


def test_index_answers_alike_where_numba_cannot_be_imported() -> None:
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite"):
            raise ImportError(f"{name} is blocked")
if sys.argv[1] == "numpy":
    sys.meta_path.insert(0, Blocked())
import numpy as np
import native_hash
from ildsdk import Index, defaults
from native_hash.probing import Tables
if sys.argv[1] == "numba":
    native_hash.warmup()
index = Index.open(defaults.index_path(), engine=sys.argv[1])
queries = index.embeddings(range(0, len(index), 97))
excluded = np.arange(len(index)) % 5 == 0
for mode in ("exact", "paper"):
    for flags in (None, excluded):
        found = index.search(queries, 7, mode=mode, excluded_rows=flags)
        print(found.rows.tobytes().hex(), found.scores.tobytes().hex())
        if mode == "paper":  # exact search with codes looks at fewer rows than the scan
            print(found.n_candidates.tolist())
planes = native_hash.draw_hyperplanes(3, 9, queries.shape[1], seed=1)
codes = native_hash.signatures(index.embeddings(), planes, engine=sys.argv[1])
tables = Tables.build(codes, planes, engine=sys.argv[1])
print([tables.candidates(query, 20).tolist() for query in queries])
assert ("numba" in sys.modules) == (sys.argv[1] == "numba")
"""
    answers = [
        subprocess.run(
            [sys.executable, "-c", code, engine], capture_output=True, text=True, check=True
        ).stdout
        for engine in ("numba", "numpy")
    ]
    assert answers[0] == answers[1]
    assert answers[0].count("\n") == 7


def test_an_index_is_written_and_searched_where_numba_cannot_be_imported(tmp_path: Path) -> None:
    """Written without codes; numba reads the same answers out of the same folder later."""
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite"):
            raise ImportError(f"{name} is blocked")
engine, folder = sys.argv[1:]
if engine == "numpy":
    sys.meta_path.insert(0, Blocked())
import numpy as np
from ildsdk.index import Index, ItemRecord
from native_hash import unit_rows
generator = np.random.default_rng(0)
vectors = unit_rows(generator.standard_normal((700, 12)))
if engine == "numpy":
    records = [
        ItemRecord(
            item_id=str(i), case_id=str(i // 10), label="x", study_instance_uid="1",
            series_instance_uid="1", sop_instance_uid=str(i),
        )
        for i in range(len(vectors))
    ]
    index = Index.create(
        folder, name="n", bundle_hash="b", embedding_size=12, is_synthetic=True, engine=engine
    )
    for part in (slice(0, 400), slice(400, 700)):
        index.add(vectors[part], records[part], [b""] * len(records[part]))
    index.remove(case_ids=["3"])
    index.compact()
else:
    import native_hash
    native_hash.warmup()
    index = Index.open(folder)
queries = unit_rows(vectors[:9] + 0.1 * generator.standard_normal((9, 12)))
left = np.flatnonzero(np.arange(700) // 10 != 3)
wide = queries.astype(np.float64) @ vectors[left].T.astype(np.float64)
for mode in ("exact", "fast", "paper"):
    found = index.search(queries, 5, mode=mode)
    print(found.rows.tolist(), found.scores.tobytes().hex())
    if mode != "paper":
        expected = np.sort(wide, axis=1)[:, :-6:-1]
        assert np.abs(found.scores - expected).max() < 1e-6, mode
assert ("numba" in sys.modules) == (engine == "numba")
"""
    answers = [
        subprocess.run(
            [sys.executable, "-c", code, engine, str(tmp_path / "index")],
            capture_output=True, text=True, check=False, timeout=300,
        )
        for engine in ("numpy", "numba")
    ]  # fmt: skip
    for done in answers:
        assert done.returncode == 0, done.stderr
    assert answers[0].stdout == answers[1].stdout
    assert answers[0].stdout.count("\n") == 3


def test_numba_is_started_after_a_little_work_only() -> None:
    code = """
import sys
from native_hash.starting import NUMPY_FIRST, engine_for
assert engine_for("numpy", 10 * NUMPY_FIRST) == "numpy"
assert [engine_for("numba", NUMPY_FIRST // 2) for _ in range(3)] == ["numpy", "numpy", "numba"]
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    native_hash.warmup()
    assert engine_for("numba", 1) == "numba"


def test_numba_starts_without_scipy_and_keeps_its_linear_algebra() -> None:
    pytest.importorskip("scipy")
    code = """
import sys
from native_hash.starting import start_numba
start_numba()
import numba
import numpy as np
from numba.np import arraymath, linalg
assert "numba.np.arraymath" in sys.modules, "the target was not started"
assert "scipy.linalg" not in sys.modules
assert linalg.ensure_blas is arraymath.ensure_blas
assert linalg.ensure_blas.__module__ == "numba.np.linalg"
@numba.njit
def of_a_user(a):
    return np.dot(a, a)
a = np.array([[2.0, 1.0], [0.0, 4.0]])
assert np.allclose(of_a_user(a), a @ a)
assert "scipy.linalg" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_numba_starts_where_the_parts_leaned_on_are_gone() -> None:
    code = """
from numba.np import linalg
del linalg.ensure_blas
from native_hash.starting import start_numba
start_numba()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
