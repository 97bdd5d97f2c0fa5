"""Small indexes for tests, with content that can be told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ildsdk.explain import LocationCodes, SliceBox
from ildsdk.index import Index, ItemRecord, make_item_id

LABELS = ("ASS-ILD", "IPF-ILD", "DM/RP-ILD", "Normal")
SALT = bytes(range(32))
GRAPH = "e" * 64  # SHA-256 of the explain.onnx the maps were made with


def unit_embeddings(seed: int, n: int, d: int = 16) -> npt.NDArray[np.float32]:
    """Random unit vectors, float32 ``(n, d)``."""
    wide = np.random.default_rng(seed).standard_normal((n, d))
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def make_items(first: int, n: int, per_case: int = 5) -> list[ItemRecord]:
    """Items numbered from ``first``; five to a case, labels in turn."""
    items = []
    for i in range(first, first + n):
        case = i // per_case
        uid = f"1.2.3.{i}"
        items.append(
            ItemRecord(
                item_id=make_item_id(uid),
                case_id=f"case-{case}",
                label=LABELS[case % len(LABELS)],
                study_instance_uid=f"1.9.{case}",
                series_instance_uid=f"1.9.{case}.1",
                sop_instance_uid=uid,
                position_mm=float(i) if i % 3 else None,
                site="north" if case % 2 else None,
            )
        )
    return items


def make_map(number: int, d: int = 16) -> LocationCodes | None:
    """Location vectors of item ``number`` on a grid of 2 x 3; each fourth item has none."""
    if number % 4 == 3:
        return None
    codes = np.random.default_rng(number).integers(-127, 128, (2, 3, d)).astype(np.int8)
    box = SliceBox(top=-0.25, left=number / 1024, height=0.75, width=0.5)
    return LocationCodes(codes=codes, scale=(1 + number) / 4096, box=box)


def add_items(
    index: Index, first: int, n: int, *, with_maps: bool = False, **options: Any
) -> npt.NDArray[np.float32]:
    """Add items ``first`` to ``first + n - 1``; returns their embeddings."""
    embeddings = unit_embeddings(first, n, index.embedding_size)
    if with_maps:
        maps = [make_map(i, index.embedding_size) for i in range(first, first + n)]
        options = {"maps": maps, "explain_sha256": GRAPH, **options}
    index.add(
        embeddings,
        make_items(first, n),
        [f"picture {i}".encode() for i in range(first, first + n)],
        patient_hashes=[f"patient-{i // 5}" for i in range(first, first + n)],
        **options,
    )
    return embeddings


def make_index(path: Path, *parts: int, d: int = 16, with_maps: bool = False) -> Index:
    """Index with one segment per part."""
    index = Index.create(
        path, name="test", bundle_hash="b" * 64, embedding_size=d, is_synthetic=True, salt=SALT
    )
    first = 0
    for n in parts:
        add_items(index, first, n, with_maps=with_maps)
        first += n
    return index
