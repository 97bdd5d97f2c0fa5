"""The main job end to end, on a tiny bundle and a small phantom archive."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ildsdk import (
    ConfigError,
    IndexFileError,
    InputError,
    NoUsableSliceError,
    QuerySettings,
    Retriever,
    SliceUnusableError,
)
from ildsdk.bundle import Bundle
from ildsdk.index import Index
from ildsdk.ingest import CaseRow, add_cases, build_index, read_cases_csv
from ildsdk.settings import RuntimeSettings
from tests.archive_factory import PLANTED_ID, PLANTED_NAME, write_query_study, write_small_archive
from tests.bundle_factory import write_tiny_bundle

CPU = RuntimeSettings(provider="cpu")


def soft_tissue_disk() -> np.ndarray:
    """A body without lungs in air."""
    rows, columns = np.mgrid[-256:256, -256:256]
    return np.where(rows**2 + columns**2 < 200**2, 40.0, -1000.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with bundle, archive, index and a query study."""
    folder = tmp_path_factory.mktemp("world")
    bundle = write_tiny_bundle(folder / "bundle")
    table = write_small_archive(folder / "archive", ("IPF-ILD", "Normal"), 3)
    build_index(folder / "index", read_cases_csv(table), bundle, settings=CPU)
    write_query_study(folder / "study")
    return folder


@pytest.fixture(scope="module")
def retriever(world: Path) -> Retriever:
    with Retriever.open(world / "bundle", world / "index", provider="cpu") as opened:
        yield opened


def test_answers_have_their_parts(world: Path, retriever: Retriever) -> None:
    result = retriever.query(world / "study", QuerySettings(top_n=3), with_pictures=True)
    (study,) = result.studies
    used = {answer.source for answer in study.slices}
    listed = {item.source for item in (*study.skipped, *result.skipped)}
    files = {path.name for path in (world / "study").iterdir()}
    assert used | listed == files
    assert not used & listed
    for answer in study.slices:
        assert len(answer.neighbors) == 3
        scores = [neighbor.score for neighbor in answer.neighbors]
        assert scores == sorted(scores, reverse=True)
        assert set(answer.timings_ms) == {
            "decode", "recognize", "mask", "radiomics", "model_input", "backbone", "fusion",
            "search",
        }  # fmt: skip
        assert answer.pictures is not None
        assert answer.pictures.outline.any()
        thumbnail = retriever.thumbnail(answer.neighbors[0].item_id)
        assert thumbnail is not None
        assert len(thumbnail) > 500
    assert {case.label for case in study.cases} <= {"IPF-ILD", "Normal"}
    assert sum(entry.share for entry in study.labels) == pytest.approx(1)
    assert sum(entry.prevalence for entry in study.labels) == pytest.approx(1)
    assert result.provenance.provider == "cpu"
    assert (result.provenance.precision, retriever.precision) == ("fp32", "fp32")
    assert "Not a medical device" in result.provenance.notice
    assert "SYNTHETIC" in result.provenance.notice
    assert json.loads(result.to_json())["schema"] == "ildsdk.query/1"


def test_neighbors_equal_a_plain_numpy_search(world: Path, retriever: Retriever) -> None:
    result = retriever.query(world / "study", QuerySettings(top_n=5))
    embeddings = retriever.embed(world / "study").slices
    matrix = np.asarray(retriever.index.embeddings(np.arange(len(retriever.index))), np.float64)
    for answer, embedded in zip(result.studies[0].slices, embeddings, strict=True):
        expected = np.sort(matrix @ embedded.embedding)[::-1][:5]
        found = [neighbor.score for neighbor in answer.neighbors]
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_own_patient_is_left_out(world: Path, retriever: Retriever) -> None:
    own = world / "archive" / "PHANTOM-IPF-0000"
    (study,) = retriever.query(own).studies
    assert study.n_excluded_items == len(study.slices)
    assert all(case.case_id != "PHANTOM-IPF-0000" for case in study.cases)
    (study,) = retriever.query(own, QuerySettings(exclude_same_patient=False)).studies
    assert study.n_excluded_items == 0
    for answer in study.slices:
        assert answer.neighbors[0].case_id == "PHANTOM-IPF-0000"
        assert answer.neighbors[0].score == pytest.approx(1, abs=1e-5)
        assert answer.neighbors[0].sop_instance_uid == answer.sop_instance_uid


