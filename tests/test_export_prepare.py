"""Preparation of a training set: same numbers as inference, resumable, skips reported."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tqdm", reason="the training side needs tqdm")
pytest.importorskip("torch", reason="the training side needs torch")

from click.testing import CliRunner

from export.cli import main
from export.dataset import load_slice_set
from export.perceptual_hash import perceptual_hashes
from export.prepare import (
    CaseSource,
    SourceSkip,
    SourceSlice,
    archive_sources,
    phantom_sources,
    prepare,
)
from ildsdk.errors import ConfigError, InputError
from ildsdk.lung import segment_lung
from ildsdk.model_input import model_input
from ildsdk.radiomics import RadiomicsExtractor
from ildsdk.settings import MethodSettings

METHOD = MethodSettings(input_size=64)
SPACING = (1.4, 1.4)


def chest(seed: int) -> np.ndarray:
    """A body with two lungs, float32 HU ``(256, 256)``."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:256, :256]
    pixels = np.full((256, 256), -1000.0)
    pixels[((rows - 128) / 80) ** 2 + ((columns - 128) / 110) ** 2 < 1] = 40
    for center in (80, 176):
        pixels[((rows - 128) / 58) ** 2 + ((columns - center) / 36) ** 2 < 1] = -850
    return (pixels + rng.normal(0, 25, pixels.shape)).astype(np.float32)


def read_case(seed: int, with_bad: bool = True):
    for i in range(2):
        yield SourceSlice(pixels_hu=chest(seed + i), pixel_spacing_mm=SPACING, position_mm=10.0 * i)
    if with_bad:
        yield SourceSkip(name="IM4", reason="localizer", detail="ImageType LOCALIZER")
        yield SourceSlice(
            pixels_hu=np.full((256, 256), 40, np.float32),
            pixel_spacing_mm=SPACING,
            position_mm=None,
        )


def read_nothing():
    return iter(())


def fail():
    raise AssertionError("read again")


def sources() -> list[CaseSource]:
    return [
        CaseSource(case_id=case_id, label=label, read=partial(read_case, seed))
        for case_id, label, seed in (("b/2", "Y", 20), ("a 1", "X", 10))
    ]


def test_prepared_slices_are_what_inference_computes(tmp_path) -> None:
    slices = prepare(sources(), tmp_path, METHOD, n_processes=1, show_progress=False)
    assert slices.case_ids == ("a 1", "a 1", "b/2", "b/2")
    assert slices.labels == ("X", "X", "Y", "Y")
    assert slices.position_mm == (0.0, 10.0, 0.0, 10.0)
    pixels = chest(11)
    lung = segment_lung(pixels, SPACING, min_area_mm2=METHOD.min_lung_area_mm2)
    expected = model_input(pixels, SPACING, lung.lung_mask, METHOD)
    np.testing.assert_allclose(slices.images[1], expected, atol=6e-4)  # float16 on disk
    features = RadiomicsExtractor(engine="fast").extract(pixels, lung.lung_mask, SPACING).values
    np.testing.assert_array_equal(slices.radiomics[1], features)
    with (tmp_path / "skipped.csv").open() as stream:
        skipped = list(csv.DictReader(stream))
    assert [(row["case_id"], row["name"]) for row in skipped[:2]] == [
        ("a 1", "IM4"),
        ("a 1", "slice 4"),
    ]
    assert skipped[0]["reason"] == "localizer"
    assert "lung" in skipped[1]["reason"]


def test_two_processes_give_the_same_set(tmp_path) -> None:
    first = prepare(sources(), tmp_path / "1", METHOD, n_processes=1, show_progress=False)
    second = prepare(sources(), tmp_path / "2", METHOD, n_processes=2, show_progress=False)
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.radiomics, second.radiomics)


def test_a_killed_run_goes_on_with_the_cases_left(tmp_path) -> None:
    whole = sources()
    broken = [whole[0], CaseSource(case_id="a 1", label="X", read=fail)]
    with pytest.raises(AssertionError, match="read again"):
        prepare(broken, tmp_path, METHOD, n_processes=1, show_progress=False)
    # Now the finished case must not be read again.
    resumed = [CaseSource(case_id="b/2", label="Y", read=fail), whole[1]]
    assert len(prepare(resumed, tmp_path, METHOD, n_processes=1, show_progress=False)) == 4


