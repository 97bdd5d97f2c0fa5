"""Indexes built from arrays that are there already."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ildsdk.errors import InputError
from ildsdk.index.building import build_from_arrays
from tests.index_factory import make_items, unit_embeddings

FACTS = {"name": "made", "bundle_hash": "b" * 64, "is_synthetic": True}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_build_from_arrays(tmp_path: Path) -> None:
    embeddings = unit_embeddings(0, 12)
    with build_from_arrays(
        tmp_path / "index", embeddings, make_items(0, 12), **FACTS,
        thumbnails=[b"picture"] * 12, patient_hashes=["p"] * 5 + [None] * 7,
    ) as index:  # fmt: skip
        assert index.embeddings().tobytes() == embeddings.tobytes()
        assert [dataclasses.replace(i, patient_key=None) for i in index.items(range(12))] == (
            make_items(0, 12)
        )
        assert index.info().n_patients == 1
        assert index.no_match_threshold is None
        assert index.verify() == []
    assert names_in(tmp_path) == ["index"]


def test_build_from_a_memory_map(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", unit_embeddings(0, 20))
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    with build_from_arrays(tmp_path / "index", mapped, make_items(0, 20), **FACTS) as index:
        assert index.info().n_segments == 1
        assert index.embeddings().tobytes() == mapped.tobytes()


def test_the_files_do_not_depend_on_how_the_vectors_lie_in_memory(tmp_path: Path) -> None:
    """Codes are made of the vectors handed in where they lie together, else of the file."""
    embeddings, items = unit_embeddings(0, 3000, 24), make_items(0, 3000)
    layouts = {"together": embeddings, "apart": np.asfortranarray(embeddings)}
    written = {}
    for name, matrix in layouts.items():
        with build_from_arrays(tmp_path / name, matrix, items, **FACTS, salt=bytes(32)) as index:
            (entry,) = index._snapshot.manifest.segments
            assert entry.codes is not None
            written[name] = (entry.codes.sha256, entry.arrays.sha256)
            assert index.verify() == []
    assert written["together"] == written["apart"]


def test_build_from_nothing_is_an_empty_index(tmp_path: Path) -> None:
    with build_from_arrays(tmp_path / "index", unit_embeddings(0, 0), [], **FACTS) as index:
        assert len(index) == 0


def test_items_without_a_picture_are_told_in_the_report(tmp_path: Path) -> None:
    from ildsdk.reports.html import render_html
    from tests.result_factory import make_result

    with build_from_arrays(
        tmp_path / "index", unit_embeddings(0, 3), make_items(0, 3), **FACTS
    ) as index:
        assert index.thumbnail(1) == b""
        assert index.thumbnail_of_item("1.2.3.1") == b""
        assert index.verify() == []
        page = render_html(make_result(), thumbnails=lambda _: index.thumbnail(1))
    assert "no thumbnail in the index" in page


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"embeddings": unit_embeddings(0, 5).astype(np.float64)}, "no float32"),
        ({"embeddings": unit_embeddings(0, 5) * 2}, "unit norm"),
        ({"embeddings": unit_embeddings(0, 4)}, "as many of each"),
        ({"records": make_items(0, 4)}, "as many of each"),
        ({"records": make_items(0, 4) + make_items(0, 1)}, "in the list twice"),
        ({"thumbnails": [b""] * 4}, "as many of each"),
        ({"patient_hashes": ["p"] * 6}, "as many of each"),
        ({"n_bits": 65}, "at most 64 bits"),
    ],
)
def test_build_from_arrays_that_do_not_fit_leaves_nothing(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    arguments = {"embeddings": unit_embeddings(0, 5), "records": make_items(0, 5), **FACTS}
    with pytest.raises((TypeError, ValueError, InputError), match=told):
        build_from_arrays(tmp_path / "index", **{**arguments, **change})
    assert names_in(tmp_path) == []
