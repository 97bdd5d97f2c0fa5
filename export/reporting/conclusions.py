"""What the numbers support, in words made from the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.reporting.document import points, points_interval
from export.reporting.published import PUBLISHED

CHIEF_FIGURE = "macro_f1"
"""The figure the conclusions are about, fixed beforehand: the paper's summary of Table 2."""

FIGURE_NAMES = {
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "mean_average_precision": "mAP",
    "case_accuracy": "case accuracy",
}


def figure_name(key: str) -> str:
    """Name of a main figure as it is shown."""
    return FIGURE_NAMES.get(key, key.replace("_at_", "@"))


def conclusions(comparison: Mapping[str, Any], n_bootstrap: int) -> list[str]:
    """What the comparisons on macro F1 amount to, each of them, and how to read them.

    Parameters
    ----------
    comparison : mapping
        From :func:`export.reporting.figures.comparison_figures`; may be empty.
    """
    if not comparison:
        return [
            "No comparison: the main system or every other one has no result. Nothing is concluded."
        ]
    main = PUBLISHED[comparison["main"]].title
    against = comparison["against"]
    sentences = [_one(main, PUBLISHED[name].title, entry) for name, entry in against.items()]
    return [_summary(main, comparison), *sentences, _how_to_read(comparison, n_bootstrap)]


def _level(level: float) -> str:
    return f"{100 * level:.4g} %"


def _one(main: str, other: str, entry: Mapping[str, Any]) -> str:
    if CHIEF_FIGURE not in entry["figures"]:
        return f"{main} against {other}: no case was asked of both; nothing is concluded."
    found = entry["figures"][CHIEF_FIGURE]
    adjusted = _level(found["adjusted_level"])
    text = (
        f"{main} against {other}: macro F1 {points(found['value'])} points on {entry['n_cases']} "
        f"cases, 95 % interval {points_interval(found['low'], found['high'])}"
    )
    if found["adjusted_level"] > 0.95:
        text += (
            f", Bonferroni-adjusted {adjusted} interval "
            f"{points_interval(found['adjusted_low'], found['adjusted_high'])}"
        )
    verdict, strict = found["verdict"], found["adjusted_verdict"]
    if verdict == "not supported":
        return (
            f"{text}. A difference is not supported: the 95 % interval includes 0. That does not "
            "show that the systems are equal."
        )
    text += f". Supported: {main} is {verdict} (the 95 % interval excludes 0)"
    if found["adjusted_level"] <= 0.95:
        return f"{text}."
    if strict == "not supported":
        return f"{text}, but not once adjusted: the {adjusted} interval includes 0."
    return f"{text}, and the {adjusted} interval excludes 0 as well."


def _summary(main: str, comparison: Mapping[str, Any]) -> str:
    found = [
        entry["figures"][CHIEF_FIGURE]
        for entry in comparison["against"].values()
        if CHIEF_FIGURE in entry["figures"]
    ]
    n = comparison["n_comparisons"]
    higher = sum(entry["verdict"] == "higher" for entry in found)
    lower = sum(entry["verdict"] == "lower" for entry in found)
    open_ = len(found) - higher - lower
    strict_higher = sum(entry["adjusted_verdict"] == "higher" for entry in found)
    strict_lower = sum(entry["adjusted_verdict"] == "lower" for entry in found)
    comparisons = "1 comparison was made" if n == 1 else f"{n} comparisons were made"
    return (
        f"{comparisons}. On macro F1 the data support at 95 % that {main} is higher "
        f"in {higher}, lower in {lower}, and leave {open_} undecided; with the intervals adjusted "
        f"for the number of comparisons: higher in {strict_higher}, lower in {strict_lower}, "
        f"undecided in {len(found) - strict_higher - strict_lower}."
    )


def _how_to_read(comparison: Mapping[str, Any], n_bootstrap: int) -> str:
    n_cases = sorted({entry["n_cases"] for entry in comparison["against"].values()})
    cases = " or ".join(str(n) for n in n_cases)
    return (
        f"How to read this: the unit is the case, and there are only {cases} of them. Cases were "
        f"drawn {n_bootstrap} times with replacement within each class, all slices of a drawn case "
        "together, and every system was measured on the same draws (paired bootstrap, percentile "
        "intervals). The intervals say how much the figures hang on which cases were asked; the "
        "trained models and the indexed cases are held fixed, so the chance of training (one run "
        "per fold, one seed) is not in them, and the folds share training cases. Macro F1 was "
        "fixed beforehand as the figure to conclude from; the other figures are listed for the "
        "reader and not adjusted for their number."
    )
