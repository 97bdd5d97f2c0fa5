"""The document of the report, put together from its figures."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from export.reporting import tables
from export.reporting.document import (
    Block,
    Document,
    Items,
    Paragraph,
    Picture,
    Section,
    percent,
    shown,
)
from export.reporting.gallery import RULE
from export.reporting.provenance import flat
from export.reporting.published import PUBLISHED, SOURCE
from ildsdk.notice import notice

CONFUSION, MAP, INTERVALS, CURVES, GALLERY = (
    "confusion.png", "embedding-map.png", "macro-f1.png", "precision-at-k.png", "gallery.png",
)  # fmt: skip
PICTURES = (INTERVALS, CONFUSION, CURVES, MAP, GALLERY)


def data_name(is_synthetic: bool) -> str:
    """What stands in every heading of a figure."""
    return "PHANTOM (synthetic) CT" if is_synthetic else "the user's archive"


def build_document(results: dict[str, Any], drawn: Collection[str]) -> Document:
    """The report of these results, with the pictures that were drawn."""
    data = data_name(results["is_synthetic"])
    sections = [
        _support(results, data, drawn),
        *_gaps(results),
        _ours(results, data),
        _published(),
        _classes(results, data, drawn),
        _retrieval(results, data, drawn),
        _index_loss(results, data),
        *_looking(results, data, drawn),
        _made(results),
    ]
    warnings = [
        "Research use only, not a medical device.",
        notice(
            model_is_synthetic=results["is_synthetic"], cases_are_synthetic=results["is_synthetic"]
        ),
    ]
    if results["is_synthetic"]:
        warnings.insert(1, "PHANTOM data: every figure below but those marked PUBLISHED is about "
                           "computer-made CT.")  # fmt: skip
    return Document(
        title=f"Six systems, {results['n_folds']} folds by case: {data}",
        warnings=tuple(warnings),
        sections=tuple(sections),
    )


def _section(anchor: str, title: str, data: str, *blocks: Block | None) -> Section:
    kept = tuple(block for block in blocks if block is not None)
    return Section(anchor=anchor, title=title, data=data, blocks=kept)


def _picture(drawn: Collection[str], file_name: str, caption: str, alt: str) -> Picture | None:
    if file_name not in drawn:
        return None
    return Picture(file_name=file_name, caption=caption, alt=alt)


def _title(name: str) -> str:
    return PUBLISHED[name].title


def _support(results: dict[str, Any], data: str, drawn: Collection[str]) -> Section:
    systems, comparison = results["systems"], results["comparison"]
    told = "; ".join(
        f"{_title(name)} {percent(i['value'])} ({percent(i['low'])} to {percent(i['high'])})"
        for name, i in ((n, s["intervals_95"]["macro_f1"]) for n, s in systems.items())
    )
    return _section(
        "support",
        "What the data support",
data,
        Paragraph(
            text=f"{results['n_query_cases']} cases of {len(results['labels'])} classes, "
            f"{results['n_query_slices']} slices. Each case is a query once: the index of its "
            "fold holds the slices of all other cases. The class of the most similar slice is the "
            "prediction."
        ),
        *_told(results["conclusions"]),
        tables.interval_table(systems, data),
        tables.difference_table(comparison, data) if comparison else None,
        _picture(
            drawn, INTERVALS,
            f"Macro F1 and its differences with intervals, {data}. Dashed: what a neighbor drawn "
            "at random gives.",
            f"Macro F1 in percent with 95 % intervals: {told}.",
        ),
    )  # fmt: skip


def _told(conclusions: list[str]) -> list[Block]:
    """The sum, the comparisons as a list, how to read them; or the one sentence there is."""
    if len(conclusions) == 1:
        return [Paragraph(text=conclusions[0])]
    return [
        Paragraph(text=conclusions[0]),
        Items(texts=tuple(conclusions[1:-1])),
        Paragraph(text=conclusions[-1]),
    ]


def _gaps(results: dict[str, Any]) -> list[Section]:
    texts = [
        f"{_title(name)}: no result on fold {', '.join(map(str, folds))}."
        for name, folds in results["missing"].items()
    ]
    never = results["cases_never_queried"]
    if never:
        some = ", ".join(shown(case) for case in never[:10])
        texts.append(f"{len(never)} prepared cases are tested in no fold: {some}"
                     f"{' and others' if len(never) > 10 else ''}.")  # fmt: skip
    if not texts:
        return []
    return [
        _section(
            "missing",
            "What is missing",
            "",
            Paragraph(
                text="Nothing stands in for what is missing: a system's figures are pooled over "
                "the folds it has, and differences are taken on the cases both systems were asked."
            ),
            Items(texts=tuple(texts)),
        )
    ]


def _ours(results: dict[str, Any], data: str) -> Section:
    systems = results["systems"]
    counts = sorted({n for s in systems.values() for n in s["distances"]["n_slices_by_fold"]})
    n_slices = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return _section(
        "tables-2-3",
        "Tables 2 and 3 in our numbers",
        data,
        tables.table_2(systems, data),
        tables.table_3(systems, data),
        Paragraph(
            text=f"Distances are those of {n_slices} random test slices a fold (400 where a fold "
            "has as many), of vectors of length 1 for every system: the paper's deep features and "
            "radiomics are not normalised, so D_intra and D_inter could not be set side by side "
            "with its figures even on the same data. s is what the paper calls silhouette "
            "(eq. 16); Rousseeuw's silhouette of 1987 is another measure."
        ),
        tables.fold_table(systems, results["n_folds"], data),
        tables.baseline_table(results["baseline"], data),
        Paragraph(
            text="Without looking at any picture: by case, a random indexed case has the right "
            f"class in {percent(results['baseline']['random_neighbor']['case_accuracy'])} % of "
            "the cases."
        ),
    )


def _published() -> Section:
    return _section(
        "published",
        "The paper's PUBLISHED figures (other data)",
        "",
        Paragraph(
            text=f"{SOURCE}. Measured on the CT of 80 patients of one hospital, which are not "
            "public. They are shown for reference; no row of theirs can be compared with a row of "
            "ours."
        ),
        tables.published_table_2(),
        tables.published_table_3(),
    )


def _classes(results: dict[str, Any], data: str, drawn: Collection[str]) -> Section:
    told = "; ".join(
        f"{_title(name)}: "
        + ", ".join(
            f"{shown(label)} {percent(system['slice']['confusion_rows_normalized'][i][i], 0)} %"
            for i, label in enumerate(results["labels"])
        )
        for name, system in results["systems"].items()
    )
    return _section(
        "classes",
        "Classes and confusion (Fig. 3 of the paper)",
        data,
        _picture(
            drawn, CONFUSION,
            f"Row: true class; column: class of the most similar slice; {data}.",
            f"Confusion matrices. Share of each class that was found: {told}.",
        ),
        tables.class_table(results["systems"], results["labels"], data),
    )  # fmt: skip


def _retrieval(results: dict[str, Any], data: str, drawn: Collection[str]) -> Section:
    systems, top_n = results["systems"], results["settings"]["top_n"]
    told = "; ".join(
        f"{_title(name)} from {percent(s['slice']['precision_curve'][0])} at k = 1 to "
        f"{percent(s['slice']['precision_curve'][-1])} at k = {len(s['slice']['precision_curve'])}"
        for name, s in systems.items()
    )
    return _section(
        "retrieval",
        "Retrieval",
data,
        tables.ranking_table(systems, data, "slice", top_n),
        _picture(
            drawn, CURVES, f"Precision among the first k slices, {data}.",
            f"Precision at k in percent: {told}.",
        ),
        tables.ranking_table(systems, data, "case", top_n),
        Paragraph(
            text="By case: indexed cases are ranked by the mean, over the slices of the query "
            "case, of the best cosine any of their slices reaches (the rule of ildsdk's answers). "
            "Precision, recall, F1 and accuracy are those of the best-ranked case's class."
        ),
    )  # fmt: skip


def _index_loss(results: dict[str, Any], data: str) -> Section:
    top_n = results["settings"]["top_n"]
    return _section(
        "index-loss",
        "Index loss and model loss",
        data,
        Paragraph(
            text="The certified exact index was compared with brute force for every query of this "
            "report and gave the same answers (a difference would have ended the run), so its "
            "figures are the model's alone. What the paper's LSH changes is the index's doing: a "
            "query is compared with the rows of its own bucket only. An empty bucket gives no "
            "answer and counts as wrong; an empty place among the first "
            f"{top_n} counts as wrong as well. LSH can also gain: a bucket may leave out wrong "
            "neighbors."
        ),
        tables.search_table(results["systems"], data, top_n),
    )


def _looking(results: dict[str, Any], data: str, drawn: Collection[str]) -> list[Section]:
    gallery, fold = results["gallery"], results["embedding_map_fold"]
    n_shown = sum(len(row["neighbors"]) for row in gallery["rows"])
    n_right = sum(n["is_right"] for row in gallery["rows"] for n in row["neighbors"])
    map_ = _picture(
        drawn, MAP,
        "One point a slice, colored and shaped by class; thin lines lead to the middle of the "
        "slice's case. t-SNE keeps neighborhoods, not distances or sizes: look at who is near "
        f"whom, at nothing else. Test slices of fold {fold}, {data}.",
        f"Maps of the test slices of fold {fold} for each system; the figures of separation "
        "are those of Table 3.",
    )  # fmt: skip
    rows = _picture(
        drawn, GALLERY,
        f"{RULE}. Solid frame and check: the neighbor has the query's class; dashed frame and "
        f"cross: it has not. Number: cosine. Images are the model's inputs, {data}.",
        f"{len(gallery['rows'])} queries with their first neighbors by "
        f"{_title(gallery['system'])}; {n_right} of {n_shown} neighbors have the query's class.",
    )  # fmt: skip
    sections = []
    if map_ is not None:
        sections.append(_section("map", "Map of the embedding", data, map_))
    if rows is not None:
        sections.append(_section("gallery", "Queries and neighbors", data, rows))
    return sections


def _made(results: dict[str, Any]) -> Section:
    made = results["made"]
    seconds = made["training_seconds"]
    n_folds = results["n_folds"]
    time_rows = tuple(
        (
            _title(name),
            *(
                "–" if (value := by_fold.get(str(fold))) is None else f"{value:.0f}"
                for fold in range(n_folds)
            ),
        )
        for name, by_fold in seconds.items()
    )
    known = [value for by_fold in seconds.values() for value in by_fold.values() if value]
    facts = {
        "command": made["command"],
        "written at": made["written_at"],
        "seconds for the report": f"{made['seconds']:.0f}",
        "seconds of all training epochs (wall)": f"{sum(known):.0f}",
        "git commit of the report": made["git_commit"],
        **{f"version of {name}": value for name, value in made["versions"].items()},
        **results["settings"],
    }
    return _section(
        "made",
        "How this was made",
        "",
        tables.fact_table("Report", facts),
        tables.fact_table("Experiment (experiment.json)", flat(results["experiment"])),
        tables.Table(
            caption="Seconds of each system and fold, as its result.json says; what systems "
            "share is counted for the one that trained it first",
            header=("System", *(f"fold {fold}" for fold in range(n_folds))),
            rows=time_rows,
        ),
    )
