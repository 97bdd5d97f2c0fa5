"""What the first query of a process loads, and what it must not."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pydicom
import pytest

from ildsdk import defaults

NOT_IMPORTED = (
    "asyncio", "gdcm", "jinja2", "matplotlib", "multiprocessing", "numpy.ma", "onnx",
    "openjpeg", "pandas", "PIL", "pkg_resources", "pyarrow", "pydicom", "radiomics",
    "requests", "scipy", "setuptools", "SimpleITK", "skimage", "sklearn", "statistics",
    "sympy", "torch", "tqdm", "yaml",
    # Parts of ours that one query of one file does without.
    "ildsdk.bundle.writing", "ildsdk.cli.build_engine", "ildsdk.cli.index", "ildsdk.cli.serve",
    "ildsdk.doctor", "ildsdk.index.adding", "ildsdk.index.array_writing", "ildsdk.index.compacting",
    "ildsdk.index.creating", "ildsdk.index.item_writing", "ildsdk.index.locking",
    "ildsdk.index.removing", "ildsdk.index.segment_writing", "ildsdk.index.verification",
    "ildsdk.index.writing", "ildsdk.ingest", "ildsdk.radiomics.reference", "ildsdk.reports.html",
    "ildsdk.runtime.device_session", "ildsdk.runtime.gpu_session", "ildsdk.runtime.nvidia",
    "ildsdk.warming", "native_hash.clustering", "native_hash.kernels",
    "native_hash.sketch_building", "native_hash.tree_tuning",
)  # fmt: skip


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    with zipfile.ZipFile(defaults.demo_study_path()) as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        path = Path(archive.extract(names[len(names) // 2], folder))
    # Not compressed, as most CT is: a compressed file needs pydicom and its decoders.
    plain = pydicom.dcmread(path)
    plain.decompress()
    plain.save_as(path)
    return path


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_a_query_of_one_file_does_not_import(one_file: Path) -> None:
    code = """
import sys
from ildsdk.cli import main
main(["query", sys.argv[1], "--format", "json", "-q", "--no-model-cache"])
print("\\n" + " ".join(sys.modules))
"""
    done = run(code, str(one_file))
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.rsplit("\n", 2)[-2].split())
    assert {"numba", "onnxruntime", "ildsdk.lung.kernels"} <= imported  # it is a real query
    assert imported.isdisjoint(NOT_IMPORTED), sorted(imported.intersection(NOT_IMPORTED))


def test_numba_starts_beside_the_networks_not_before_them() -> None:
    done = run("import sys, ildsdk.retriever; assert 'numba' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_opening_loads_every_kernel_that_a_slice_needs(one_file: Path) -> None:
    code = """
import sys
from ildsdk import Retriever
with Retriever.open(provider="cpu") as retriever:
    from ildsdk.warming import loaded_kernels
    def versions():
        return {(k.py_func.__module__, k.py_func.__name__, s) for k in loaded_kernels()
                for s in k.signatures}
    at_opening = versions()
    assert len(at_opening) > 10, at_opening
    retriever.query(sys.argv[1])
    late = {version[:2] for version in versions() - at_opening}
    assert not late, late
"""
    done = run(code, str(one_file))
    assert done.returncode == 0, done.stderr


def test_errors_of_opening_come_from_open_and_in_one_order(tmp_path: Path) -> None:
    code = """
import sys, threading
from ildsdk import Retriever
from ildsdk.errors import ConfigError, IndexFileError, ModelError
from pathlib import Path
empty = Path(sys.argv[1])
for arguments, expected in (
    (dict(bundle=empty, index=empty), ModelError),  # the bundle first
    (dict(index=empty, provider="cpu", precision="fp16"), IndexFileError),  # then the index
    (dict(provider="cpu", precision="fp16"), ConfigError),  # then the networks
):
    try:
        Retriever.open(**arguments)
    except expected:
        assert threading.active_count() == 1, "a thread is left"
    else:
        raise AssertionError(expected)
"""
    done = run(code, str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_what_goes_wrong_with_kernels_is_told_where_they_are_used(
    one_file: Path, tmp_path: Path
) -> None:
    """Opening does not fail: the index can still be searched."""
    code = """
import sys
import ildsdk.lung.segment
def broken(*_, **__):
    raise OSError("kernels are broken")
ildsdk.lung.segment.segment_lung = broken
from ildsdk import Retriever
with Retriever.open(provider="cpu") as retriever:
    assert retriever.search(retriever.index.embeddings([3])[0])
    try:
        retriever.query(sys.argv[1])
    except OSError as error:
        assert str(error) == "kernels are broken"
    else:
        raise AssertionError
"""
    done = run(code, str(one_file))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_command_does_not_import_the_others() -> None:
    code = """
import sys
from ildsdk.cli import main
try:
    main(["query", "nowhere"])
except SystemExit:
    print(sorted(name for name in sys.modules if name.startswith("ildsdk.cli.")))
"""
    imported = run(code).stdout
    assert "'ildsdk.cli.query'" in imported
    for other in ("build_engine", "index", "serve", "demo", "doctor", "index_exchange"):
        assert f"'ildsdk.cli.{other}'" not in imported
