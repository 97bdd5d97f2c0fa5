"""An index of the paper's size, 28,942 slices, in which the embedded bundle finds neighbors.

The embedded index holds some hundred slices of phantom cases. Each new item lies between two slices
of one of its cases, with a little noise: a thinner sampling of the same cases. Seeded, the same on
every machine up to rounding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ildsdk import defaults
from ildsdk.index import Index, ItemRecord, build_from_arrays
from native_hash import unit_rows

N_ITEMS = 28_942
NOISE = 0.04  # length of what is added: the cosine to the vector without is about 1 - NOISE**2 / 2
_SEED = 20250611

Float32 = npt.NDArray[np.float32]


def large_index_arrays(n_items: int = N_ITEMS) -> tuple[Float32, list[ItemRecord]]:
    """Draw vectors, float32 ``(n_items, d)`` of unit norm, and their records."""
    with Index.open(defaults.index_path()) as small:
        vectors, items = small.embeddings(), small.items(range(len(small)))
    generator = np.random.default_rng(_SEED)
    by_case: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        by_case.setdefault(item.case_id, []).append(row)
    cases = sorted(by_case)
    number_of = {case: number for number, case in enumerate(cases)}
    rows = np.empty((n_items, vectors.shape[1]), np.float32)
    records = []
    for i in range(n_items):
        case = cases[i % len(cases)]
        of_case = by_case[case]
        at = int(generator.integers(len(of_case) - 1)) if len(of_case) > 1 else 0
        first, second = of_case[at], of_case[min(at + 1, len(of_case) - 1)]
        share = np.float32(generator.random())
        noise = generator.standard_normal(vectors.shape[1], dtype=np.float32)
        noise *= np.float32(NOISE / np.sqrt(vectors.shape[1]))
        rows[i] = (1 - share) * vectors[first] + share * vectors[second] + noise
        records.append(_record(i, case, number_of[case], items[first].label))
    return unit_rows(rows), records


def make_large_index(folder: Path, bundle_hash: str, n_items: int = N_ITEMS) -> None:
    """Write the index to a new folder, to be opened together with the embedded bundle."""
    vectors, records = large_index_arrays(n_items)
    build_from_arrays(
        folder,
        vectors,
        records,
        name="benchmark, made of the embedded phantom index",
        bundle_hash=bundle_hash,
        is_synthetic=True,
    ).close()


def _record(i: int, case: str, number: int, label: str) -> ItemRecord:
    return ItemRecord(
        item_id=f"item-{i:05d}",
        case_id=f"made-of-{case}",
        label=label,
        study_instance_uid=f"1.2.826.0.2.{number}",
        series_instance_uid=f"1.2.826.0.3.{number}",
        sop_instance_uid=f"1.2.826.0.1.{i}",
    )
