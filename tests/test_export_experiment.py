"""Experiments: settings that refuse what is wrong, resume after kills, leaks that end the run."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from export.dataset import load_slice_set  # noqa: E402
from export.experiment import load_settings, run  # noqa: E402
from export.experiment.settings import BUILT_IN, find_experiment  # noqa: E402
from export.leaks import LeakError  # noqa: E402
from export.systems import SYSTEMS  # noqa: E402
from export.train import split_and_train  # noqa: E402
from ildsdk.errors import ConfigError  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
TINY = """
name = "tiny"
systems = ["alexnet", "omic"]
[data]
cases_per_label = 2
seed = 11
size = 128
[method]
input_size = 64
[folds]
n_folds = 2
[training]
precision = "float32"
schedule = [[64, 2]]
batch_size = 8
fusion_epochs = 2
fusion_per_class = 2
fusion_views = 1
embedding_size = 16
n_threads = 1
[report]
n_bootstrap = 50
"""


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def whole_run(tiny_file, tmp_path_factory) -> Path:
    """An uninterrupted run, in a process of its own as users run it."""
    work = tmp_path_factory.mktemp("whole")
    finished = _start(tiny_file, work).wait(timeout=600)
    assert finished == 0
    return work


def _start(settings: Path, work: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "export", "experiment", str(settings)]
    return subprocess.Popen(
        [*command, "--work", str(work), "--processes", "1"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _results(work: Path) -> dict[str, str]:
    return {
        str(path.relative_to(work).parent): json.loads(path.read_text())["vectors_sha256"]
        for path in sorted(work.glob("fold-*/*/result.json"))
    }


def test_a_run_leaves_vectors_of_every_system_and_fold(whole_run) -> None:
    names = {f"fold-{fold}/{name}" for fold in (0, 1) for name in ("alexnet", "omic")}
    assert set(_results(whole_run)) == names
    slices = load_slice_set(whole_run / "prepared")
    for name in names:
        vectors = np.load(whole_run / name / "vectors.npy")
        assert vectors.shape[0] == len(slices)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    tested = [
        case
        for fold in json.loads((whole_run / "folds.json").read_text())["folds"]
        for case in fold["test_cases"]
    ]
    assert sorted(tested) == sorted(set(slices.case_ids))


def test_report_of_a_run_says_phantom_and_how_it_was_made(whole_run) -> None:
    text = (whole_run / "report" / "report.md").read_text()
    assert "PHANTOM" in text
    assert "export experiment" in text
    for name in ("alexnet", "omic"):
        assert SYSTEMS[name].title in text


@pytest.mark.slow
def test_killed_anywhere_and_started_again_gives_the_same_vectors(tmp_path) -> None:
    """SIGKILL at random moments of a run with both stages; the last run is left to finish."""
    path = tmp_path / "both-stages.toml"
    path.write_text(TINY.replace('"omic"]', '"omic", "resnet50-scl", "ild-ffn-scl"]'))
    assert _start(path, tmp_path / "whole").wait(timeout=900) == 0
    work = tmp_path / "killed"
    rng = np.random.default_rng(0)
    n_kills = 0
    while True:
        process = _start(path, work)
        try:
            # Long enough for at least one more epoch each time, so that it ends.
            status = process.wait(timeout=float(rng.uniform(12, 30)) if n_kills < 12 else 900)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            n_kills += 1
            continue
        assert status == 0
        break
    assert n_kills >= 2
    assert _results(work) == _results(tmp_path / "whole")
    print(f"{n_kills} kills, {len(_results(work))} results equal")


def test_one_slice_on_both_sides_ends_the_run(whole_run, tiny_file, tmp_path) -> None:
    slices = load_slice_set(whole_run / "prepared")
    settings = load_settings(tiny_file)
    test_cases, other_cases = run.checked_folds(slices, settings)  # the honest set passes
    source, copy = slices.rows_of(test_cases[:1])[0], slices.rows_of(other_cases[:1])[0]
    images, hashes = np.array(slices.images), np.array(slices.perceptual_hashes)
    images[copy], hashes[copy] = images[source], hashes[source]
    leaking = dataclasses.replace(slices, images=images, perceptual_hashes=hashes)
    with pytest.raises(LeakError, match=test_cases[0]):
        run.checked_folds(leaking, settings)
    with pytest.raises(LeakError, match=test_cases[0]):
        split_and_train(leaking, tmp_path, settings.training, held_out_cases=tuple(test_cases))
    assert not any(tmp_path.iterdir())


def test_results_of_other_folds_are_not_taken_over(whole_run, tiny_file, tmp_path) -> None:
    work = tmp_path / "copy"
    shutil.copytree(whole_run, work)
    settings = load_settings(tiny_file)
    slices = load_slice_set(work / "prepared")
    folds = run.checked_folds(slices, settings)
    arguments = {"fold": 0, "say": lambda line: None, "show_progress": False}
    run.run_system(work / "fold-0", slices, folds[0], SYSTEMS["omic"], settings, **arguments)
    with pytest.raises(ConfigError, match="fold-0/omic was trained on other data or folds"):
        run.run_system(work / "fold-0", slices, folds[1], SYSTEMS["omic"], settings, **arguments)


def test_other_settings_in_a_begun_folder_are_refused(whole_run, tmp_path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(TINY.replace("seed = 11", "seed = 12"))
    with pytest.raises(ConfigError, match=r"other settings \(data\)"):
        run.run_experiment(load_settings(path), whole_run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name =", "nam ="), "unknown setting 'nam'"),
        (('"omic"', '"omics"'), "system 'omics' is unknown"),
        (("cases_per_label = 2", "cases_per_label = 1"), "cases_per_label is 1"),
        (("cases_per_label", "cases_per_lable"), "did you mean 'cases_per_label'"),
        (("input_size = 64", "input_size = 1"), "input_size is 1"),
        (("n_folds = 2", "n_folds = 1"), "n_folds is 1"),
        (("[report]", "[training.resnet]\n[report]"), r"\[training.resnet\] names no system"),
        (("[data]", '[data]\nsource = "dicom"'), "data.source is 'dicom'"),
        (("[data]", "[data"), "is not TOML"),
        (("n_bootstrap = 50", "n_bootstrap = 0"), "n_bootstrap is 0"),
        (("n_bootstrap = 50", "top_n = 3"), "top_n is 3"),
        (
            ('"omic"]', '"resnet50", "ild-ffn-scl"]\n[training.ild-ffn-scl]\nbatch_size = 4'),
            "share resnet50, but differ in batch_size",
        ),
        (
            ("[report]", '[initial_weights]\nresnet = "x"\n[report]'),
            "initial_weights.resnet is unk",
        ),
        (("[report]", '[initial_weights]\nresnet50 = "x"\n[report]'), "there is no file 'x'"),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path, change, message) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(TINY.replace(*change, 1))
    with pytest.raises(ConfigError, match=message):
        load_settings(path)


def test_built_in_experiments_are_readable_and_compare_all_six() -> None:
    paths = sorted(BUILT_IN.glob("*.toml"))
    assert [path.name for path in paths] == ["paper.toml", "small.toml"]
    for path in paths:
        settings = load_settings(find_experiment(path.name))
        assert settings.systems == tuple(SYSTEMS)
        assert settings.folds.n_folds == 5
        assert settings.is_synthetic
    with pytest.raises(ConfigError, match=r"paper.toml, small.toml"):
        find_experiment("large.toml")


def test_paper_experiment_holds_the_papers_hyper_parameters() -> None:
    settings = load_settings(BUILT_IN / "paper.toml")
    training = settings.training_for("ild-ffn-scl")
    assert settings.method.input_size == 512
    assert (training.batch_size, training.fusion_per_class) == (8, 2)
    assert (training.optimizer, training.learning_rate, training.weight_decay) == (
        "adam",
        1e-4,
        1e-6,
    )
    assert training.schedule == ((512, 100),)
    assert (training.fusion_learning_rate, training.fusion_weight_decay) == (1e-4, 1e-6)
    assert (training.fusion_epochs, training.margin, training.partners) == (100, 0.7, "set")
    assert settings.data.cases_per_label == 20


def test_a_systems_own_training_settings_change_only_what_they_name(tmp_path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TINY.replace("[report]", "[training.alexnet]\nbatch_size = 4\n[report]"))
    settings = load_settings(path)
    assert settings.training_for("alexnet").batch_size == 4
    assert settings.training_for("alexnet").fusion_epochs == 2
    assert settings.training_for("omic").batch_size == 8


def test_an_archive_path_counts_from_the_file(tmp_path) -> None:
    path = tmp_path / "archive.toml"
    data = 'source = "archive"\ncases_csv = "mine/cases.csv"\n'
    path.write_text(TINY.replace("cases_per_label = 2\nseed = 11\nsize = 128\n", data))
    settings = load_settings(path)
    assert settings.data.cases_csv == str(tmp_path.resolve() / "mine" / "cases.csv")
    assert not settings.is_synthetic