def test_refusals(tmp_path) -> None:
    with pytest.raises(ConfigError, match="twice"):
        prepare([sources()[0]] * 2, tmp_path, METHOD, n_processes=1, show_progress=False)
    empty = [CaseSource(case_id="e", label="X", read=read_nothing)]
    with pytest.raises(InputError, match="usable slice"):
        prepare(empty, tmp_path / "empty", METHOD, n_processes=1, show_progress=False)
    with pytest.raises(ConfigError, match="was begun with"):
        prepare(
            empty, tmp_path / "empty", MethodSettings(input_size=96), n_processes=1,
            show_progress=False,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="run `python -m export prepare`"):
        load_slice_set(tmp_path / "empty")


# ---------------------------------------------------------------- kills and resumption


def read_slowly(seed: int, folder: Path):
    """A case that stands still in its middle while a file ``stall`` lies in the folder."""
    first, second = read_case(seed, with_bad=False)
    yield first
    (folder / f"reading-{seed}").touch()
    while (folder / "stall").exists() and seed == 20:
        time.sleep(0.02)
    yield second


def slow_sources(folder: Path) -> list[CaseSource]:
    return [
        CaseSource(case_id=f"c{seed}", label="X", read=partial(read_slowly, seed, folder))
        for seed in (10, 20, 30)
    ]


PROGRAM = """
import sys
from pathlib import Path
from tests.test_export_prepare import METHOD, slow_sources
from export.prepare import prepare
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    prepare(slow_sources(folder), folder / "out", METHOD, n_processes=int(sys.argv[2]),
            show_progress=False)
"""


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed child of ours that nobody has waited for still has its number.
    return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="watches processes in /proc")
