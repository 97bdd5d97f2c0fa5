"""Performance page and README come from the committed baseline, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import performance_page
from benchmarks.performance_page import BEGIN, END, main, with_readme_table
from benchmarks.results import ResultsError, read_results
from tests.bench_results_factory import document, engines, write


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a README that has the marks."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"# head\n\n{BEGIN}\nold\n{END}\n\ntail\n")
    monkeypatch.setattr(performance_page, "PAGE", tmp_path / "docs" / "performance.md")
    monkeypatch.setattr(performance_page, "README", tmp_path / "README.md")
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*arguments, "--previous", "absent.json"])
    return done.exit_code, done.output


def test_written_once_and_checked(home: Path) -> None:
    results = str(write(home / "results.json", document()))
    assert run(results, "--check")[0] == 1
    assert "old" in (home / "README.md").read_text()
    assert run(results)[0] == 0
    assert run(results, "--check") == (0, "")
    readme, page = ((home / name).read_text() for name in ("README.md", "docs/performance.md"))
    assert readme.startswith(f"# head\n\n{BEGIN}\n| what |")
    assert readme.endswith(f"{END}\n\ntail\n")
    for text in (readme, page):
        assert "Made-up CPU" in text
    assert "network alone" in page
    assert "No baseline before this one" in page


def test_other_figures_do_not_match(home: Path) -> None:
    assert run(str(write(home / "results.json", document())))[0] == 0
    other = str(write(home / "other.json", document(ours_slice=0.02)))
    code, output = run(other, "--check")
    assert code == 1
    assert "performance.md" in output
    assert "README.md" in output


def test_what_changed_is_the_comparison(home: Path) -> None:
    old = write(home / "old.json", document(seed=1))
    new = write(home / "new.json", document(seed=2, ours_slice=0.0125))
    done = CliRunner().invoke(main, [str(new), "--previous", str(old)])
    assert done.exit_code == 0, done.output
    assert "faster" in (home / "docs" / "performance.md").read_text()


def test_engines_stand_where_the_file_holds_them(home: Path) -> None:
    made = document()
    made["engines"] = engines()
    assert run(str(write(home / "results.json", made)))[0] == 0
    page = (home / "docs" / "performance.md").read_text()
    assert "## Inference engines\n\n" in page
    assert "| OpenVINO int8 | 4.0 |" in page
    assert "1.25 (5.0 / 4.0 ms, OpenVINO int8)" in page


@pytest.mark.parametrize("readme", ["no marks", f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_readme_without_its_marks_is_refused(tmp_path: Path, readme: str) -> None:
    results = read_results(write(tmp_path / "results.json", document()))
    with pytest.raises(ResultsError, match="once each"):
        with_readme_table(readme, results)


def test_page_and_readme_match_the_committed_baseline(repo: Path) -> None:
    baseline = repo / "benchmarks" / "baseline.json"
    if not baseline.exists():
        pytest.skip("no baseline is committed yet")
    done = CliRunner().invoke(main, [str(baseline), "--check"])
    assert done.exit_code == 0, done.output
