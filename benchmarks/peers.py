"""Other libraries that the benchmarks compare with; without them a benchmark is skipped."""

from __future__ import annotations

import pytest

MISSING = "the bench dependency group is not installed (pip install --group bench)"
REFERENCE_STACK = ("faiss", "skimage", "sklearn", "torch", "radiomics")
SEARCH = ("faiss", "hnswlib", "usearch")


def need(*modules: str) -> None:
    """Skip the calling test, fixture or file where a module is absent."""
    for name in modules:
        pytest.importorskip(name, reason=MISSING)
