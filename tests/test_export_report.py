"""The report of an experiment: figures against plain loops, words, gaps, escaping, files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from export.cli import main
from export.measures import draw_cases
from export.reporting import write_report
from export.reporting.conclusions import conclusions
from export.reporting.document import Document, Paragraph, Section, Table, percent, shown
from export.reporting.figures import comparison_figures
from export.reporting.html import html
from export.reporting.intervals import CaseSums, case_sums, differences, intervals, main_figures
from export.reporting.markdown import markdown
from export.reporting.outcomes import system_outcome
from export.reporting.provenance import flat
from export.reporting.published import MAIN_SYSTEM, PUBLISHED
from export.reporting.reading import read_experiment
from export.reporting.style import drawable
from ildsdk.errors import ConfigError
from tests.report_factory import LABELS, ODD_CASE, STRENGTHS, make_work, write_vectors


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return make_work(
        tmp_path_factory.mktemp("experiment") / "work", STRENGTHS, missing=(("omic", 2),)
    )


@pytest.fixture(scope="module")
def results(work: Path) -> dict:
    return write_report(work, n_bootstrap=300)


def outcome_of(work: Path, system: str):
    return system_outcome(read_experiment(work), system, top_n=10, seed=0, lsh_seeds=range(3))


def plain_figures(work: Path, system: str, drawn: list[str] | None = None) -> dict[str, float]:
    """The main figures by loops over slices; ``drawn``: cases, repeats counting again."""
    experiment = read_experiment(work)
    slices, classes = experiment.slices, experiment.slices.class_indices()
    asked = [
        (case, fold) for fold in experiment.folds_of(system) for case in experiment.folds[fold]
    ]
    if drawn is not None:
        fold_of = dict(asked)
        asked = [(case, fold_of[case]) for case in drawn]
    truth, predicted, precision, average, case_hits = [], [], [], [], []
    for case, fold in asked:
        vectors = experiment.vectors(system, fold).astype(np.float64)
        stored = [i for i, c in enumerate(slices.case_ids) if c not in experiment.folds[fold]]
        by_case: dict[str, list[float]] = {}
        for query in (i for i, c in enumerate(slices.case_ids) if c == case):
            scores = {i: float(np.float32(vectors[query] @ vectors[i])) for i in stored}
            ranked = sorted(stored, key=lambda i: (-scores[i], i))
            hits = [bool(classes[i] == classes[query]) for i in ranked]
            truth.append(int(classes[query]))
            predicted.append(int(classes[ranked[0]]))
            precision.append(sum(hits[:10]) / 10)
            ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
            average.append(sum((n + 1) / rank for n, rank in enumerate(ranks)) / len(ranks))
            for other in {slices.case_ids[i] for i in stored}:
                best = max(scores[i] for i in stored if slices.case_ids[i] == other)
                by_case.setdefault(other, []).append(best)
        best_case = min(by_case, key=lambda name: (-sum(by_case[name]) / len(by_case[name]), name))
        case_hits.append(experiment.class_of_case[best_case] == experiment.class_of_case[case])
    f1 = []
    for number in range(2):
        pairs = list(zip(truth, predicted, strict=True))
        n_right = sum(t == p == number for t, p in pairs)
        n_named, n_true = predicted.count(number), truth.count(number)
        f1.append(2 * n_right / (n_named + n_true) if n_named + n_true else 0.0)
    return {
        "macro_f1": sum(f1) / 2,
        "accuracy": sum(t == p for t, p in zip(truth, predicted, strict=True)) / len(truth),
        "precision_at_10": sum(precision) / len(precision),
        "mean_average_precision": sum(average) / len(average),
        "case_accuracy": sum(case_hits) / len(case_hits),
    }


def test_pooled_figures_equal_plain_loops(work, results):
    for system in STRENGTHS:
        expected = plain_figures(work, system)
        found = results["systems"][system]
        values = {name: entry["value"] for name, entry in found["intervals_95"].items()}
        assert values == pytest.approx(expected)
        assert found["slice"]["macro"]["f1"] == pytest.approx(expected["macro_f1"])
        assert found["slice"]["macro"]["accuracy"] == pytest.approx(expected["accuracy"])
        assert found["slice"]["precision_at_k"]["1"] == pytest.approx(expected["accuracy"])
        assert found["slice"]["precision_at_k"]["10"] == pytest.approx(expected["precision_at_10"])
        assert found["case"]["macro"]["accuracy"] == pytest.approx(expected["case_accuracy"])
        assert found["case"]["precision_at_k"]["1"] == pytest.approx(expected["case_accuracy"])
    assert 0.3 < results["systems"]["omic"]["slice"]["macro"]["f1"] < 0.9


def test_bootstrap_equals_a_slow_loop_over_the_same_draws(work):
    outcome = outcome_of(work, "omic")
    sums = case_sums(outcome)
    weights = draw_cases(outcome.class_of_case, 12, seed=4)
    drawn = main_figures(sums, weights)
    for number, row in enumerate(weights):
        cases = [case for case, n in zip(sums.cases, row, strict=True) for _ in range(n)]
        expected = plain_figures(work, "omic", drawn=cases)
        assert {name: column[number] for name, column in drawn.items()} == pytest.approx(expected)
    found = intervals(sums, 12, seed=4)
    assert found["macro_f1"].low == pytest.approx(np.percentile(drawn["macro_f1"], 2.5))
    assert found["macro_f1"].high == pytest.approx(np.percentile(drawn["macro_f1"], 97.5))


def test_differences_are_paired_and_taken_on_the_cases_both_were_asked(work):
    main_sums = case_sums(outcome_of(work, MAIN_SYSTEM))
    other = case_sums(outcome_of(work, "omic"))
    found, shared = differences(main_sums, other, 25, 9, n_comparisons=5)
    experiment = read_experiment(work)
    assert set(shared) == {*experiment.folds[0], *experiment.folds[1]}  # omic lacks fold 2
    classes = np.array([experiment.class_of_case[case] for case in shared])
    values = []
    for row in draw_cases(classes, 25, seed=9):
        cases = [case for case, n in zip(shared, row, strict=True) for _ in range(n)]
        ours, theirs = (plain_figures(work, name, cases) for name in (MAIN_SYSTEM, "omic"))
        values.append(ours["macro_f1"] - theirs["macro_f1"])
    difference = found["macro_f1"]
    assert difference.adjusted_level == pytest.approx(0.99)
    assert [difference.low, difference.high] == pytest.approx(np.percentile(values, [2.5, 97.5]))
    assert [difference.adjusted_low, difference.adjusted_high] == pytest.approx(
        np.percentile(values, [0.5, 99.5])
    )
    whole = [plain_figures(work, name, list(shared)) for name in (MAIN_SYSTEM, "omic")]
    assert difference.value == pytest.approx(whole[0]["macro_f1"] - whole[1]["macro_f1"])


def comparison_of(work: Path) -> dict:
    names = (*(name for name in STRENGTHS if name != MAIN_SYSTEM), MAIN_SYSTEM)
    sums: dict[str, CaseSums] = {name: case_sums(outcome_of(work, name)) for name in names}
    return comparison_figures(sums, n_bootstrap=400, seed=0)


def test_a_clearly_better_system_is_supported_in_words(work):
    comparison = comparison_of(work)
    text = "\n".join(conclusions(comparison, 400))
    assert "Supported: ILD-FFN + SCL is higher (the 95 % interval excludes 0)" in text
    assert "not supported" not in text
    assert "on 12 cases" in text
    assert "1 comparison was made" in text
    assert "higher in 1, lower in 0, and leave 0 undecided" in text


def test_equal_systems_are_not_supported_and_a_worse_one_is_said_to_be_lower(tmp_path):
    equal = make_work(tmp_path / "equal", {"omic": 0.8, MAIN_SYSTEM: 0.8})
    text = "\n".join(conclusions(comparison_of(equal), 400))
    assert "A difference is not supported: the 95 % interval includes 0" in text
    assert "Supported:" not in text
    assert "higher in 0, lower in 0, and leave 1 undecided" in text
    worse = make_work(tmp_path / "worse", {"omic": 1.5, MAIN_SYSTEM: 0.3})
    text = "\n".join(conclusions(comparison_of(worse), 400))
    assert "Supported: ILD-FFN + SCL is lower" in text


def test_words_tell_the_plain_from_the_adjusted_interval():
    found = {
        "value": 0.05, "low": 0.01, "high": 0.09, "adjusted_level": 0.99, "adjusted_low": -0.01,
        "adjusted_high": 0.11, "verdict": "higher", "adjusted_verdict": "not supported",
    }  # fmt: skip
    entry = {"n_cases": 80, "figures": {"macro_f1": found}}
    comparison = {"main": MAIN_SYSTEM, "n_comparisons": 5, "against": {"vgg": entry}}
    told = conclusions(comparison, 2000)
    assert "5 comparisons were made" in told[0]
    assert "Supported: ILD-FFN + SCL is higher" in told[1]
    assert "but not once adjusted: the 99 % interval includes 0" in told[1]
    assert "only 80 of them" in told[-1]
    assert conclusions({}, 2000)[0].startswith("No comparison")


def test_missing_systems_and_folds_are_named_and_nothing_stands_in(work, results):
    assert results["missing"]["omic"] == [2]
    assert results["missing"]["vgg"] == [0, 1, 2]
    assert MAIN_SYSTEM not in results["missing"]
    assert set(results["systems"]) == set(STRENGTHS)
    text = (work / "report" / "report.md").read_text(encoding="utf-8")
    assert "VGG: no result on fold 0, 1, 2." in text
    assert "Omic (radiomics alone): no result on fold 2." in text
    ours = text.split("Table 2 in our numbers", 1)[1].split("Table 3 in our numbers", 1)[0]
    assert "| VGG | missing | missing | missing | missing |" in ours


def test_published_figures_stand_in_tables_of_their_own(work, results):
    text = (work / "report" / "report.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\*\*(.+)\*\*\n\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    assert len(tables) >= 12
    for caption, body in tables:
        holds = any(
            f"| {row.precision} | {row.recall} | {row.f1} |" in body
            or f"| {row.d_intra:.3f} | {row.d_inter:.3f} |" in body
            for row in PUBLISHED.values()
        )
        assert holds == ("PUBLISHED" in caption), caption
        is_about_data = "PHANTOM (synthetic) CT" in caption
        assert not (holds and is_about_data)
    headed = [caption for caption, _ in tables if "PHANTOM (synthetic) CT" in caption]
    assert any(caption.startswith("Table 2 in our numbers") for caption in headed)
    assert any(caption.startswith("Table 3 in our numbers") for caption in headed)


def test_page_holds_everything_and_no_markup_from_outside(work, results):
    page = (work / "report" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http-equiv" in page
    assert page.index("Research use only, not a medical device.") < page.index("<nav")
    assert page.index("PHANTOM data") < page.index("<nav")
    sources = re.findall(r'<img src="([^"]{30})[^"]*" alt="([^"]+)">', page)
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source, _ in sources)
    assert "A|x" in page
    assert "B&lt;b&gt;" in page
    assert "B<b>" not in page
    assert "\u202e" not in page


def test_texts_from_outside_cannot_become_markup():
    table = Table(caption="t", header=("What", ODD_CASE), rows=((shown(ODD_CASE), "a`b*c*[d](e)"),))
    section = Section(anchor="s", title="S", blocks=(Paragraph(text=shown(ODD_CASE)), table))
    document = Document(title="T", warnings=("w",), sections=(section,))
    text = markdown(document, "pictures")
    assert "<script" not in text
    row = text.splitlines()[-1]
    assert row.count(" | ") == 1
    assert "a\\`b\\*c\\*\\[d\\](e)" in row
    page = html(document, {})
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert drawable(ODD_CASE, 99).count("?") == 0
    assert drawable("a\U00013000b") == "a?b"
    assert len(drawable("x" * 100)) == 28


def test_a_table_of_uneven_rows_is_refused():
    with pytest.raises(ValueError, match="3 cells under 2"):
        Table(caption="t", header=("a", "b"), rows=(("1", "2", "3"),))


def test_files_are_whole_and_json_has_no_nan(work, results):
    folder = work / "report"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert files == [
        "pictures/confusion.png", "pictures/embedding-map.png", "pictures/gallery.png",
        "pictures/macro-f1.png", "pictures/precision-at-k.png", "report.html", "report.md",
        "results.json",
    ]  # fmt: skip

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in results.json")

    content = (folder / "results.json").read_text(encoding="utf-8")
    assert json.loads(content, parse_constant=refuse) == results
    text = (folder / "report.md").read_text(encoding="utf-8")
    for name in re.findall(r"\]\((pictures/[^)]+)\)", text):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert "experiment tiny.toml" in text
    assert "settings.nested.rate" in text
    assert "somebody" not in text + content
    assert "| settings.nested.cases_csv | c.csv |" in text
    assert results["made"]["git_commit"].split()[0] in text


def test_gallery_is_picked_by_its_rule_and_marks_what_is_right(work, results):
    slices = read_experiment(work).slices
    rows = results["gallery"]["rows"]
    assert [row["query"]["label"] for row in rows] == [LABELS[0]] * 2 + [LABELS[1]] * 2
    assert len({row["query"]["case_id"] for row in rows}) == 4
    folds = read_experiment(work).folds
    for row in rows:
        assert len(row["neighbors"]) == 5
        scores = [neighbor["score"] for neighbor in row["neighbors"]]
        assert scores == sorted(scores, reverse=True)
        vectors = read_experiment(work).vectors(MAIN_SYSTEM, row["fold"])
        for neighbor in row["neighbors"]:
            assert neighbor["case_id"] not in folds[row["fold"]]
            assert neighbor["is_right"] == (neighbor["label"] == row["query"]["label"])
            assert slices.labels[neighbor["slice"]] == neighbor["label"]
            cosine = vectors[row["query"]["slice"]] @ vectors[neighbor["slice"]]
            assert neighbor["score"] == pytest.approx(float(cosine), abs=1e-6)


def test_baselines_equal_expected_counts(work, results):
    experiment = read_experiment(work)
    classes = experiment.slices.class_indices()
    counts, frequent = np.zeros((2, 2)), np.zeros((2, 2))
    for fold in experiment.folds:
        is_query = np.isin(experiment.slices.case_ids, fold)
        share = [np.mean(classes[~is_query] == number) for number in range(2)]
        for label in classes[is_query]:
            counts[label] += share
            frequent[label, int(np.argmax(share))] += 1
    for name, table in (("random_neighbor", counts), ("most_frequent_class", frequent)):
        precision = [table[n, n] / table[:, n].sum() if table[:, n].sum() else 0 for n in (0, 1)]
        recall = [table[n, n] / table[n].sum() for n in (0, 1)]
        f1 = [2 * p * r / (p + r) if p + r else 0 for p, r in zip(precision, recall, strict=True)]
        found = results["baseline"][name]
        assert found["f1"] == pytest.approx(np.mean(f1))
        assert found["accuracy"] == pytest.approx(np.trace(table) / table.sum())


def test_the_same_seed_gives_the_same_figures_and_pictures(work, results, tmp_path):
    again = write_report(work, tmp_path / "again", n_bootstrap=300)
    assert {**again, "made": 0} == {**results, "made": 0}
    for path in (work / "report" / "pictures").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "pictures" / path.name).read_bytes()
    other = write_report(work, tmp_path / "other", n_bootstrap=300, seed=1)
    assert other["systems"]["omic"]["intervals_95"] != results["systems"]["omic"]["intervals_95"]


def test_command_writes_the_report_of_real_data_without_calling_it_phantom(tmp_path):
    folder = make_work(tmp_path / "work", {"omic": 1.0}, is_synthetic=False)
    done = CliRunner().invoke(main, ["report", str(folder), "--bootstrap", "50"])
    assert done.exit_code == 0, done.output
    assert "No comparison" in done.output
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "the user's archive" in text
    assert "PHANTOM" not in text
    assert "Research use only, not a medical device." in text
    assert "--bootstrap 50" in text


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda w: (w / "experiment.json").write_text("{}"), "is_synthetic"),
        (lambda w: (w / "experiment.json").unlink(), "experiment.json is missing"),
        (lambda w: (w / "folds.json").write_text("[1"), "cannot be read"),
        (
            lambda w: (w / "folds.json").write_text(
                '{"schema": "export.folds/1", "folds": [{"test_cases": ["case-01", "case-01"]}]}'
            ),
            "is tested once",
        ),
        (
            lambda w: (w / "folds.json").write_text(
                '{"schema": "export.folds/1", "folds": '
                '[{"test_cases": ["stranger"]}, {"test_cases": ["case-01"]}]}'
            ),
            "not prepared",
        ),
        (
            lambda w: np.save(w / "fold-0" / "omic" / "vectors.npy", np.eye(8, dtype=np.float32)),
            "SHA-256",
        ),
        (lambda w: (w / "fold-0" / "omic" / "vectors.npy").write_bytes(b"x"), "cannot be read"),
        (lambda w: write_vectors(w, "omic", 1, np.eye(8, dtype=np.float32)), "expected float32"),
        (lambda w: write_vectors(w, "omic", 1, np.ones((79, 8), np.float32)), "unit norm"),
        (
            lambda w: (w / "fold-0" / "omic" / "result.json").write_text(
                '{"schema": "export.fold-result/1", "system": "vgg", "fold": 0}'
            ),
            "result.json says",
        ),
    ],
)
def test_a_damaged_experiment_is_refused(tmp_path, break_it, message):
    folder = make_work(tmp_path / "work", {"omic": 1.0})
    assert len(read_experiment(folder).slices) == 79
    break_it(folder)
    with pytest.raises(ConfigError, match=message):
        write_report(folder, n_bootstrap=5)
    assert not (folder / "report").exists()


def test_small_things():
    assert percent(0.93749999999999) == percent(0.9375) == "93.8"
    assert percent(None) == "–"
    assert flat({"a": {"b": 1}, "c": 2}) == {"a.b": 1, "c": 2}
    with pytest.raises(ValueError, match="top_n"):
        write_report(Path("nowhere"), top_n=4)
    with pytest.raises(ValueError, match="n_bootstrap"):
        write_report(Path("nowhere"), n_bootstrap=0)
