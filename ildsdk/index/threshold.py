"""The threshold of "no similar case", measured on the index itself, and when that means little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ildsdk.index.database import Index

CALIBRATION_PERCENTILE = 1.0

ONE_CASE_LEFT_OUT = "one case left out at a time"
"""In ``Calibration.how`` where the threshold was measured on the index itself."""

FEWEST_CASES = 20
"""Of k cases and one more alike, the last resembles the others least with probability 1 / (k + 1):
below 20 more than one new patient in 20 is beyond all that was measured."""

FEWEST_ITEMS = 100
"""Below, the first percentile lies between the two lowest scores: one slice decides."""

FEWEST_CASES_OF_LABEL = 2
"""A label's only case, left out, is compared with other diagnoses: the threshold comes out too low
to tell anything (phantom index, one case a label: 0.85, where 0.97 is right)."""


def threshold_caution(
    no_match_threshold: float | None,
    how: str,
    *,
    n_items: int,
    cases_by_label: Mapping[str, int],
) -> str | None:
    """Say why the threshold is not to be relied on; None where nothing speaks against it.

    Only a threshold measured on the index itself is looked at: what held-out cases or a person
    decided is theirs to answer for.

    Parameters
    ----------
    how : str
        ``Calibration.how``.
    n_items, cases_by_label : int, mapping
        Counts of the index.
    """
    if no_match_threshold is None or ONE_CASE_LEFT_OUT not in how:
        return None
    n_cases = sum(cases_by_label.values())
    alone = sum(n < FEWEST_CASES_OF_LABEL for n in cases_by_label.values())
    reasons = []
    if n_cases < FEWEST_CASES:
        reasons.append(f"{n_cases} cases, expected at least {FEWEST_CASES}")
    if n_items < FEWEST_ITEMS:
        reasons.append(f"{n_items} slices, expected at least {FEWEST_ITEMS}")
    if alone:
        reasons.append(f"{alone} of {len(cases_by_label)} diagnoses with a single case")
    if not reasons:
        return None
    return (
        "The threshold of 'no similar case' was measured on an index too small for it "
        f"({'; '.join(reasons)}): rely neither on that answer nor on its absence."
    )


def calibrate(index: Index) -> tuple[float | None, str]:
    """Threshold of "no similar case" by leaving one case out at a time.

    Every indexed slice is searched among the items of all other cases; the threshold is the
    first percentile of those best scores: a query below it resembles the index less than
    99 % of the index's own slices resemble their fellow cases. None for an index of a
    single case; of few cases it means little (``IndexInfo.threshold_caution``).
    """
    rows = index.rows()
    _, case_of_row = index.coded("case_id")
    cases = np.unique(case_of_row[rows])
    if len(cases) == 1:
        return None, "not calibrated: the index holds a single case"
    best: list[npt.NDArray[np.float32]] = []
    for case in cases:
        is_own = case_of_row == case
        own_rows = rows[is_own[rows]]
        found = index.search(index.embeddings(own_rows), 1, excluded_rows=is_own)
        best.append(found.scores[:, 0])
    threshold = float(np.percentile(np.concatenate(best), CALIBRATION_PERCENTILE))
    return round(threshold, 6), (
        f"percentile {CALIBRATION_PERCENTILE:g} of best scores, {ONE_CASE_LEFT_OUT}"
    )
