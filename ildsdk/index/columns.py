"""Text columns of a segment as integers and sorted names, and the checks of its rows."""

from __future__ import annotations

import dataclasses
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, overload

import numpy as np
import numpy.typing as npt

Field = Literal["case_id", "label", "site", "study_instance_uid", "patient_key", "added_on"]
FIELDS: tuple[Field, ...] = get_args(Field)
CHECKS = ("embedding_checks", "item_checks", "thumbnail_checks")
_SEPARATOR = "\x1f"


class Names(Sequence[str]):
    """Sorted distinct texts in one byte array; one is decoded when asked for.

    Parameters
    ----------
    text : ndarray
        uint8, the texts in UTF-8, one after the other.
    ends : ndarray
        int64, where each ends.
    """

    def __init__(self, text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> None:
        self._text = text
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        start = int(self._ends[number - 1]) if number else 0
        return self._text[start : int(self._ends[number])].tobytes().decode()

    def find(self, name: str) -> int:
        """Number of a text, -1 where it is not here."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self[middle] < name:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self[low] == name else -1

    def all(self) -> list[str]:
        """Every text, in order."""
        text = self._text.tobytes()
        ends = self._ends.tolist()
        return [text[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A text per row.

    Attributes
    ----------
    names : Names
        Distinct texts, sorted.
    numbers : ndarray
        int32 ``(n,)``, for each row the number of its text; -1 where it has none.
    """

    names: Names
    numbers: npt.NDArray[np.int32]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], field: Field) -> Column:
        """Read a column as :meth:`arrays` made it.

        Raises
        ------
        ValueError
            The arrays do not fit together.
        """
        text, ends, numbers = (arrays[key] for key in _keys(field))
        if len(numbers) and not (numbers.min() >= -1 and numbers.max() < len(ends)):
            raise ValueError(f"{field} holds a number beyond its names")
        bounds = np.concatenate([[0], ends])
        if (np.diff(bounds) < 0).any() or bounds[-1] != len(text):
            raise ValueError(f"{field} has names that do not fill their text")
        return cls(Names(text, ends), numbers)

    def arrays(self, field: Field) -> dict[str, npt.NDArray[Any]]:
        """Arrays to store the column under a name."""
        values = (self.names._text, self.names._ends, self.numbers)
        return dict(zip(_keys(field), values, strict=True))


class _Numbering(dict[str | None, int]):
    """Numbers texts in the order in which they come; None is -1."""

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self) - 1
        return number


class ColumnBuilder:
    """Collects the texts of one column, row after row."""

    def __init__(self) -> None:
        self._number_of = _Numbering({None: -1})
        self._numbers = array("i")

    def extend(self, values: Iterable[str | None]) -> None:
        """Take the texts of the next rows."""
        self._numbers.extend(map(self._number_of.__getitem__, values))

    def finish(self) -> Column:
        """The column of all texts taken."""
        found = list(self._number_of)[1:]
        names = sorted(name for name in found if name is not None)
        place = {name: i for i, name in enumerate(names)}
        final = np.array([place[name] for name in found if name is not None] + [-1], np.int32)
        numbers = np.frombuffer(self._numbers, np.intc) if self._numbers else np.empty(0, np.intc)
        parts = [name.encode() for name in names]
        return Column(
            Names(
                np.frombuffer(b"".join(parts), np.uint8),
                np.cumsum([len(part) for part in parts], dtype=np.int64),
            ),
            final[numbers],  # -1 finds the last entry
        )


def column_of(values: Iterable[str | None]) -> Column:
    """Column of texts that are there already."""
    builder = ColumnBuilder()
    builder.extend(values)
    return builder.finish()


def columns_layout(n: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Arrays of a columns file and their dtypes and shapes (-1: any length)."""
    layout: dict[str, tuple[str, tuple[int, ...]]] = {}
    for field in FIELDS:
        text, ends, numbers = _keys(field)
        layout |= {numbers: ("I32", (n,)), text: ("U8", (-1,)), ends: ("I64", (-1,))}
    return layout | {name: ("U32", (n,)) for name in CHECKS}


def embedding_checks(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """CRC-32 of each row of a C-contiguous float32 ``(n, d)``, uint32 ``(n,)``."""
    n, d = embeddings.shape
    raw, n_bytes, crc32 = embeddings.reshape(-1).view(np.uint8).data, 4 * d, zlib.crc32
    checks = (crc32(raw[i : i + n_bytes]) for i in range(0, n * n_bytes, n_bytes))
    return np.fromiter(checks, np.uint32, n)


def item_check(values: Iterable[Any]) -> int:
    """CRC-32 of one item's values, in the order of the table."""
    parts = ["\0" if v is None else v if type(v) is str else repr(v) for v in values]
    return zlib.crc32(_SEPARATOR.join(parts).encode())


def _keys(field: Field) -> tuple[str, str, str]:
    return f"{field}.text", f"{field}.ends", field
