"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real, public CT; never part of the repository, so tests skip without it."""
    folder = Path(os.environ.get("ILDSDK_TEST_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real CT for tests is absent (set ILDSDK_TEST_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def serve_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle, index and study of the resident server's tests."""
    from tests.world_factory import write_world

    return write_world(tmp_path_factory.mktemp("serve"))