@pytest.mark.parametrize("n_processes", [1, 2])
def test_killed_in_the_middle_of_a_case_then_run_again(tmp_path, repo, n_processes) -> None:
    (tmp_path / "stall").touch()
    script = tmp_path / "run.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(repo)}
    run = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), str(n_processes)], env=environment
    )
    cases = tmp_path / "out" / "cases"
    n_before = 1 if n_processes == 1 else 2  # the other process goes on with the third case
    wait_for(lambda: (tmp_path / "reading-20").exists() and len(list(cases.glob("*.npz"))) ==
             n_before)  # fmt: skip
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.send_signal(signal.SIGKILL)
    run.wait()
    for child in children:  # no worker is left waiting for a parent that is gone
        wait_for(lambda child=child: not is_running(int(child)), 20)
    assert not (tmp_path / "out" / "table.json").exists()
    with pytest.raises(ConfigError, match="to the end first"):
        load_slice_set(tmp_path / "out")
    (tmp_path / "out" / "cases" / "left.npz.1.partial").touch()
    (tmp_path / "stall").unlink()
    (tmp_path / "reading-10").unlink()
    resumed = prepare(
        slow_sources(tmp_path), tmp_path / "out", METHOD, n_processes=1, show_progress=False
    )
    assert not (tmp_path / "reading-10").exists()  # was done, and not read again
    whole = prepare(
        slow_sources(tmp_path), tmp_path / "whole", METHOD, n_processes=1, show_progress=False
    )
    for name in ("images.npy", "radiomics.npy", "skipped.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert resumed.case_ids == whole.case_ids == ("c10", "c10", "c20", "c20", "c30", "c30")
    np.testing.assert_array_equal(resumed.perceptual_hashes, whole.perceptual_hashes)
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_damaged_case_file_is_made_again(tmp_path) -> None:
    first = prepare(sources(), tmp_path, METHOD, n_processes=1, show_progress=False)
    images = np.array(first.images)
    del first
    damaged = sorted((tmp_path / "cases").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (tmp_path / "table.json").unlink()
    again = prepare(sources(), tmp_path, METHOD, n_processes=1, show_progress=False)
    np.testing.assert_array_equal(again.images, images)


def test_complete_folder_is_opened_as_it_is(tmp_path) -> None:
    prepare(sources(), tmp_path, METHOD, n_processes=1, show_progress=False)
    for file in (tmp_path / "cases").iterdir():
        file.unlink()  # would be needed to join again
    said: list[str] = []
    assert len(prepare(sources(), tmp_path, METHOD, n_processes=1, show_progress=False,
                       say=said.append)) == 4  # fmt: skip
    assert said == ["complete already"]


def test_folder_that_grows_is_not_taken_for_complete(tmp_path) -> None:
    prepare(sources(), tmp_path, METHOD, n_processes=1, show_progress=False)
    more = [*sources(), CaseSource(case_id="z", label="Y", read=fail)]
    with pytest.raises(AssertionError, match="read again"):
        prepare(more, tmp_path, METHOD, n_processes=1, show_progress=False)
    with pytest.raises(ConfigError, match="to the end first"):
        load_slice_set(tmp_path)


def test_other_origin_or_label_is_noticed(tmp_path) -> None:
    def run(origin: str, label: str, seed: int):
        source = CaseSource(
            case_id="a", label=label, read=partial(read_case, seed, False), origin=origin
        )
        return prepare([source], tmp_path, METHOD, n_processes=1, show_progress=False)

    first = np.array(run("scan 1", "X", 10).radiomics)
    np.testing.assert_array_equal(run("scan 1", "X", 99).radiomics, first)  # not read again
    relabeled = run("scan 1", "Y", 99)
    assert relabeled.labels == ("Y", "Y")
    np.testing.assert_array_equal(relabeled.radiomics, first)
    assert not np.array_equal(run("scan 2", "Y", 99).radiomics, first)


def test_folder_of_an_older_version_is_refused(tmp_path) -> None:
    prepare(sources(), tmp_path, METHOD, n_processes=1, show_progress=False)
    table = json.loads((tmp_path / "table.json").read_text())
    table["schema"] = "export.dataset/1"
    (tmp_path / "table.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match=r"dataset/1.*run `python -m export prepare` again"):
        load_slice_set(tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    del settings["schema"]  # version 1 had none
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="another version"):
        prepare(sources(), tmp_path, METHOD, n_processes=1, show_progress=False)


# ---------------------------------------------------------------- identity and account


def read_identified(seed: int, patients: tuple[str, ...]):
    for patient, found in zip(patients, read_case(seed, with_bad=False), strict=True):
        yield SourceSlice(
            pixels_hu=found.pixels_hu, pixel_spacing_mm=found.pixel_spacing_mm,
            position_mm=found.position_mm, patient=patient, study=f"1.2.{seed}",
        )  # fmt: skip


def identified(case_id: str, seed: int, *patients: str) -> CaseSource:
    return CaseSource(
        case_id=case_id, label="X", read=partial(read_identified, seed, patients), origin="/secret"
    )


def test_patients_and_studies_are_kept_as_keys_of_this_folder_only(tmp_path) -> None:
    said: list[str] = []
    cases = [identified("a", 10, "MRN-1", "MRN-1"), identified("b", 20, "MRN-1", "MRN-1"),
             identified("c", 30, "MRN-2", "MRN-2")]  # fmt: skip
    first, second = (
        prepare(cases, tmp_path / name, METHOD, n_processes=1, show_progress=False,
                say=said.append)
        for name in ("1", "2")
    )  # fmt: skip
    assert first.patient_keys["a"] == first.patient_keys["b"] != first.patient_keys["c"]
    assert len(set(first.study_keys.values())) == 3
    assert first.patient_keys["a"] != second.patient_keys["a"]
    assert said.count("warning: cases a, b carry one PatientID; a patient is one case") == 2
    for path in (tmp_path / "1").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"MRN-" not in content
            assert "MRN-".encode("utf-32-le") not in content  # as numpy keeps text
            assert b"/secret" not in content
    np.testing.assert_array_equal(first.perceptual_hashes, perceptual_hashes(first.images))


def test_case_of_two_patients_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="case 'a' holds studies of two patients") as caught:
        prepare([identified("a", 10, "MRN-1", "MRN-2")], tmp_path, METHOD, n_processes=1,
                show_progress=False)  # fmt: skip
    assert "MRN" not in str(caught.value)


def test_account_of_what_was_skipped(tmp_path) -> None:
    said: list[str] = []
    cases = [
        *sources(),
        CaseSource(case_id="n", label="Y", read=read_nothing),
        CaseSource(case_id="w", label="Z", read=partial(read_case, 40, False)),
    ]
    prepare(cases, tmp_path, METHOD, n_processes=1, show_progress=False, say=said.append)
    table = json.loads((tmp_path / "table.json").read_text())
    lost = next(reason for reason in table["skipped"] if reason != "localizer")
    assert table["skipped"] == {"localizer": 2, lost: 2}
    # The localizer was never a slice; the slice without lung is lost: 1 of 3.
    assert table["classes"]["Y"] == {
        "n_cases": 2, "n_cases_without_slices": 1, "n_slices": 2, "n_lost": 1,
    }  # fmt: skip
    assert said[0] == f"skipped 4 (details in skipped.csv): localizer 2, {lost} 2"
    assert "Z: 2 slices of 1 cases, 0 lost" in said
    warnings = [line for line in said if line.startswith("warning")]
    assert len(warnings) == 3
    assert warnings[0].startswith("warning: X lost 1 of 3 slices, more than 30%")
    assert warnings[1] == "warning: 1 of 2 cases of Y gave no slice"
    again: list[str] = []
    prepare(cases, tmp_path / "lenient", METHOD, n_processes=1, show_progress=False,
            warn_above=0.5, say=again.append)  # fmt: skip
    assert [line for line in again if line.startswith("warning")] == warnings[1:2]


# ---------------------------------------------------------------- phantoms and real DICOM


def test_phantoms_from_the_command_line_need_no_archive(tmp_path) -> None:
    out = tmp_path / "prepared"
    arguments = ["prepare", "--phantom", "1", str(out), "--seed", "7", "--size", "96",
                 "--input-size", "64", "--processes", "1"]  # fmt: skip
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    slices = load_slice_set(out)
    assert sorted(set(slices.case_ids)) == [
        f"PHANTOM-{word}-0007" for word in ("ASS", "DMRP", "IPF", "NORMAL")
    ]
    assert f"{len(slices)} slices of 4 cases" in done.output
    expected = prepare(
        phantom_sources(1, 7, 96)[:1], tmp_path / "one", METHOD, n_processes=1, show_progress=False
    )
    rows = slices.rows_of(["PHANTOM-ASS-0007"])
    np.testing.assert_array_equal(slices.images[rows], expected.images)
    assert slices.patient_keys["PHANTOM-ASS-0007"] == ()
    for wrong in (["prepare", str(out)], ["prepare", "--phantom", "1", "a.csv", str(out)]):
        assert CliRunner().invoke(main, wrong).exit_code == 2


@pytest.mark.parametrize("name", ["tcga_luad", "covid19_ny_sbu", "lung_pet_ct_dx", "crlm"])
def test_every_real_file_is_used_or_listed(shared_data, tmp_path, name) -> None:
    from ildsdk.dicom import discover

    folder = shared_data / "dicom" / name
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    case_of: dict[str | None, str] = {}
    rows = []
    for file in files:
        studies = discover(file, every_mm=0).studies
        patient = studies[0].patient_hash if studies else None
        rows.append((file, case_of.setdefault(patient, f"case {len(case_of)}"), "unknown"))
    table = tmp_path / "cases.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "case_id", "label"), *rows])
    out = tmp_path / "prepared"
    slices = prepare(
        archive_sources(table, every_mm=0), out, METHOD, n_processes=1, show_progress=False
    )
    with (out / "skipped.csv").open() as stream:
        skipped = list(csv.DictReader(stream))
    assert all(row["name"] and row["reason"] and row["detail"] for row in skipped)
    assert len(slices) + len(skipped) == len(files)
    assert len(slices) > len(files) / 3
    cases_used = set(slices.case_ids)
    keys = {slices.patient_keys[case] for case in cases_used}
    assert len(keys) == len(cases_used)
    assert all(len(key) == 1 for key in keys)


def test_one_real_patient_under_two_case_ids_is_a_leak(shared_data, tmp_path) -> None:
    from export.leaks import LeakError, check_folds

    folder = shared_data / "dicom" / "tcga_luad"
    table = tmp_path / "cases.csv"
    names = ("ID_0003", "ID_0006", "ID_0000", "ID_0001")
    rows = [(folder / f"{name}.dcm", name, "unknown") for name in names]
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "case_id", "label"), *rows])
    slices = prepare(
        archive_sources(table), tmp_path / "out", METHOD, n_processes=1, show_progress=False
    )
    with pytest.raises(LeakError) as caught:
        check_folds(slices, [["ID_0003", "ID_0000"], ["ID_0006", "ID_0001"]])
    report = caught.value.report
    assert report.shared_patients == report.shared_studies == (("ID_0003", "ID_0006"),)
    assert [(pair.case_a, pair.case_b) for pair in report.near_duplicates] == [
        ("ID_0003", "ID_0006")
    ]
    assert check_folds(slices, [["ID_0003", "ID_0006"], ["ID_0000", "ID_0001"]]).is_clean
