"""Everything a set of vectors is searched with, as one mapping of plain arrays.

What an index stores beside its vectors: exact codes where there are enough rows for them, a
sketch where there are many and no tree prunes. Derived from the vectors; losing it costs time, no
answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.codes import Codes, build_codes, codes_problems
from native_hash.engine import Engine
from native_hash.neighbors import CheckedRows, NeighborHeap, checked_rows
from native_hash.sketch import Sketch

MIN_ROWS_FOR_CODES = 256
MIN_ROWS_FOR_SKETCH = 8192
_EXACT, _SKETCH = "exact.", "sketch."

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SegmentCodes:
    """Codes of one set of vectors; None where it has none of that kind."""

    exact: Codes | None
    sketch: Sketch | None

    def offer(
        self,
        heap: NeighborHeap,
        rows: CheckedRows,
        *,
        n: int,
        recall: float | None,
        first_row: int = 0,
        excluded: npt.NDArray[np.bool_] | None = None,
    ) -> float:
        """Offer the rows of the set to a heap for n answers.

        Parameters
        ----------
        recall : float or None
            At least which share of the answer must be found; None for all of it.

        Returns
        -------
        float
            Recall that was measured for such a search; 1 where it was exact.
        """
        depth, measured = 1.0, 1.0
        if recall is not None:
            n_excluded = 0 if excluded is None else int(np.count_nonzero(excluded))
            if self.sketch is not None:
                found = self.sketch.setting(n, recall, n_excluded=n_excluded)
                if found is not None:
                    heap.offer_sketch(self.sketch, found, first_row=first_row, excluded=excluded)
                    return found.measured_recall
            elif self.exact is not None and self.exact.tree is not None:
                setting = self.exact.tree.setting(n, recall, n_excluded=n_excluded)
                if setting is not None:
                    depth, measured = setting.depth, setting.measured_recall
        heap.offer(rows, codes=self.exact, depth=depth, first_row=first_row, excluded=excluded)
        return measured

    @classmethod
    def from_arrays(
        cls, vectors: CheckedRows, arrays: Arrays, *, engine: Engine = "numba"
    ) -> SegmentCodes:
        """Check arrays made by :func:`segment_codes`.

        Raises
        ------
        TypeError, ValueError
            They are no codes of a matrix of this shape.
        """
        exact, sketch = _parts(arrays)
        return cls(
            exact=Codes.from_arrays(vectors, exact) if exact else None,
            sketch=Sketch.from_arrays(vectors, sketch, engine=engine) if sketch else None,
        )


def segment_codes(
    vectors: npt.NDArray[np.float32], *, n_threads: int = 1
) -> dict[str, npt.NDArray[Any]]:
    """Codes and sketch of vectors float32 ``(n, d)``; empty where a plain scan is best."""
    if vectors.shape[0] < MIN_ROWS_FOR_CODES:
        return {}
    rows = checked_rows(vectors)
    exact = build_codes(rows, n_threads=n_threads)
    arrays = {_EXACT + name: array for name, array in exact.items()}
    codes = Codes.from_arrays(rows, exact)
    if codes.tree is None and vectors.shape[0] >= MIN_ROWS_FOR_SKETCH:
        from native_hash.sketch_building import build_sketch

        sketch = build_sketch(rows, codes=codes, n_threads=n_threads)
        arrays |= {_SKETCH + name: array for name, array in sketch.items()}
    return arrays


def segment_codes_problems(vectors: npt.NDArray[np.float32], arrays: Arrays) -> list[str]:
    """What makes stored codes unfit for these vectors; empty where they are right."""
    rows = checked_rows(vectors)
    try:
        exact, sketch = _parts(arrays)
    except ValueError as error:
        return [str(error)]
    problems = [f"exact codes: {problem}" for problem in codes_problems(rows, exact)]
    if sketch:
        from native_hash.sketch_building import sketch_problems

        problems += [f"sketch: {problem}" for problem in sketch_problems(rows, sketch)]
    return problems


def _parts(arrays: Arrays) -> tuple[Arrays, Arrays]:
    """Arrays of the exact codes and of the sketch, by their plain names."""
    exact = {k.removeprefix(_EXACT): a for k, a in arrays.items() if k.startswith(_EXACT)}
    sketch = {k.removeprefix(_SKETCH): a for k, a in arrays.items() if k.startswith(_SKETCH)}
    if len(exact) + len(sketch) != len(arrays):
        raise ValueError("codes hold an array of an unknown kind")
    return exact, sketch
