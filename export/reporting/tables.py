"""The tables of the report, from its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.reporting.conclusions import figure_name
from export.reporting.document import (
    Table,
    number,
    percent,
    points,
    points_interval,
    shown,
)
from export.reporting.published import PUBLISHED

Systems = Mapping[str, Any]
_MISSING = "missing"


def _rows(systems: Systems, cells: Any, n_cells: int) -> tuple[tuple[str, ...], ...]:
    """A row for each of the six systems; one without a result says so."""
    return tuple(
        (row.title, *(cells(systems[name]) if name in systems else [_MISSING] * n_cells))
        for name, row in PUBLISHED.items()
    )


def table_2(systems: Systems, data: str) -> Table:
    """Precision, recall, F1 of the top-1 neighbor's class."""
    return Table(
        caption=f"Table 2 in our numbers, {data}: class of the top-1 slice, percent, mean over "
        "the classes (eqs. 11-13)",
        header=("System", "Precision", "Recall", "F1", "Accuracy"),
        rows=_rows(
            systems,
            lambda s: [percent(s["slice"]["macro"][k]) for k in _MACRO],
            4,
        ),
    )


_MACRO = ("precision", "recall", "f1", "accuracy")


def published_table_2() -> Table:
    """The paper's Table 2."""
    return Table(
        caption="Table 2 as PUBLISHED by Chen et al. 2025, measured on their private patient CT: "
        "percent",
        header=("System", "Precision", "Recall", "F1"),
        rows=tuple(
            (row.title, number(row.precision, 1), number(row.recall, 1), number(row.f1, 1))
            for row in PUBLISHED.values()
        ),
    )


def table_3(systems: Systems, data: str) -> Table:
    """Distances, s, and Rousseeuw's silhouette."""
    keys = ("d_intra", "d_inter", "s_eq16", "silhouette_rousseeuw")
    return Table(
        caption=f"Table 3 in our numbers, {data}: distances of unit vectors, mean over the folds "
        "(eqs. 14-16)",
        header=("System", "D_intra", "D_inter", "s (eq. 16)", "silhouette (Rousseeuw)"),
        rows=_rows(systems, lambda s: [number(s["distances"][k]) for k in keys], 4),
    )


def published_table_3() -> Table:
    """The paper's Table 3."""
    return Table(
        caption="Table 3 as PUBLISHED by Chen et al. 2025, measured on their private patient CT",
        header=("System", "D_intra", "D_inter", "s (eq. 16)"),
        rows=tuple(
            (row.title, number(row.d_intra), number(row.d_inter), number(row.s))
            for row in PUBLISHED.values()
        ),
    )


def interval_table(systems: Systems, data: str) -> Table:
    """Main figures with 95 % intervals."""
    keys = list(next(iter(systems.values()))["intervals_95"])
    return Table(
        caption=f"Main figures with 95 % bootstrap intervals over cases, {data}: percent",
        header=("System", *(figure_name(key) for key in keys)),
        rows=_rows(
            systems,
            lambda s: [
                f"{percent(i['value'])} ({percent(i['low'])} to {percent(i['high'])})"
                for i in s["intervals_95"].values()
            ],
            len(keys),
        ),
    )


def ranking_table(systems: Systems, data: str, unit: str, top_n: int) -> Table:
    """precision@k, mAP and nDCG by slice or by case."""
    ks = list(next(iter(systems.values()))[unit]["precision_at_k"])

    def cells(system: Mapping[str, Any]) -> list[str]:
        found = system[unit]
        macro = [] if unit == "slice" else [percent(found["macro"][key]) for key in _MACRO]
        return [
            *macro,
            *(percent(found["precision_at_k"][k]) for k in ks),
            percent(found["mean_average_precision"]),
            percent(found[f"ndcg_at_{top_n}"]),
        ]

    macro = () if unit == "slice" else ("Precision", "Recall", "F1", "Accuracy")
    header = ("System", *macro, *(f"precision@{k}" for k in ks), "mAP", f"nDCG@{top_n}")
    what = "neighbors of a slice" if unit == "slice" else "ranking of cases for a case"
    return Table(
        caption=f"Retrieval by {unit}, {data}: {what}, percent",
        header=header,
        rows=_rows(systems, cells, len(header) - 1),
    )


