"""Indexes to be damaged, and the ways of one who knows how checksums are made."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.index_factory import make_index


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Intact index of two segments; of the first, one item is removed."""
    path = tmp_path_factory.mktemp("pristine") / "index"
    with make_index(path, 12, 7, with_maps=True) as index:
        index.remove(item_ids=["1.2.3.6"])
    return path


@pytest.fixture
def index_path(pristine: Path, tmp_path: Path) -> Path:
    """Copy of the intact index, to be damaged."""
    shutil.copytree(pristine, tmp_path / "index")
    return tmp_path / "index"


def rewrite(path: Path, **changes: Any) -> None:
    """Change manifest fields and give them a right checksum, as an attacker would."""
    fields = json.loads((path / "manifest.json").read_text())
    del fields["checksum"]
    fields.update(changes)
    compact = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    fields["checksum"] = hashlib.sha256(compact.encode()).hexdigest()
    for name in ("manifest.json", "manifest.copy.json"):
        (path / name).write_text(json.dumps(fields, sort_keys=True, indent=1) + "\n")


def entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "file": path.name,
        "n_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def bless(path: Path) -> None:
    """Bring sizes and checksums of the manifest in line with the files as they are now."""
    fields = json.loads((path / "manifest.json").read_text())
    for segment in fields["segments"]:
        for kind in ("arrays", "columns", "items", "maps", "removed"):
            if segment[kind] is not None:
                segment[kind] = entry(path / segment[kind]["file"])
    rewrite(path, segments=fields["segments"])
