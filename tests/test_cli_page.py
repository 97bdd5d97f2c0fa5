"""``--report``: what the page may replace, and what a failed query leaves behind."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.test_cli import parts, run
from tests.world_factory import write_world

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("page"))


def test_the_study_is_never_replaced(world: Path, tmp_path: Path, capsys: Captured) -> None:
    study = tmp_path / "study"
    shutil.copytree(world / "study", study)
    slices = sorted(study.iterdir())
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in slices:
            file.write(path, path.name)
    os.link(archive, tmp_path / "hard.zip")
    (tmp_path / "alias").symlink_to(study)
    before = {path: path.read_bytes() for path in (*slices, archive)}
    for asked, report in (
        (study, slices[0]),
        (study, study / "page.html"),
        (tmp_path / "alias", study / "page.html"),
        (study, tmp_path / "alias" / "page.html"),
        (archive, archive),
        (archive, tmp_path / "hard.zip"),
        (slices[0], slices[0]),
    ):
        code, out, err = run("query", asked, *parts(world), "--report", report, capsys=capsys)
        assert (code, out) == (2, "")
        assert "choose a file elsewhere" in " ".join(err.split())
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(study.iterdir()) == slices


@pytest.mark.parametrize("kind", ["dash", "link", "pipe", "folder"])
def test_what_is_no_file_is_refused(
    world: Path, tmp_path: Path, kind: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = Path("-" if kind == "dash" else "page.html")
    if kind == "link":
        Path("other.html").write_text("kept")
        report.symlink_to("other.html")
    elif kind == "pipe":
        os.mkfifo(report)
    elif kind == "folder":
        report.mkdir()
    before = sorted(tmp_path.iterdir())
    code, out, err = run("query", world / "study", *parts(world), "--report", report, capsys=capsys)
    assert (code, out) == (2, "")
    assert "--report" in err
    assert sorted(tmp_path.iterdir()) == before


def test_an_older_page_is_replaced(world: Path, tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "page.html"
    page.write_text("OLDPAGE")
    assert run("query", world / "study", *parts(world), "--report", page, capsys=capsys)[0] == 0
    assert "OLDPAGE" not in page.read_text()


def test_a_study_without_an_answer_replaces_the_page_by_its_reasons(
    world: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("not DICOM")
    page = tmp_path / "page.html"
    page.write_text("OLDPAGE")
    code, _, err = run("query", tmp_path / "study", *parts(world), "--report", page, capsys=capsys)
    assert code == 3
    assert "page written: page.html" in err
    text = page.read_text()
    assert "OLDPAGE" not in text
    assert "No study was answered" in text
    assert "not-dicom" in text


@pytest.mark.parametrize("has_older", [False, True])
def test_a_query_that_ends_early_tells_of_the_older_page(
    world: Path, tmp_path: Path, has_older: bool, capsys: Captured
) -> None:
    page = tmp_path / "page.html"
    if has_older:
        page.write_text("OLDPAGE")
    for asked in (
        ("query", world / "study", *parts(world), "--timeout", "0.000001"),
        ("query", world / "study", "--bundle", world / "bundle", "--index", world / "archive"),
        ("query", tmp_path / "absent", *parts(world)),
    ):
        code, _, err = run(*asked, "--report", page, capsys=capsys)
        assert code > 1
        told = "no page written: page.html is an older one, not of this query"
        assert (told in err) == has_older
        assert page.exists() == has_older
