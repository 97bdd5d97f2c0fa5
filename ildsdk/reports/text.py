"""The answer of a query as plain text for a terminal."""

from __future__ import annotations

import shutil
import textwrap
import unicodedata
from collections.abc import Sequence

import click

from ildsdk.records import Provenance, QueryResult, SeriesSummary, SkippedItem, StudyAnswer
from ildsdk.reports.summaries import count_noun, format_duration, group_skipped, time_stages

MIN_WIDTH = 60
MAX_WIDTH = 110
MAX_SLICE_ROWS = 60
"""Slices listed for a study; a thicker stack is better read in the page or the JSON."""

Row = tuple[str, ...]


def format_table(result: QueryResult, *, width: int | None = None, color: bool = False) -> str:
    """Lay out the answers for reading in a terminal.

    Parameters
    ----------
    result : QueryResult
        What to show.
    width : int, optional
        Columns to fit into; the terminal's by default, kept between 60 and 110.
    color : bool
        Style headings and warnings with ANSI codes; nothing is told by color alone.

    Returns
    -------
    str
        Lines without trailing newline. Control characters in ids, labels and sources come out
        as ``?``, so that no file can steer the terminal.
    """
    columns = shutil.get_terminal_size((80, 24)).columns if width is None else width
    columns = min(MAX_WIDTH, max(MIN_WIDTH, columns))
    lines = _notice_lines(result.provenance, columns)
    for number, study in enumerate(result.studies, 1):
        lines += ["", *_study_lines(result, study, number, columns)]
    if not result.studies:
        lines += ["", "No study was answered."]
    if result.skipped:
        lines += ["", "=Files of no answered study", *_skipped_lines(result.skipped, columns)]
    lines += ["", *_run_lines(result, columns)]
    return "\n".join(_style(line, color) for line in lines)


def _style(line: str, color: bool) -> str:
    """Turn the leading mark of a line into style: ``=`` heading, ``!`` warning."""
    mark, text = line[:1], line[1:]
    if mark == "=":
        return click.style(text, bold=True) if color else text
    if mark == "!":
        return click.style(text, fg="yellow", bold=True) if color else text
    return line


def _notice_lines(provenance: Provenance, columns: int) -> list[str]:
    lines = ["=Most similar diagnosed cases"]
    if provenance.is_synthetic:
        lines += _wrap(
            "SYNTHETIC (phantom) database: figures and cases are not patients.", columns, "!"
        )
    lines += _wrap(_clean(provenance.notice), columns, "!")
    lines += _wrap("Not a medical device. For research.", columns, "!")
    return lines


def _study_lines(result: QueryResult, study: StudyAnswer, number: int, columns: int) -> list[str]:
    n_studies = len(result.studies)
    title = f"Study {number} of {n_studies}" if n_studies > 1 else "Study"
    lines = [f"={title}  {_cut(study.study_instance_uid, columns - len(title) - 2)}"]
    lines += _series_lines(study.series, columns)
    answered = f"{count_noun(len(study.slices), 'slice')} answered"
    if study.n_excluded_items:
        answered += (
            f"; {count_noun(study.n_excluded_items, 'indexed slice')} of the same patient left out"
        )
    lines += _wrap(answered, columns, "  ")
    lines += ["", *_verdict_lines(result.provenance, study, columns)]
    if study.cases:
        lines += ["", "=  Most similar diagnosed cases (cosine, mean over slices)"]
        lines += _case_rows(study, columns)
    if study.labels and study.slices:
        lines += ["", "=  Labels among the neighbors, beside their index share"]
        lines += _label_rows(study, columns)
    if study.slices:
        lines += ["", "=  Best neighbor of each slice", *_slice_rows(study, columns)]
    if study.skipped:
        lines += ["", "=  Not answered", *_skipped_lines(study.skipped, columns)]
    return lines


def _verdict_lines(provenance: Provenance, study: StudyAnswer, columns: int) -> list[str]:
    if study.no_similar_case:
        threshold = provenance.no_match_threshold
        if not study.slices:
            why = "no slice of this study could be answered."
        elif not any(answer.neighbors for answer in study.slices):
            why = (
                "every indexed slice belongs to the query's own patient or study and is left out."
                if study.n_excluded_items
                else "the index holds nothing to compare with."
            )
        elif threshold is None:
            why = "nothing in the index is similar enough; neighbors below are not to be relied on."
        else:
            why = (
                f"no slice reached the index's threshold ({threshold:.3f}); "
                "neighbors below are not to be relied on."
            )
        return _wrap(f"No similar case: {why}", columns, "!  ")
    if study.suggested_label is None:
        return ["=  No label suggested"]
    return [
        f"=  Label of the most similar diagnosed case: {_cut(study.suggested_label, columns - 47)}",
        "  (a suggestion for the reader, not a diagnosis)",
    ]


def _series_lines(series: Sequence[SeriesSummary], columns: int) -> list[str]:
    lines: list[str] = []
    for one in series:
        if not one.is_chosen:
            continue
        facts = [count_noun(one.n_slices, "slice")]
        if one.slice_thickness_mm is not None:
            facts.append(f"{one.slice_thickness_mm:g} mm thick")
        if one.spacing_mm is not None:
            facts.append(f"{one.spacing_mm:g} mm apart")
        if one.kernel:
            facts.append(f"kernel {_clean(one.kernel)}")
        lines += _wrap(f"Series used: {', '.join(facts)} ({_clean(one.reason)})", columns, "  ")
    n_others = sum(not one.is_chosen for one in series)
    if n_others:
        lines.append(f"  {count_noun(n_others, 'other series', 'other series')} not used")
    return lines


