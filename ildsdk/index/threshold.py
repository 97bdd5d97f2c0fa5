"""When a measured threshold of "no similar case" stands on too few cases to mean much."""

from __future__ import annotations

from collections.abc import Mapping

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
