"""A small world to ask: bundle, index and a study."""

from __future__ import annotations

from pathlib import Path

from ildsdk.bundle import Bundle
from ildsdk.ingest import build_index, read_cases_csv
from ildsdk.settings import RuntimeSettings
from tests.archive_factory import write_query_study, write_small_archive
from tests.bundle_factory import write_tiny_bundle


def write_world(folder: Path) -> Path:
    """``bundle``, ``index`` and ``study`` in a folder, and the ``archive`` of the index."""
    write_tiny_bundle(folder / "bundle")
    table = write_small_archive(folder / "archive", ("IPF-ILD", "Normal"), 2)
    build_index(
        folder / "index",
        read_cases_csv(table),
        Bundle.open(folder / "bundle"),
        settings=RuntimeSettings(provider="cpu"),
    )
    write_query_study(folder / "study")
    return folder