def test_array_door_gives_the_same_embedding(world: Path, retriever: Retriever) -> None:
    embedded = retriever.embed(world / "study").slices[0]
    dataset = pydicom.dcmread(world / "study" / embedded.source)
    pixels = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    spacing = tuple(float(value) for value in dataset.PixelSpacing)
    again = retriever.embed_slice(pixels, spacing)
    np.testing.assert_allclose(again, embedded.embedding, atol=1e-5)
    assert retriever.search(again, QuerySettings(top_n=2))[0].rank == 1


@pytest.mark.parametrize(
    ("pixels", "spacing", "error"),
    [
        (np.zeros((512, 512)), (0.7, 0.7), SliceUnusableError),
        (np.full((512, 512), np.nan), (0.7, 0.7), InputError),
        (np.zeros((3, 512, 512)), (0.7, 0.7), InputError),
        (np.linspace(0, 1, 512 * 512).reshape(512, 512), (0.7, 0.7), SliceUnusableError),
        (np.linspace(-1000, 60, 512 * 512).reshape(512, 512), (0.7,), ConfigError),
        (np.linspace(-1000, 60, 512 * 512).reshape(512, 512), (70, 70), InputError),
        (soft_tissue_disk(), (0.7, 0.7), SliceUnusableError),
    ],
)
def test_array_door_refuses(
    retriever: Retriever, pixels: np.ndarray, spacing: tuple[float, float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        retriever.embed_slice(pixels, spacing)


def test_threads_give_the_serial_answer(world: Path, retriever: Retriever) -> None:
    expected = retriever.query(world / "study").studies[0].cases
    answers: list[object] = []

    def work() -> None:
        answers.append(retriever.query(world / "study").studies[0].cases)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 4


def test_thread_budget_does_not_change_the_answer(world: Path, retriever: Retriever) -> None:
    with Retriever.open(world / "bundle", world / "index", provider="cpu", n_threads=1) as single:
        first = single.query(world / "study").studies[0]
    second = retriever.query(world / "study").studies[0]
    assert [case.case_id for case in first.cases] == [case.case_id for case in second.cases]


def test_damaged_file_skips_its_slice_only(
    world: Path, retriever: Retriever, tmp_path: Path
) -> None:
    write_query_study(tmp_path / "study")
    victim = sorted((tmp_path / "study").iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:-20000])
    (tmp_path / "study" / "notes.txt").write_text("not DICOM")
    result = retriever.query(tmp_path / "study")
    reasons = {item.source: item.reason for item in (*result.studies[0].skipped, *result.skipped)}
    assert victim.name in reasons
    assert "notes.txt" in reasons
    assert len(result.studies[0].slices) == 3


def test_nothing_usable_is_an_error_with_reasons(retriever: Retriever, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not DICOM")
    with pytest.raises(NoUsableSliceError, match=r"not-dicom: 1") as caught:
        retriever.query(tmp_path)
    assert caught.value.skipped[0].source == "notes.txt"


def test_index_of_another_bundle_is_refused(world: Path, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "other", seed=5)
    with pytest.raises(IndexFileError, match="bundle"):
        Retriever.open(tmp_path / "other", world / "index", provider="cpu")


def test_threshold_makes_no_similar_case(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "index", tmp_path / "index")
    with Index.open(tmp_path / "index") as index:
        index.set_calibration(1.0, "test")
    with Retriever.open(world / "bundle", tmp_path / "index", provider="cpu") as strict:
        (study,) = strict.query(world / "study").studies
    assert study.no_similar_case
    assert study.suggested_label is None
    assert all(answer.no_similar_case for answer in study.slices)
    assert study.slices[0].neighbors  # still shown


def test_planted_identity_is_nowhere(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from ildsdk.cli import main

    def run(*arguments: object) -> None:
        with contextlib.suppress(SystemExit):
            main([str(argument) for argument in arguments])

    folder = tmp_path / "ZZYZXPLANTED_PATIENT" / PLANTED_ID
    write_query_study(folder)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = PLANTED_ID
        dataset.PatientBirthDate = "19231117"
        dataset.save_as(path)
    damaged = folder / f"{PLANTED_ID}-damaged.dcm"
    damaged.write_bytes(next(folder.iterdir()).read_bytes()[:-30000])
    table = tmp_path / "cases.csv"
    table.write_text(f"path,case_id,label\n{folder},CASE-1,IPF-ILD\n")
    bundle = ("--bundle", world / "bundle", "--provider", "cpu")
    own = tmp_path / "index"
    run("index", "build", own, "--cases", table, *bundle)
    run("index", "info", own)
    page = tmp_path / "page.html"
    study = tmp_path / "ZZYZXPLANTED_PATIENT"
    run("query", study, "--index", world / "index", *bundle, "--report", page)
    run("query", study, "--index", own, *bundle, "--format", "json")
    run("embed", study, *bundle)
    run("query", damaged, "--index", own, *bundle)
    run("query", study / "absent", "--index", own, *bundle)
    run("query", study, "--index", own, *bundle, "--series", "1.2.3")
    captured = capfd.readouterr()
    assert "CASE-1" in captured.out + captured.err  # it did run
    texts = [captured.out, captured.err, page.read_text()]
    assert (own / "items-000002.sqlite").exists()
    texts += [path.read_bytes().decode("latin-1") for path in own.iterdir()]
    for text in texts:
        for secret in ("ZZYZXPLANTED", PLANTED_NAME, PLANTED_ID, "19231117", str(tmp_path)):
            assert secret.lower() not in text.lower(), secret


def test_a_case_is_left_out_whole(world: Path, tmp_path: Path) -> None:
    """Another study of the same case answers nothing, though its PatientID is missing."""
    second = tmp_path / "second"
    write_query_study(second, "IPF-ILD", seed=7)
    for path in second.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = ""
        dataset.save_as(path)
    first = world / "archive" / "PHANTOM-IPF-0000"
    cases = [
        CaseRow(path=first, case_id="ONE", label="IPF-ILD"),
        CaseRow(path=second, case_id="ONE", label="IPF-ILD"),
        CaseRow(path=world / "archive" / "PHANTOM-IPF-0001", case_id="TWO", label="IPF-ILD"),
    ]
    build_index(tmp_path / "index", cases, Bundle.open(world / "bundle"), settings=CPU)
    with Retriever.open(world / "bundle", tmp_path / "index", provider="cpu") as opened:
        (study,) = opened.query(first).studies
    assert study.n_excluded_items == 8
    assert {case.case_id for case in study.cases} == {"TWO"}


def test_own_patient_alone_in_the_index_is_said_so(world: Path, tmp_path: Path) -> None:
    from ildsdk.reports.text import format_table

    own = world / "archive" / "PHANTOM-IPF-0000"
    cases = [CaseRow(path=own, case_id="ONE", label="IPF-ILD")]
    build_index(tmp_path / "index", cases, Bundle.open(world / "bundle"), settings=CPU)
    with Retriever.open(world / "bundle", tmp_path / "index", provider="cpu") as opened:
        result = opened.query(own)
    assert result.studies[0].cases == ()
    assert result.studies[0].suggested_label is None
    assert "own patient or study" in " ".join(format_table(result).split())


def test_case_ranking_equals_plain_numpy(world: Path, retriever: Retriever) -> None:
    (study,) = retriever.query(world / "study").studies
    embedded = np.stack([entry.embedding for entry in retriever.embed(world / "study").slices])
    rows = np.arange(len(retriever.index))
    case_ids = np.array([item.case_id for item in retriever.index.items(rows)])
    scores = embedded.astype(np.float64) @ retriever.index.embeddings(rows).T
    means = {case: scores[:, case_ids == case].max(axis=1).mean() for case in set(case_ids)}
    expected = sorted(means, key=lambda case: -means[case])
    assert [case.case_id for case in study.cases] == expected
    assert [case.score for case in study.cases] == pytest.approx(
        [means[case] for case in expected], abs=2e-6
    )


def test_one_patient_under_two_case_ids_is_refused(world: Path, tmp_path: Path) -> None:
    own = world / "archive" / "PHANTOM-IPF-0000"
    cases = [
        CaseRow(path=own / name, case_id=f"CASE-{number}", label="X")
        for number, name in enumerate(sorted(path.name for path in own.iterdir())[1:3])
    ]
    with pytest.raises(InputError, match="the same PatientID"):
        build_index(tmp_path / "index", cases, Bundle.open(world / "bundle"), settings=CPU)
    assert not any(tmp_path.iterdir())


def test_adding_with_another_bundle_is_refused(world: Path, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other", seed=5)
    cases = [CaseRow(path=world / "study", case_id="NEW", label="X")]
    with (
        Index.open(world / "index") as index,
        pytest.raises(IndexFileError, match="do not compare"),
    ):
        add_cases(index, cases, other, settings=CPU)


class TestCasesTable:
    def write(self, folder: Path, rows: list[tuple[str, ...]]) -> Path:
        table = folder / "cases.csv"
        with table.open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
        return table

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([("path", "case_id")], "expected path, case_id, label"),
            ([("path", "case_id", "label", "name")], "expected path, case_id, label"),
            ([("path", "case_id", "label")], "no rows"),
            ([("path", "case_id", "label"), ("a", "", "X")], "line 2: case_id is empty"),
            ([("path", "case_id", "label"), ("gone", "c", "X")], "does not exist"),
            ([("path", "case_id", "label"), (".", "c", "X"), (".", "c", "Y")], "two labels"),
        ],
    )
    def test_refuses(self, tmp_path: Path, rows: list[tuple[str, ...]], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            read_cases_csv(self.write(tmp_path, rows))

    def test_failed_build_leaves_nothing(self, world: Path, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        (empty / "notes.txt").write_text("no DICOM")
        table = self.write(tmp_path, [("path", "case_id", "label"), ("empty", "c", "X")])
        with pytest.raises(InputError, match="1 of 1 cases gave no usable slice"):
            build_index(
                tmp_path / "index",
                read_cases_csv(table),
                Bundle.open(world / "bundle"),
                settings=CPU,
            )
        assert {path.name for path in tmp_path.iterdir()} == {"empty", "cases.csv"}

    def test_two_patients_in_one_row(self, world: Path, tmp_path: Path) -> None:
        table = self.write(
            tmp_path, [("path", "case_id", "label"), (str(world / "archive"), "c", "X")]
        )
        with pytest.raises(InputError, match="6 patients"):
            build_index(
                tmp_path / "index",
                read_cases_csv(table),
                Bundle.open(world / "bundle"),
                settings=CPU,
            )


def test_slips_of_the_caller_are_named(retriever: Retriever, world: Path) -> None:
    for ask in (retriever.query, retriever.iter_query, retriever.embed):
        for study in (None, b"study", 3):
            with pytest.raises(TypeError, match=r"study is a .*, expected a path"):
                ask(study)
        with pytest.raises(TypeError, match=r"settings is a dict, expected ildsdk.QuerySettings"):
            ask(world / "study", {"top_n": 2})


def test_nothing_goes_on_after_close(world: Path) -> None:
    with Retriever.open(world / "bundle", world / "index", provider="cpu") as closed:
        pass
    pixels = np.full((128, 128), -500.0)
    for ask in (
        lambda: closed.query(world / "study"),
        lambda: closed.embed(world / "study"),
        lambda: closed.embed_slice(pixels, (0.7, 0.7)),
        lambda: closed.search(np.eye(16, dtype=np.float32)[0]),
    ):
        with pytest.raises(ValueError, match="closed"):
            ask()
