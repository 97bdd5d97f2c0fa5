"""Filters, and walking through an index."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ildsdk.errors import ConfigError
from ildsdk.index import Index
from ildsdk.index.filtering import Filter
from ildsdk.index.iterating import iter_items
from tests.index_factory import LABELS, SALT, make_index, make_items, unit_embeddings

DAYS = [datetime.date(2026, 3, day) for day in (1, 5, 9)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Three segments of 20 items added on three days; case 3 and one more item were removed."""
    made = Index.create(
        tmp_path_factory.mktemp("filter") / "index", name="t", bundle_hash="b", embedding_size=16,
        is_synthetic=True, salt=SALT,
    )  # fmt: skip
    for number, day in enumerate(DAYS):
        items = make_items(20 * number, 20)
        made.add(unit_embeddings(number, 20), items, [b""] * 20, added_on=day)
    made.remove(case_ids=["case-3"], item_ids=["1.2.3.0"])
    return made


def matching(index: Index, chosen: Filter) -> list[int]:
    """Rows by the plain reading of the filter, one item at a time."""
    rows = []
    for row in index.rows().tolist():
        (item,) = index.items([row])
        day = DAYS[row // 20]
        if (
            (chosen.labels is None or item.label in chosen.labels)
            and (chosen.sites is None or item.site in chosen.sites)
            and (chosen.case_ids is None or item.case_id in chosen.case_ids)
            and (chosen.added_from is None or day >= chosen.added_from)
            and (chosen.added_until is None or day <= chosen.added_until)
        ):
            rows.append(row)
    return rows


SOME_CASES = [f"case-{i}" for i in range(12) if i != 3]


@given(
    labels=st.none() | st.sets(st.sampled_from(LABELS), min_size=1),
    sites=st.none() | st.just({"north"}),
    case_ids=st.none() | st.sets(st.sampled_from(SOME_CASES), min_size=1),
    days=st.tuples(*[st.none() | st.integers(1, 10)] * 2),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_filter_is_what_it_says(
    index: Index, labels: Any, sites: Any, case_ids: Any, days: tuple[int | None, int | None]
) -> None:
    first, last = (day and datetime.date(2026, 3, day) for day in days)
    if first and last and first > last:
        first, last = last, first
    chosen = Filter(
        labels=labels, sites=sites, case_ids=case_ids, added_from=first, added_until=last
    )
    expected = matching(index, chosen)
    if not expected:
        with pytest.raises(ConfigError, match="no item of the index has"):
            chosen.excluded_rows(index)
        return
    excluded = chosen.excluded_rows(index)
    assert np.flatnonzero(~excluded).tolist() == expected
    found = index.search(unit_embeddings(9, 1), 60, excluded_rows=excluded)
    assert sorted(row for row in found.rows[0].tolist() if row >= 0) == expected
    walked = list(iter_items(index, excluded_rows=excluded, chunk=7))
    assert [row for row, _, _ in walked] == expected


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({"labels": ["IPF-LID"]}, "no label 'IPF-LID'; did you mean 'IPF-ILD'"),
        ({"sites": ["north", "nord"]}, r"no site 'nord'; did you mean 'north'\? \(known: north\)"),
        ({"case_ids": ["case-3"]}, "no case id 'case-3'; did you mean"),
        ({"labels": ["Normal"], "case_ids": ["case-0"]}, "label 'Normal' and case_id 'case-0'"),
        ({"added_from": datetime.date(2026, 3, 10)}, "been added from 2026-03-10"),
    ],
)
def test_what_the_index_does_not_have_is_told(
    index: Index, conditions: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Filter(**conditions).excluded_rows(index)


def test_a_filter_by_site_where_none_is_known(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 4) as index:
        with pytest.raises(ConfigError, match="no item of the index has a site"):
            Filter(sites=["north"]).excluded_rows(index)
        assert not Filter().excluded_rows(index).any()
    with make_index(tmp_path / "empty") as index:
        assert Filter().excluded_rows(index).shape == (0,)


@pytest.mark.parametrize(
    ("conditions", "error"),
    [
        ({"labels": "Normal"}, TypeError),
        ({"labels": [1]}, TypeError),
        ({"sites": []}, ValueError),
        ({"added_from": "2026-01-01"}, TypeError),
        ({"added_until": datetime.datetime(2026, 1, 1)}, TypeError),
        ({"added_from": DAYS[1], "added_until": DAYS[0]}, ValueError),
    ],
)
def test_filters_check_themselves(conditions: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Filter(**conditions)


def test_filters_are_frozen_and_compare(index: Index) -> None:
    chosen = Filter(labels={"Normal", "IPF-ILD"})
    assert chosen == Filter(labels=["IPF-ILD", "Normal", "Normal"])
    assert hash(chosen) == hash(Filter(labels=["IPF-ILD", "Normal"]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen.labels = None  # type: ignore[misc]


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_walking_gives_every_item_once_in_order(index: Index, chunk: int) -> None:
    walked = list(iter_items(index, chunk=chunk))
    rows = index.rows()
    assert [row for row, _, _ in walked] == rows.tolist()
    assert [item for _, item, _ in walked] == index.items(rows)
    assert np.stack([x for _, _, x in walked]).tobytes() == index.embeddings(rows).tobytes()


def test_walking_is_lazy_and_checks_its_arguments(index: Index) -> None:
    assert next(iter_items(index, chunk=1))[1].item_id == "1.2.3.1"
    for arguments in ({"chunk": 0}, {"excluded_rows": np.zeros(3, bool)}):
        with pytest.raises(ValueError, match=r"expected|not a bool"):
            list(iter_items(index, **arguments))  # type: ignore[arg-type]