def _case_rows(study: StudyAnswer, columns: int) -> list[str]:
    n_slices = len(study.slices)
    rows = [
        (
            str(case.rank),
            case.case_id,
            case.label,
            f"{case.score:.3f}",
            f"{case.n_slices}/{n_slices}",
            f"{case.best_score:.3f}",
        )
        for case in study.cases
    ]
    return _columns(("#", "case", "label", "score", "slices", "best"), rows, "><<>>>", columns)


def _label_rows(study: StudyAnswer, columns: int) -> list[str]:
    rows = [
        (
            entry.label,
            str(entry.n_neighbors),
            f"{100 * entry.share:.0f} %",
            f"{100 * entry.prevalence:.0f} %",
            f"{entry.n_top1_slices}/{len(study.slices)}",
        )
        for entry in study.labels
    ]
    header = ("label", "neighbors", "share", "of index", "top-1 slices")
    return _columns(header, rows, "<>>>>", columns)


def _slice_rows(study: StudyAnswer, columns: int) -> list[str]:
    rows: list[Row] = []
    for number, answer in enumerate(study.slices[:MAX_SLICE_ROWS], 1):
        position = "-" if answer.position_mm is None else f"{answer.position_mm:.1f} mm"
        note = "no similar case" if answer.no_similar_case else ""
        if answer.neighbors:
            top = answer.neighbors[0]
            rows.append((str(number), position, f"{top.score:.3f}", top.label, top.case_id, note))
        else:
            rows.append((str(number), position, "-", "-", "-", note))
    header: Row = ("slice", "position", "score", "label", "case", "")
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    lines = _columns(header, rows, ">>><<<", columns)
    n_more = len(study.slices) - MAX_SLICE_ROWS
    if n_more > 0:
        lines.append(f"  and {count_noun(n_more, 'more slice')}: see the page or the JSON output")
    return lines


def _skipped_lines(items: Sequence[SkippedItem], columns: int) -> list[str]:
    rows = [
        (str(len(group.items)), group.reason, group.items[0].detail)
        for group in group_skipped(items)
    ]
    return _columns(("n", "reason", "for example"), rows, "><<", columns)


def _run_lines(result: QueryResult, columns: int) -> list[str]:
    made = result.provenance
    slices = [answer for study in result.studies for answer in study.slices]
    facts: list[tuple[str, str]] = []
    stages = ", ".join(
        f"{one.stage} {format_duration(one.median_ms)}" for one in time_stages(slices)
    )
    if stages:
        facts.append(("Median slice", stages))
    walls = ", ".join(f"{name} {format_duration(ms)}" for name, ms in result.timings_ms.items())
    if walls:
        facts.append(("Wall clock", walls))
    threads = count_noun(made.n_threads, "thread")
    facts += [
        (
            "Ran on",
            f"{made.provider}, {made.precision}, {threads}; {made.radiomics_engine} radiomics",
        ),
        ("Bundle", f"{made.bundle_name} ({made.bundle_hash[:12]})"),
        (
            "Index",
            f"{made.index_name} ({made.index_hash[:12]}): {count_noun(made.n_items, 'slice')}, "
            f"{count_noun(made.n_cases, 'case')}; {made.search_mode} search",
        ),
        ("ildsdk", made.ildsdk_version),
    ]
    lines: list[str] = []
    for name, text in facts:
        lines += textwrap.wrap(
            _clean(text),
            columns,
            initial_indent=f"{name:<14}",
            subsequent_indent=" " * 14,
        )
    return lines


# ---------------------------------------------------------------- layout


def _columns(header: Row, rows: Sequence[Row], align: str, columns: int) -> list[str]:
    """Align a table; its widest left-aligned column gives way until the rows fit."""
    cells = [tuple(_clean(cell) for cell in row) for row in (header, *rows)]
    widths = [max(_display_width(row[place]) for row in cells) for place in range(len(header))]
    elastic = [place for place in range(len(header)) if align[place] == "<"]
    spare = columns - 2 - 2 * (len(widths) - 1)
    while sum(widths) > spare:
        widest = max(elastic, key=lambda place: widths[place])
        if widths[widest] <= 8:
            break
        widths[widest] -= 1
    lines = []
    for row in cells:
        fields = []
        for cell, side, room in zip(row, align, widths, strict=False):
            text = _cut(cell, room)
            gap = " " * (room - _display_width(text))
            fields.append(gap + text if side == ">" else text + gap)
        lines.append(("  " + "  ".join(fields)).rstrip())
    return lines


def _wrap(text: str, columns: int, prefix: str) -> list[str]:
    """Wrap to ``columns``; ``prefix`` is a style mark and indent, put before each line."""
    return [prefix + line for line in textwrap.wrap(text, columns - len(prefix))]


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cut(text: str, room: int) -> str:
    """Shorten in the middle: ids differ at their ends."""
    text = _clean(text)
    if _display_width(text) <= room:
        return text
    head, tail = text, text
    while _display_width(head) > (room - 2) // 2:
        head = head[:-1]
    while _display_width(tail) > room - 2 - _display_width(head):
        tail = tail[1:]
    return f"{head}..{tail}"


def _display_width(text: str) -> int:
    """Terminal cells: East Asian wide letters take two, combining ones none."""
    return sum(
        0
        if unicodedata.combining(letter)
        else 2
        if unicodedata.east_asian_width(letter) in "WF"
        else 1
        for letter in text
    )
