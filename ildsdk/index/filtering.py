"""Choosing items by label, site, case or date of adding."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ConfigError
from ildsdk.index.columns import Field

if TYPE_CHECKING:
    from ildsdk.index.database import Index

_MAX_NAMES_COMPARED = 20_000  # similarity of names is slow; a list this long is not typed by hand
_MAX_NAMES_LISTED = 12
_COLUMN_OF: dict[str, Field] = {"labels": "label", "sites": "site", "case_ids": "case_id"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What items must be to be compared; every condition given has to hold.

    Attributes
    ----------
    labels, sites, case_ids : collection of str or None
        The item's value is one of these; None: any. An item without a site has none of them.
    added_from, added_until : datetime.date or None
        The item was added to the index on these days or between them (UTC). Items of unknown date,
        which came with version 1 of the format, match neither.

    Raises
    ------
    TypeError
        A text where a collection of texts is expected, or a date that is none.
    ValueError
        An empty collection, or ``added_from`` after ``added_until``.

    Notes
    -----
    There is no filter by the date of a study: the index does not store it. Study dates are
    patient data, and shifted or blanked in de-identified CT, where a filter by
    them would leave out the wrong items without a word.
    """

    labels: Collection[str] | None = None
    sites: Collection[str] | None = None
    case_ids: Collection[str] | None = None
    added_from: datetime.date | None = None
    added_until: datetime.date | None = None

    def __post_init__(self) -> None:
        for field in _COLUMN_OF:
            values = getattr(self, field)
            if values is None:
                continue
            if isinstance(values, str) or not all(isinstance(value, str) for value in values):
                raise TypeError(f"{field} is no collection of texts")
            if not values:
                raise ValueError(f"{field} is empty, which no item could match; expected None")
            object.__setattr__(self, field, tuple(sorted(set(values))))
        for field in ("added_from", "added_until"):
            value = getattr(self, field)
            # A datetime is a date to Python, but does not compare with one.
            if value is not None and type(value) is not datetime.date:
                raise TypeError(f"{field} is {type(value).__name__}, expected datetime.date")
        if self.added_from and self.added_until and self.added_from > self.added_until:
            raise ValueError(f"added_from {self.added_from} is after {self.added_until}")

    def excluded_rows(self, index: Index) -> npt.NDArray[np.bool_]:
        """Rows that do not match or are removed, bool ``(n,)``: for ``Index.search``.

        Raises
        ------
        ConfigError
            The index has no such label, site or case (the nearest name is given), or no item
            matches: an answer drawn from nothing would read as "no similar case".
        """
        present = index.rows()
        excluded = np.ones(index.n_rows, np.bool_)
        excluded[present] = False
        for field, column in _COLUMN_OF.items():
            wanted = getattr(self, field)
            if wanted is not None:
                names, codes = index.coded(column)
                known = {names[code] for code in np.unique(codes[present])}
                for name in wanted:
                    if name not in known:
                        raise ConfigError(_unknown(column, name, known - {None}))
                excluded |= ~np.array([name in wanted for name in names], np.bool_)[codes]
        if self.added_from is not None or self.added_until is not None:
            days = index.added_on()
            excluded |= np.isnat(days)
            if self.added_from is not None:
                excluded |= days < np.datetime64(self.added_from, "D")
            if self.added_until is not None:
                excluded |= days > np.datetime64(self.added_until, "D")
        if present.size and excluded.all():
            raise ConfigError(f"no item of the index has {self._told()}; widen the filter")
        return excluded

    def _told(self) -> str:
        told = [
            f"{column} {' or '.join(map(repr, wanted[:5]))}{' or others' * (len(wanted) > 5)}"
            for field, column in _COLUMN_OF.items()
            if (wanted := getattr(self, field)) is not None
        ]
        if self.added_from is not None:
            told.append(f"been added from {self.added_from}")
        if self.added_until is not None:
            told.append(f"been added until {self.added_until}")
        return " and ".join(told)


def _unknown(column: str, name: str, known: Collection[str]) -> str:
    what = column.replace("_", " ")
    if not known:
        return f"no item of the index has a {what}, so none can be chosen by it"
    near = []
    if len(known) <= _MAX_NAMES_COMPARED:
        near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = f" (known: {', '.join(sorted(known))})" if len(known) <= _MAX_NAMES_LISTED else ""
    return f"the index has no {what} {name!r}{hint}{listed}"
