"""The reference stack is a fair rival: it answers as we do. Benchmarks import without rivals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers


@pytest.fixture(scope="module")
def stack_and_ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[object, object]]:
    """The reference stack and our retriever on the embedded bundle and index."""
    peers.need(*peers.REFERENCE_STACK)
    from benchmarks.ours import Ours
    from benchmarks.reference_files import write_reference_files
    from benchmarks.reference_stack import ReferenceStack
    from ildsdk import defaults

    ours = Ours(defaults.index_path(), n_threads=2, precision="fp32")
    folder = tmp_path_factory.mktemp("reference")
    write_reference_files(folder, ours.bundle, ours.retriever.index)
    yield ReferenceStack.open(folder, n_threads=2), ours
    ours.close()


@pytest.mark.slow
def test_same_mask_same_answer(stack_and_ours: tuple[object, object], tmp_path: Path) -> None:
    from benchmarks.equality import compare_answers
    from benchmarks.reference_mask import lung_mask
    from benchmarks.slices import alike, read_slices
    from export.phantom import PhantomSettings, generate_case
    from export.phantom.dicom_writer import write_case

    stack, ours = stack_and_ours
    phantom = generate_case("Normal", 2001, PhantomSettings(n_slices=5))
    write_case(phantom, tmp_path)
    slices = read_slices(tmp_path, lambda pixels, mm: lung_mask(stack.window(pixels), mm))
    chosen = alike(slices, 3)
    assert len(chosen) == 3
    found = compare_answers(ours, stack, chosen)
    assert found["cosine_min"] > 0.99999
    assert found["own_mask_cosine_min"] > 0.8


@pytest.mark.slow
def test_model_inputs_are_the_same_on_anisotropic_pixels(
    stack_and_ours: tuple[object, object],
) -> None:
    from ildsdk.model_input import model_input

    stack, ours = stack_and_ours
    generator = np.random.default_rng(3)
    pixels_hu = generator.uniform(-1000, 100, (400, 512)).astype(np.float32)
    mask = np.zeros(pixels_hu.shape, np.bool_)
    mask[40:371, 97:480] = True
    for spacing_mm in ((0.6, 0.6), (0.9, 0.55), (2.1, 2.4)):
        theirs = stack.model_input(stack.window(pixels_hu), mask, spacing_mm)
        own = model_input(pixels_hu, spacing_mm, mask, ours.bundle.method)[0]
        np.testing.assert_allclose(theirs, own, atol=2e-3)


@pytest.mark.slow
def test_cold_start_prints_json_and_imports_nothing_of_ours(
    stack_and_ours: tuple[object, object], repo: Path
) -> None:
    code = (
        "import sys; import benchmarks.reference_stack as stack;"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('ildsdk', 'numba')]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repo, check=True)


def test_benchmarks_are_skipped_with_a_reason_without_the_rivals(repo: Path) -> None:
    blocked = (*peers.SEARCH, "skimage")
    code = (
        "import sys, pytest\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        "sys.exit(pytest.main(['--collect-only', '-rs', '-q', '-p', 'no:cacheprovider',"
        " *sys.argv[1:]]))"
    )
    files = sorted(str(path) for path in (repo / "benchmarks").glob("bench_*.py"))
    done = subprocess.run(
        [sys.executable, "-c", code, *files], cwd=repo, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert peers.MISSING in " ".join(done.stdout.split())
    assert "bench_radiomics.py" in done.stdout  # needs no rival of that group