def class_table(systems: Systems, labels: Sequence[str], data: str) -> Table:
    """Precision / recall / F1 of each class."""
    keys = ("precision_by_class", "recall_by_class", "f1_by_class")
    return Table(
        caption=f"By class, {data}: precision / recall / F1 of the top-1 slice's class, percent",
        header=("System", *(shown(label) for label in labels)),
        rows=_rows(
            systems,
            lambda s: [
                " / ".join(percent(s["slice"][key][place]) for key in keys)
                for place in range(len(labels))
            ],
            len(labels),
        ),
    )


def fold_table(systems: Systems, n_folds: int, data: str) -> Table:
    """Macro F1 of each fold."""
    return Table(
        caption=f"Macro F1 by fold, {data}: percent",
        header=("System", *(f"fold {fold}" for fold in range(n_folds))),
        rows=_rows(
            systems,
            lambda s: [
                percent(value) if value is not None else _MISSING
                for value in (
                    s["slice"]["macro_f1_by_fold"].get(str(fold)) for fold in range(n_folds)
                )
            ],
            n_folds,
        ),
    )


def baseline_table(baseline: Mapping[str, Any], data: str) -> Table:
    """What answering without looking gives."""
    titles = {
        "random_neighbor": "a neighbor drawn at random from the index",
        "most_frequent_class": "always the most frequent class of the index",
    }
    return Table(
        caption=f"Prevalence baseline, {data}: percent",
        header=("Answer", "Precision", "Recall", "F1", "Accuracy"),
        rows=tuple(
            (title, *(percent(baseline[key][name]) for name in _MACRO))
            for key, title in titles.items()
        ),
    )


def difference_table(comparison: Mapping[str, Any], data: str) -> Table:
    """Differences of every main figure with 95 % intervals and what they support."""
    against = comparison["against"]
    keys = list(next(iter(against.values()))["figures"])

    def cell(found: Mapping[str, Any] | None) -> str:
        if found is None:
            return _MISSING
        mark = {"higher": " higher", "lower": " lower"}.get(found["verdict"], "")
        return f"{points(found['value'])} ({points_interval(found['low'], found['high'])}){mark}"

    return Table(
        caption=f"{PUBLISHED[comparison['main']].title} minus each other system, {data}: percent "
        'points with paired 95 % intervals; "higher" or "lower" where the interval excludes 0',
        header=("Against", "Cases", *(figure_name(key) for key in keys)),
        rows=tuple(
            (
                PUBLISHED[name].title,
                str(entry["n_cases"]),
                *(cell(entry["figures"].get(key)) for key in keys),
            )
            for name, entry in against.items()
        ),
    )


def search_table(systems: Systems, data: str, top_n: int) -> Table:
    """Exact index beside the paper's preset."""
    keys = ("macro_f1", "accuracy", f"precision_at_{top_n}", f"recall_at_{top_n}")
    n_seeds = next(iter(systems.values()))["search"]["paper_preset"]["n_hyperplane_seeds"]
    rows: list[tuple[str, ...]] = []
    for name, row in PUBLISHED.items():
        if name not in systems:
            rows.append((row.title, *[_MISSING] * 7))
            continue
        search = systems[name]["search"]
        exact, paper = search["exact"], search["paper_preset"]
        more = {"share_without_answer": 2, "selectivity": 1}  # digits
        rows.append(
            (
                row.title,
                "exact",
                *(percent(exact[key]) for key in keys),
                *(percent(exact[key], digits) for key, digits in more.items()),
            )
        )
        rows.append(
            (
                row.title,
                "LSH",
                *(
                    f"{percent(paper['mean'][key])} ({percent(paper['lowest'][key])}\u00a0to"
                    f"\u00a0{percent(paper['highest'][key])})"
                    for key in keys
                ),
                *(percent(paper["mean"][key], digits) for key, digits in more.items()),
            )
        )
    return Table(
        caption=f"Index loss, {data}: the same vectors through the certified exact index and "
        f"through the paper's LSH (k = 3, one table, one probe; mean of {n_seeds} draws of the "
        "hyperplanes, in brackets the lowest and highest); percent",
        header=(
            "System", "Index", "macro F1", "accuracy", f"precision@{top_n}", f"recall@{top_n}",
            "no answer", "rows compared",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def fact_table(caption: str, facts: Mapping[str, object]) -> Table:
    """Names and values."""
    return Table(
        caption=caption,
        header=("What", "Value"),
        rows=tuple((shown(key), shown(value)) for key, value in facts.items()),
        is_numeric=False,
    )
