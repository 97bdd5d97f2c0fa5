"""``ildsdk index`` commands that keep, list, export, import and merge."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ildsdk import cli
from ildsdk.index import Index, verify_index
from tests.index_factory import SALT, add_items, make_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Calibrated index of 19 items of 4 cases in two segments."""
    with make_index(tmp_path / "index", 12, 7) as index:
        index.set_calibration(0.25, "by hand")
    return tmp_path / "index"


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command, in this process."""
    code = 0
    try:
        cli.main(["index", *map(str, arguments)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, ildsdk.cli\n"
        "try:\n    ildsdk.cli.main(['index', 'merge', '--help'])\nexcept SystemExit: pass\n"
        "print([n for n in ('numpy', 'numba', 'pyarrow', 'pydicom') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_list_as_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("list", folder, capsys=capsys)
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 19
    assert rows[6]["item_id"] == "1.2.3.6"
    assert rows[6]["site"] == "north"
    assert rows[6]["position_mm"] == ""
    assert "patient_key" not in rows[0]
    assert rows[0]["added_on"].startswith("20")


def test_list_as_json_lines_with_filters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        "list", folder, "--format", "jsonl", "--label", "IPF-ILD", "--label", "Normal",
        "--site", "north", "--case", "case-3", capsys=capsys,
    )  # fmt: skip
    assert code == 0
    items = [json.loads(line) for line in out.splitlines()]
    assert [item["item_id"] for item in items] == [f"1.2.3.{i}" for i in range(15, 19)]
    assert items[0]["label"] == "Normal"
    assert items[0]["position_mm"] is None
    assert items[1]["position_mm"] == 16


def test_list_of_the_embedded_index(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("list", capsys=capsys)
    assert code == 0
    assert len(out.splitlines()) > 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--label", "IPF"], "did you mean 'IPF-ILD'"),
        (["--added-until", "2001-01-01"], "no item of the index has been added until 2001"),
        (["--added-from", "2002-01-01", "--added-until", "2001-01-01"], "is after"),
        (["--added-from", "yesterday"], "does not match the format"),
    ],
)
def test_wrong_filters_are_options_at_fault(
    folder: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run("list", folder, *arguments, capsys=capsys)
    assert (code, out) == (2, "")
    assert told in err


def test_a_reader_that_goes_away_is_no_defect(folder: Path) -> None:
    command = f"{sys.executable} -m ildsdk index list {folder} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("item_id,")
    assert "defect" not in done.stderr


def test_remove_says_what_and_compact_drops_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ("--case", "case-0", "--item", "1.2.3.7")
    before = verify_index(folder)
    code, out, _ = run("remove", folder, *named, "--dry-run", capsys=capsys)
    assert (code, out) == (0, "6 items would be removed, 13 be left; nothing was changed\n")
    with Index.open(folder) as index:
        assert len(index) == 19
    assert verify_index(folder) == before
    code, out, err = run("remove", folder, *named, capsys=capsys)
    assert (code, out) == (0, "6 items removed, 13 left\n")
    assert "until `ildsdk index compact`" in err
    assert "the one measured before" in err
    with Index.open(folder) as index:
        assert len(index) == 13
    code, out, _ = run("compact", folder, capsys=capsys)
    assert code == 0
    assert "6 removed items dropped" in out
    with Index.open(folder) as index:
        assert index.n_rows == 13
        assert index.verify() == []


def test_remove_of_something_unknown_removes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run("remove", folder, "--case", "case-0", "--item", "nine", capsys=capsys)
    assert code == 3
    assert "nothing was removed" in err
    code, out, err = run(
        "remove", folder, "--case", "case-0", "--item", "nine", "--dry-run", capsys=capsys
    )
    assert (code, out) == (3, "")
    assert "1 items and 0 cases that were named are not in the index" in err
    assert run("remove", folder, capsys=capsys)[0] == 2
    with Index.open(folder) as index:
        assert len(index) == 19


def test_repair(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("repair", folder, capsys=capsys)
    assert (code, err) == (0, "")
    assert out == "nothing to repair\n19 items in the index, 0 lost\n"
    (folder / "manifest.json").write_bytes(b"{")
    assert run("verify", folder, capsys=capsys)[0] == 5
    code, out, _ = run("repair", folder, capsys=capsys)
    assert code == 0
    assert "repaired: manifest.json: restored from its copy" in out
    assert run("verify", folder, capsys=capsys)[0] == 0


def test_what_a_repair_put_aside_is_named_by_every_command_that_looks(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "items-000003.sqlite").unlink()
    told = "damaged-000005 inside the index holds damaged files that a repair put aside"
    for command in ("repair", "verify", "compact", "repair"):
        code, out, err = run(command, folder, capsys=capsys)
        assert code == 0
        assert told in err
        assert "damaged-" not in out
    code, out, _ = run("info", folder, capsys=capsys)
    assert json.loads(out)["kept_aside"]["damaged-000005"] > 0
    shutil.rmtree(folder / "damaged-000005")
    assert run("verify", folder, capsys=capsys)[2] == ""


def test_compact_into_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("compact", folder, "--into-one", capsys=capsys)
    assert code == 0
    assert "2 segments are 1 now" in out
    assert run("verify", folder, capsys=capsys)[0] == 0


def test_calibrate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("remove", folder, "--case", "case-0", capsys=capsys)
    code, out, err = run("calibrate", folder, capsys=capsys)
    assert code == 0
    with Index.open(folder) as index:
        assert index.no_match_threshold not in (None, 0.25)
        assert f"{index.no_match_threshold:.4f} (percentile" in out
    assert "too small for it (3 cases, expected at least 20; 14 slices, expected" in err
    assert "3 of 3 diagnoses with a single case" in err
    assert (
        "too small for it" in json.loads(run("info", folder, capsys=capsys)[1])["threshold_caution"]
    )


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
def test_export_and_import(
    folder: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"out{ending}"
    code, out, err = run("export", folder, file, "--with-patient-keys", capsys=capsys)
    assert (code, out) == (0, f"19 items written to out{ending}\n")
    assert "keep it as safe as the index" in err
    code, out, err = run("import", file, tmp_path / "copy", "--name", "moved", capsys=capsys)
    assert (code, out, err) == (0, "19 items of 4 cases imported into copy\n", "")
    with Index.open(tmp_path / "copy") as copy:
        assert copy.name == "moved"
        assert copy.salt == SALT
    code, _, err = run("export", folder, file, capsys=capsys)
    assert code == 2
    assert "exists already" in err
    file.unlink()
    code, _, err = run("export", folder, file, capsys=capsys)
    assert code == 0
    assert "recognized by study and case only" in err
    code, _, err = run("import", file, tmp_path / "plain", capsys=capsys)
    assert code == 0
    assert "recognized by study and case only" in err
    file.write_bytes(file.read_bytes()[:-100])
    code, _, err = run("import", file, tmp_path / "broken", capsys=capsys)
    assert code == 3
    assert str(tmp_path) not in err
    assert not (tmp_path / "broken").exists()


def test_merge(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with make_index(tmp_path / "more") as more:
        add_items(more, 15, 10)
    code, _, err = run("merge", tmp_path / "merged", folder, tmp_path / "more", capsys=capsys)
    assert code == 3
    assert "--on-duplicate skip" in err
    code, out, err = run(
        "merge", tmp_path / "merged", folder, tmp_path / "more", "--on-duplicate", "skip",
        capsys=capsys,
    )  # fmt: skip
    assert code == 0
    assert out == (
        "25 items of 5 cases from 2 indexes merged into merged; 4 items skipped, 1 cases joined\n"
    )
    assert "run `ildsdk index calibrate`" in err
    assert "PatientID" not in err
    for arguments in ([], ["--case-prefix", "a", tmp_path / "more"]):
        code, _, err = run("merge", tmp_path / "other", folder, *arguments, capsys=capsys)
        assert code == 2, err


def test_merge_of_different_salts_speaks_up(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Index.create(
        tmp_path / "other", name="o", bundle_hash="b" * 64, embedding_size=16, is_synthetic=True
    )
    with other:
        add_items(other, 20, 5)
    code, _, err = run("merge", tmp_path / "merged", folder, tmp_path / "other", capsys=capsys)
    assert code == 2
    assert "--drop-patient-keys" in err
    code, _, err = run(
        "merge", tmp_path / "merged", folder, tmp_path / "other", "--drop-patient-keys",
        capsys=capsys,
    )  # fmt: skip
    assert code == 0
    assert "recognized by study and case only" in err
