"""Sign sketch of a large matrix: nearly the exact answer from about 28 bytes a row.

Signs after a random rotation (eq. 6 of Chen et al. 2025 with as many hyperplanes as
dimensions), measured from the centers of buckets, give an unbiased estimate of every score;
what may be among the N best is scored exactly. How far to look is not a parameter: it is
measured when the sketch is built (``sketch_tuning.py``), and a search asks for a recall.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from native_hash.code_layout import BLOCK_ROWS, padded_dimension, query_code_limit
from native_hash.engine import Engine, checked
from native_hash.neighbors import CheckedRows
from native_hash.sample_queries import MEASURED_N, RECALLS
from native_hash.sketch_reference import BLOCK

_WAITING = 8192
_WITH_FILTER = 0.99
_KINDS: dict[str, tuple[type, int]] = {
    "rotation": (np.float32, 2),
    "centers": (np.float32, 2),
    "center_codes": (np.int8, 4),
    "shapes": (np.float32, 2),
    "starts": (np.int64, 1),
    "rows": (np.int32, 2),
    "codes": (np.uint8, 3),
    "factors": (np.float32, 3),
    "ladder": (np.float32, 3),
}


def sketch_functions(engine: Engine) -> Any:
    """Module with the functions of ``sketch_reference.py`` for an engine name."""
    if engine == "numba":
        from native_hash import sketch_kernels

        return sketch_kernels
    if engine != "numpy":
        raise ValueError(f"engine is {engine!r}, expected one of numba, numpy")
    from native_hash import sketch_reference

    return sketch_reference


@dataclasses.dataclass(frozen=True, slots=True)
class SketchSetting:
    """How far a search looks, and what that found when it was measured.

    Attributes
    ----------
    breadth : float
        Buckets are visited where ``q.c + breadth * radius`` reaches the worst kept score.
    depth : float
        Rows are scored where ``estimate + depth * factor * |q - c|`` does.
    measured_recall : float
        Lower of the recalls of the two kinds of sample queries; never above 1.
    """

    breadth: float
    depth: float
    measured_recall: float


class Sketch:
    """A checked sketch, ready for searches from many threads.

    Attributes
    ----------
    vectors : CheckedRows
        The matrix that was sketched.
    arrays : mapping
        As :func:`native_hash.build_sketch` returns them, read-only.
    functions : module
        ``sketch_kernels`` or ``sketch_reference``.
    """

    def __init__(
        self, vectors: CheckedRows, arrays: Mapping[str, npt.NDArray[Any]], engine: Engine
    ) -> None:
        self.vectors = vectors
        self.arrays = arrays
        self.functions = sketch_functions(engine)
        before = tuple(arrays[k] for k in ("rotation", "centers", "center_codes", "shapes"))
        after = tuple(arrays[k] for k in ("starts", "codes", "factors", "rows"))
        self._parts = (*before, query_code_limit(vectors.values.shape[1]), *after)
        self._settings: dict[tuple[int, float, bool], SketchSetting | None] = {}
        self._capacity = min(_WAITING, BLOCK * (arrays["rows"].shape[0] + 1))

    @classmethod
    def from_arrays(
        cls,
        vectors: CheckedRows,
        arrays: Mapping[str, npt.NDArray[Any]],
        *,
        engine: Engine = "numba",
    ) -> Sketch:
        """Check that arrays are a sketch of a matrix of this shape, and take them.

        The values of codes and factors are not derived anew: :func:`sketch_problems` does that.

        Raises
        ------
        ValueError
            An array is missing, of another dtype or shape, or out of range.
        """
        problem = _misfit(vectors.values.shape, arrays)
        if problem:
            raise ValueError(f"the sketch does not fit its vectors: {problem}")
        read_only = {
            name: checked(arrays[name], dtype, n_dimensions, name)
            for name, (dtype, n_dimensions) in _KINDS.items()
        }
        return cls(vectors, read_only, engine)

    def setting(self, n: int, recall: float, *, n_excluded: int = 0) -> SketchSetting | None:
        """Cheapest setting whose measured recall reaches the asked one.

        None where none does for less than a search of the exact codes costs, or more is asked than
        a sample can show (0.999). Recalls below the
        least measured one, 0.95, get that. Between the measured lengths of answer the wider of
        both neighbors' settings is taken. Where rows are left out, what remains may be unlike
        the measured neighbors: then the widest of all lengths, for a recall of at least 0.99.

        Parameters
        ----------
        n : int
            Length of the answer.
        recall : float
            Asked recall.
        n_excluded : int
            Rows that the search will leave out.
        """
        asked = (n, recall, n_excluded > 0)
        if asked not in self._settings:  # a search of microseconds should not look it up anew
            self._settings[asked] = self._cheapest(*asked)
        return self._settings[asked]

    def _cheapest(self, n: int, recall: float, is_filtered: bool) -> SketchSetting | None:
        if n > MEASURED_N[-1] or recall > RECALLS[-1]:
            return None
        if is_filtered:
            recall = max(recall, _WITH_FILTER)
        after = int(np.searchsorted(MEASURED_N, n))
        needed = {after if MEASURED_N[after] == n else after - 1, after}
        found = []
        for number, steps in enumerate(self.arrays["ladder"]):
            reached = steps[steps[:, 3] >= recall]
            if reached.shape[0] and (is_filtered or number in needed):
                found.append(reached[0])
            elif number in needed:
                return None
        return SketchSetting(
            breadth=float(max(entry[0] for entry in found)),
            depth=float(max(entry[1] for entry in found)),
            measured_recall=float(min(entry[2] for entry in found)),
        )

    def search(
        self,
        queries: npt.NDArray[np.float32],
        query_number: int,
        setting: SketchSetting,
        *,
        best_scores: npt.NDArray[np.float32],
        best_rows: npt.NDArray[np.int64],
        n_filled: npt.NDArray[np.int64],
        slack: float,
        excluded: npt.NDArray[np.uint8],
        first_row: int = 0,
    ) -> npt.NDArray[np.int64]:
        """Offer the rows that may be among the N best of one query, with exact scores.

        Nothing is checked here: the state arrays are those of ``reference.scan``.

        Parameters
        ----------
        slack : float
            Rounding bound of a float32 dot product of this query and a row.
        excluded : ndarray
            uint8 ``(n,)``, 1 for rows to leave out, or empty; read-only.

        Returns
        -------
        ndarray
            int64 ``(3,)``: buckets visited, rows estimated, rows scored.
        """
        counts = np.empty(3, np.int64)
        self.functions.search(
            self.vectors.values,
            queries,
            query_number,
            *self._parts,
            setting.breadth,
            setting.depth,
            slack,
            excluded,
            first_row,
            self._capacity,
            best_scores,
            best_rows,
            n_filled,
            counts,
        )
        return counts


def _misfit(shape: tuple[int, ...], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """What keeps arrays from being a sketch of a matrix; empty where nothing does."""
    n, d = shape
    for name, (dtype, n_dimensions) in _KINDS.items():
        array = arrays.get(name)
        if not isinstance(array, np.ndarray):
            return f"{name} is missing"
        if array.dtype != dtype or array.ndim != n_dimensions or not array.flags.c_contiguous:
            return f"{name} is {array.dtype} {array.shape}"
    d_pad, n_buckets = -(-d // 64) * 64, arrays["centers"].shape[0]
    n_blocks, n_tiles = arrays["rows"].shape[0], -(-n_buckets // BLOCK_ROWS)
    expected = {
        "rotation": (d, d_pad),
        "centers": (n_buckets, d),
        "center_codes": (n_tiles, padded_dimension(d) // 2, BLOCK_ROWS, 2),
        "shapes": (3, n_tiles * BLOCK_ROWS),
        "starts": (n_buckets + 1,),
        "rows": (n_blocks, BLOCK),
        "codes": (n_blocks, d_pad // 8, BLOCK),
        "factors": (n_blocks, 2, BLOCK),
        "ladder": (len(MEASURED_N), arrays["ladder"].shape[1], 4),
    }
    for name, wanted in expected.items():
        if arrays[name].shape != wanted:
            return f"{name} has shape {arrays[name].shape}, expected {wanted}"
    sizes = np.zeros(n_tiles * BLOCK_ROWS, np.int64)
    sizes[:n_buckets] = np.diff(arrays["starts"])
    radii = arrays["shapes"][1]
    for name in ("rotation", "centers", "ladder"):
        if not np.isfinite(arrays[name]).all():
            return f"{name} holds a value that is not finite"
    if not np.isfinite(arrays["shapes"][::2]).all() or not (radii[sizes > 0] >= 0).all():
        return "shapes holds a value that is not finite"
    if not np.isneginf(radii[sizes <= 0]).all():
        return "shapes does not mark the buckets that hold no row"
    starts, rows, factors = arrays["starts"], arrays["rows"], arrays["factors"]
    if n_buckets < 1 or starts[0] != 0 or starts[-1] != n_blocks or (np.diff(starts) < 0).any():
        return "starts are not ascending from 0 to the number of blocks"
    is_row = rows >= 0
    if int(is_row.sum()) != n or (rows >= n).any():
        return f"rows does not name {n} rows"
    if (n and (np.bincount(rows[is_row], minlength=n) != 1).any()) or (rows[~is_row] != -1).any():
        return "rows names a row twice"
    if not np.isfinite(factors[:, 0]).all() or (factors[:, 0] < 0).any():
        return "factors holds a factor that is no positive number"
    if (np.isfinite(factors[:, 1]) != is_row).any() or (factors[:, 1][~is_row] > 0).any():
        return "factors does not mark the same places as rows"
    return ""
