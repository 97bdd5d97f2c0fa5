"""The command line as users meet it: in processes of its own where that matters."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ildsdk import cli
from tests.bundle_factory import write_tiny_bundle
from tests.world_factory import write_world

HEAVY = ("numba", "onnxruntime", "pydicom", "SimpleITK", "torch", "scipy", "numpy", "jinja2", "PIL")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("cli"))


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command, in this process."""
    code = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def parts(world: Path) -> tuple[object, ...]:
    return ("--bundle", world / "bundle", "--index", world / "index", "--provider", "cpu")


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, ildsdk, ildsdk.cli\n"
        "try:\n    ildsdk.cli.main(['query', '--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_help_costs_little_more_than_click_itself() -> None:
    def least_seconds(*arguments: str) -> float:
        seconds = []
        for _ in range(7):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    # Absolute limits fail on a busy machine; both sides suffer alike here.
    assert least_seconds("-m", "ildsdk", "--help") < 3.5 * least_seconds("-c", "import click")


def test_json_alone_on_stdout(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("query", world / "study", *parts(world), "--format", "json", capsys=capsys)
    assert code == 0, err
    answer = json.loads(out)
    assert answer["schema"] == "ildsdk.query/1"
    assert answer["studies"][0]["cases"][0]["rank"] == 1


def test_table_and_page(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "answer.html"
    code, out, err = run("query", world / "study", *parts(world), "--report", page, capsys=capsys)
    assert code == 0, err
    assert "PHANTOM-" in out
    assert "Not a medical device" in " ".join(out.split())
    assert "Not a medical device" in page.read_text()


def test_embed(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        "embed", world / "study", "--bundle", world / "bundle", "--provider", "cpu", capsys=capsys
    )
    assert code == 0
    slices = json.loads(out)["slices"]
    assert len(slices) == 4
    assert sum(value**2 for value in slices[0]["embedding"]) == pytest.approx(1, abs=1e-4)


def test_index_build_add_info_verify(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = ("--bundle", world / "bundle", "--provider", "cpu")
    target = tmp_path / "index"
    code, out, err = run(
        "index", "build", target, "--cases", world / "archive" / "cases.csv", *bundle, capsys=capsys
    )
    assert code == 0, err
    assert "16 slices of 4 cases" in out
    more = tmp_path / "more.csv"
    more.write_text(f"path,case_id,label\n{world / 'study'},NEW-1,IPF-ILD\n")
    code, out, err = run("index", "add", target, "--cases", more, *bundle, capsys=capsys)
    assert code == 0, err
    code, out, _ = run("index", "info", target, capsys=capsys)
    info = json.loads(out)
    assert info["n_items"] == 20
    assert info["n_cases"] == 5
    code, out, _ = run("index", "verify", target, capsys=capsys)
    assert code == 0
    assert "intact" in out
    code, _, err = run("index", "add", target, "--cases", more, *bundle, capsys=capsys)
    assert code == 3  # its slices are there already
    victim = max(target.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    code, _, err = run("index", "verify", target, capsys=capsys)
    assert code == 5, err


def test_bundle_info_and_verify(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run("bundle", "info", world / "bundle", capsys=capsys)
    assert json.loads(out)["name"] == "tiny"
    assert json.loads(out)["has_maps"] is False
    code, out, _ = run("bundle", "verify", world / "bundle", capsys=capsys)
    assert code == 0
    code, _, err = run("bundle", "verify", tmp_path, capsys=capsys)
    assert code == 4
    assert "not a model bundle" in err


def test_bundle_card(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("bundle", "card", world / "bundle", capsys=capsys)
    assert (code, out) == (2, "")
    assert "has no model card" in err
    write_tiny_bundle(tmp_path / "full", with_maps=True, model_card="# Card\n\x1b[31mred\n")
    code, out, _ = run("bundle", "card", tmp_path / "full", capsys=capsys)
    assert (code, out) == (0, "# Card\n?[31mred\n")
    info = json.loads(run("bundle", "info", tmp_path / "full", capsys=capsys)[1])
    assert info["has_maps"]
    assert info["has_model_card"]
    assert "explain.onnx" in info["files_bytes"]
    assert run("bundle", "verify", tmp_path / "full", capsys=capsys)[0] == 0


def test_exit_codes(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    code, out, err = run("query", tmp_path, *parts(world), "--format", "json", capsys=capsys)
    assert code == 3
    refused = json.loads(out)
    assert refused["studies"] == []
    assert [item["reason"] for item in refused["skipped"]] == ["not-dicom"]
    assert "notes.txt: not-dicom" in err
    assert run("query", "absent", *parts(world), capsys=capsys)[0] == 2
    assert run("query", world / "study", "--top-n", "0", capsys=capsys)[0] == 2
    code, _, err = run("query", world / "study", *parts(world), "--series", "1.2.3", capsys=capsys)
    assert code == 2
    code, _, err = run(
        "query", world / "study", *parts(world), "--report", tmp_path / "no" / "page.html",
        capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert "does not exist" in err
    code, _, err = run(
        "query", world / "study", "--index", tmp_path, "--bundle", world / "bundle", capsys=capsys
    )
    assert code == 5


def test_a_defect_is_exit_1_without_the_message(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("Doe^John")

    monkeypatch.setattr("ildsdk.retriever.Retriever.open", broken)
    code, _, err = run("query", world / "study", capsys=capsys)
    assert code == 1
    assert "KeyError" in err
    assert "Doe" not in err


def test_doctor_finds_this_installation_well(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("doctor", "--format", "json", capsys=capsys)
    checks = json.loads(out)
    assert [check for check in checks if check["status"] == "failed"] == []
    assert code == 0
    assert {"provider", "kernels", "decoder", "data", "answer"} <= {c["area"] for c in checks}


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("demo", "--out", tmp_path / "demo", "--format", "json", capsys=capsys)
    assert code == 0, err
    answer = json.loads(out)
    assert answer["provenance"]["is_synthetic"]
    assert len(answer["studies"][0]["slices"]) >= 10
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000


def test_index_of_own_cases_is_not_called_synthetic(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run("query", world / "study", *parts(world), "--format", "json", capsys=capsys)
    made = json.loads(out)["provenance"]
    assert not made["is_synthetic"]
    assert made["model_is_synthetic"]
    assert "trained on SYNTHETIC" in made["notice"]
    assert "cases are SYNTHETIC" not in made["notice"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("completion", shell, capsys=capsys)
    assert code == 0
    assert "_ILDSDK_COMPLETE" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from ildsdk import __version__

    assert __version__ in run("--version", capsys=capsys)[1]
