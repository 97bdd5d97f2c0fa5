"""The terminal answer: what it says, how wide it gets, what it refuses to pass on."""

from __future__ import annotations

import dataclasses

import pytest

from ildsdk.reports.summaries import format_duration, group_skipped, time_stages
from ildsdk.reports.text import format_table
from tests.result_factory import NOTICE, make_odd_result, make_result, make_slice, make_study


def test_says_what_the_result_holds():
    result = make_result()
    study = result.studies[0]
    text = format_table(result, width=80)
    assert NOTICE.split(":")[0] in text
    assert "SYNTHETIC (phantom) database: figures and cases are not patients." in text
    assert "Label of the most similar diagnosed case: IPF-ILD" in text
    assert "diagnosis is" not in text.lower()
    for case in study.cases:
        assert f"{case.case_id}  {case.label}" in text
    for answer in study.slices:
        assert f"{answer.position_mm:.1f} mm  {answer.neighbors[0].score:.3f}" in text
    for label in study.labels:
        assert any(
            line.split()[0] == label.label and f"{100 * label.prevalence:.0f} %" in line
            for line in text.splitlines()
            if line.startswith("  ")
        )
    assert "120  not-sampled" in text
    assert "1  not-dicom" in text
    assert "CPUExecutionProvider, int8, 2 threads" in text
    assert "radiomics 112 ms" in text
    assert result.provenance.bundle_hash[:12] in text
    assert result.provenance.index_hash[:12] in text


def test_a_real_database_is_not_called_synthetic():
    text = format_table(make_result(is_synthetic=False), width=80)
    assert "SYNTHETIC" not in text
    assert NOTICE.split(":")[0] in text


@pytest.mark.parametrize("width", [60, 80, 100, 500])
@pytest.mark.parametrize("make", [make_result, make_odd_result])
def test_no_line_is_wider_than_the_terminal(make, width):
    lines = format_table(make(), width=width).splitlines()
    assert max(len(line) for line in lines) <= min(width, 110)
    assert all(line == line.rstrip() for line in lines)


def test_odd_parts_are_said():
    text = format_table(make_odd_result(), width=100)
    assert "Study 3 of 3" in text
    assert "No similar case: no slice reached the index's threshold (0.710)" in text
    assert "No similar case: no slice of this study could be answered." in text
    assert "14 indexed slices of the same patient left out" in text
    assert "HOSPITAL-ARCHIVE" in text
    assert "x7x7x7" in text
    assert ".." in text


def test_no_study_at_all():
    text = format_table(make_result(studies=()), width=80)
    assert "No study was answered." in text
    assert "not-dicom" in text


def test_control_characters_never_reach_the_terminal():
    study = make_study(n_slices=1)
    evil = "\x1b[2Jx\u202e\ry\n\udcffz"
    neighbor = dataclasses.replace(study.slices[0].neighbors[0], case_id=evil, label=evil)
    hostile = dataclasses.replace(
        study,
        suggested_label=evil,
        study_instance_uid=evil,
        slices=(dataclasses.replace(study.slices[0], neighbors=(neighbor,)),),
        cases=(dataclasses.replace(study.cases[0], case_id=evil, label=evil),),
        labels=(dataclasses.replace(study.labels[0], label=evil),),
        series=(dataclasses.replace(study.series[0], kernel=evil, reason=evil),),
        skipped=(dataclasses.replace(study.skipped[0], reason=evil, detail=evil),),
    )
    result = make_result(hostile)
    named = {
        field.name: evil
        for field in dataclasses.fields(result.provenance)
        if isinstance(getattr(result.provenance, field.name), str)
    }
    result = dataclasses.replace(result, provenance=dataclasses.replace(result.provenance, **named))
    text = format_table(result, width=80)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert text.count("?[2Jx??y??z") >= 8


def test_color_only_adds_style():
    import click

    result = make_odd_result()
    plain = format_table(result, width=80)
    styled = format_table(result, width=80, color=True)
    assert "\x1b[" in styled
    assert "\x1b[" not in plain
    assert click.unstyle(styled) == plain


def test_wide_letters_keep_columns_aligned():
    study = make_study(n_slices=1)
    cases = (dataclasses.replace(study.cases[0], case_id="南京病例一"), *study.cases[1:])
    text = format_table(make_result(dataclasses.replace(study, cases=cases)), width=80)
    row = next(line for line in text.splitlines() if "南京病例一" in line)
    other = next(line for line in text.splitlines() if line.startswith("  2  "))
    # Five letters of two cells each stand before the label.
    assert row.index(cases[0].label) + 5 == other.index(cases[1].label)


def test_a_thick_stack_is_cut_and_counted():
    study = make_study(n_slices=1)
    slices = tuple(make_slice(number, picture=False) for number in range(75))
    text = format_table(make_result(dataclasses.replace(study, slices=slices)), width=80)
    assert "and 15 more slices: see the page or the JSON output" in text


def test_skipped_groups_are_largest_first_and_complete():
    items = make_study(n_slices=1).skipped
    groups = group_skipped(reversed(items))
    assert [group.reason for group in groups] == ["not-sampled", "too-little-lung", "localizer"]
    assert sum(group.n_files + group.n_slices for group in groups) == len(items)


def test_stage_times_are_medians_and_totals_in_order():
    slices = [
        dataclasses.replace(
            make_slice(number), timings_ms={"extra": 1.0, "search": ms, "decode": 2.0}
        )
        for number, ms in enumerate((1.0, 2.0, 9.0))
    ]
    stages = time_stages(slices)
    assert [one.stage for one in stages] == ["decode", "search", "extra"]
    assert (stages[1].median_ms, stages[1].total_ms, stages[1].n_slices) == (2.0, 12.0, 3)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.06, "0.06 ms"), (8.44, "8.4 ms"), (9.96, "10 ms"), (999.4, "999 ms"), (1240, "1.24 s")],
)
def test_durations(milliseconds, text):
    assert format_duration(milliseconds) == text
