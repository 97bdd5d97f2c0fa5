"""Around the numbers: scratch, threads, imports, logging, a missing reference."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ildsdk.errors import ConfigError
from ildsdk.radiomics import RadiomicsExtractor, RadiomicsScratch, RadiomicsSettings
from ildsdk.radiomics.beside import run_both
from tests.radiomics_slices import blob, texture

SPACING = (0.7, 0.9)


def test_scratch_of_other_regions_leaves_no_trace() -> None:
    """One scratch over regions of all sizes and settings gives what a new one gives."""
    scratch = RadiomicsScratch()
    cases = [
        ((64, 72), {}),
        ((20, 200), {"bin_width": 2.0}),
        ((150, 90), {"distances": (1, 3), "weighting_norm": "euclidean"}),
        ((20, 24), {"bin_count": 5}),
        ((64, 72), {"gldm_alpha": 2}),
    ]
    for _ in range(2):
        for seed, (shape, chosen) in enumerate(cases):
            pixels, mask = texture(seed, shape), blob(shape)
            extractor = RadiomicsExtractor(RadiomicsSettings(**chosen))  # type: ignore[arg-type]
            kept = extractor.extract(pixels, mask, SPACING, scratch=scratch).values
            assert np.array_equal(kept, extractor.extract(pixels, mask, SPACING).values)
    n_bytes = scratch.n_bytes
    extractor.extract(texture(0), blob(), SPACING, scratch=scratch)
    assert scratch.n_bytes == n_bytes


def test_many_threads_give_what_one_gives() -> None:
    extractor = RadiomicsExtractor()
    slices = [
        (texture(seed, (96, 110)), blob((96, 110), 0.2 + 0.05 * (seed % 5))) for seed in range(24)
    ]
    alone = [extractor.extract(*one, SPACING).values for one in slices]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: extractor.extract(*one, SPACING).values, slices))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("chosen", [{}, {"weighting_norm": "euclidean", "distances": (1, 2)}])
def test_two_threads_for_one_slice_give_what_one_gives(chosen: dict) -> None:
    extractor, scratch = RadiomicsExtractor(RadiomicsSettings(**chosen)), RadiomicsScratch()
    for seed in range(4):
        region = texture(seed, (96, 110)), blob((96, 110), 0.2 + 0.05 * seed)
        alone = extractor.extract(*region, SPACING).values
        together = extractor.extract(*region, SPACING, scratch=scratch, n_threads=2).values
        assert np.array_equal(alone, together)
    assert scratch.n_bytes > scratch.beside.n_bytes > 0


def test_a_failure_beside_is_raised_after_both_have_ended() -> None:
    ended = []

    def fail() -> None:
        raise MemoryError("beside")

    with pytest.raises(MemoryError, match="beside"):
        run_both(lambda: ended.append("work"), fail)
    with pytest.raises(ZeroDivisionError):
        run_both(lambda: 1 // 0, lambda: (time.sleep(0.05), ended.append("beside")))
    assert ended == ["work", "beside"]


def test_importing_the_package_loads_nothing_heavy(repo: Path) -> None:
    code = (
        "import sys, ildsdk.radiomics as r; r.FEATURE_NAMES; r.RadiomicsSettings;"
        "heavy = {'numba', 'SimpleITK', 'radiomics', 'scipy', 'torch'} & set(sys.modules);"
        "print(sorted(heavy)); r.RadiomicsExtractor();"
        "print(sorted({'SimpleITK', 'radiomics', 'scipy', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True
    )
    assert found.stdout.split("\n")[:2] == ["[]", "[]"]


def test_the_reference_neither_logs_nor_prints(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("radiomics")
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.getLogger("radiomics").level
    with caplog.at_level(logging.DEBUG):
        RadiomicsExtractor(engine="pyradiomics").extract(texture(1), blob(), SPACING)
        assert [r.name for r in caplog.records if r.name.startswith("radiomics")] == []
        logging.getLogger("radiomics.glcm").warning("of the host application")
        assert "of the host application" in caplog.text
    assert capfd.readouterr().out == ""
    assert (root.level, list(root.handlers), logging.getLogger("radiomics").level) == before


def test_missing_pyradiomics_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "radiomics", None)
    with pytest.raises(ConfigError, match=r"pip install 'ildsdk\[pyradiomics\]'"):
        RadiomicsExtractor(engine="pyradiomics")
