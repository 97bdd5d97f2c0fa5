"""The regression suite finds a slowdown, does not find noise, and refuses what it cannot read."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.acceptance import COLD_GROUP, SLICE_GROUP, acceptance
from benchmarks.acceptance import main as acceptance_main
from benchmarks.compare import compare, main
from benchmarks.noise import level_of
from benchmarks.results import Results, ResultsError, read_results, rival_of
from tests.bench_results_factory import ALONE_GROUP, document, write


def read(tmp_path: Path, **given: object) -> Results:
    return read_results(write(tmp_path / "made.json", document(**given)))  # type: ignore[arg-type]


def verdict(tmp_path: Path, old: Results, new: Results, group: str) -> str:
    (change,) = [change for change in compare(old, new).changes if change.group == group]
    return change.verdict


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_a_planted_slowdown_is_found(tmp_path: Path, noise: float) -> None:
    old = read(tmp_path, seed=1, noise=noise)
    new = read(tmp_path, seed=2, noise=noise, ours_slice=0.025 * 1.5)
    found = compare(old, new).regressions
    assert [(change.group, change.name) for change in found] == [(SLICE_GROUP, "ildsdk fp32")]
    assert found[0].new / found[0].old == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_noise_is_no_slowdown(tmp_path: Path, noise: float) -> None:
    runs = [read(tmp_path, seed=seed, noise=noise) for seed in range(8)]
    n_slower = sum(len(compare(old, new).regressions) for old in runs for new in runs)
    assert n_slower == 0


def test_a_busy_machine_makes_unsure(tmp_path: Path) -> None:
    old = read(tmp_path, seed=1)
    made = document(seed=2, ours_slice=0.025 * 1.5)
    for one in made["benchmarks"]:
        one["extra_info"]["busy_elsewhere"] = 0.3
    new = read_results(write(tmp_path / "new.json", made))
    assert verdict(tmp_path, old, new, SLICE_GROUP) == "unsure"
    assert compare(old, new).regressions == ()


def test_noise_hides_what_it_must(tmp_path: Path) -> None:
    old = read(tmp_path, seed=1, noise=0.5)
    new = read(tmp_path, seed=2, noise=0.5, ours_slice=0.025 * 1.2)
    assert verdict(tmp_path, old, new, SLICE_GROUP) == "same"


def test_small_changes_are_nobodys_concern(tmp_path: Path) -> None:
    old = read(tmp_path, seed=1, noise=0.001)
    new = read(tmp_path, seed=2, noise=0.001, ours_slice=0.025 * 1.03)
    assert compare(old, new).regressions == ()
    assert compare(old, new, least_change=1.01).regressions != ()


def test_faster_is_said_too(tmp_path: Path) -> None:
    old, new = read(tmp_path, seed=1), read(tmp_path, seed=2, ours_slice=0.025 / 1.5)
    assert verdict(tmp_path, old, new, SLICE_GROUP) == "faster"


def test_another_machine_compares_ratios_only(tmp_path: Path) -> None:
    old = read(tmp_path, seed=1)
    new = read(tmp_path, seed=2, machine_factor=3.0, cpu="Another CPU")
    found = compare(old, new)
    assert found.regressions == ()
    assert f"{ALONE_GROUP}: fast" in found.not_comparable
    assert {c.against for c in found.changes} == {
        "reference stack",
        "network alone, fp32",
        "memory",
    }
    assert any("different machines" in remark for remark in found.remarks)
    slower = read(tmp_path, seed=2, machine_factor=3.0, cpu="Another CPU", ours_slice=0.04)
    assert [c.group for c in compare(old, slower).regressions] == [SLICE_GROUP]


def test_the_same_machine_compares_seconds_where_nobody_competes(tmp_path: Path) -> None:
    old = read(tmp_path, seed=1)
    made = document(seed=2)
    made["benchmarks"][-1]["stats"]["data"] = [
        1.5 * seconds for seconds in made["benchmarks"][-1]["stats"]["data"]
    ]
    new = read_results(write(tmp_path / "new.json", made))
    assert [c.group for c in compare(old, new).regressions] == [ALONE_GROUP]


def test_memory_that_grew_is_found_on_any_machine(tmp_path: Path) -> None:
    old = read(tmp_path, seed=1)
    new = read(tmp_path, seed=2, peak_mb=600.0, cpu="Another CPU")
    assert {c.against for c in compare(old, new).regressions} == {"memory"}


def test_missing_groups_contenders_and_rivals_are_named(tmp_path: Path) -> None:
    old = read(tmp_path, seed=1)
    made = document(seed=2)
    made["benchmarks"] = [
        one for one in made["benchmarks"]
        if one["group"] != ALONE_GROUP
        and (one["group"], one["name"]) != (COLD_GROUP, "reference stack")
        and (one["group"], one["name"]) != (SLICE_GROUP, "ildsdk fp32")
    ]  # fmt: skip
    new = read_results(write(tmp_path / "new.json", made))
    assert set(compare(old, new).missing) == {
        ALONE_GROUP,
        f"{COLD_GROUP}: rival reference stack",
        f"{SLICE_GROUP}: ildsdk fp32",
    }
    assert compare(new, old).added == (ALONE_GROUP,)


def test_another_version_of_the_rival_is_remarked(tmp_path: Path) -> None:
    made = document(seed=2)
    made["machine_info"]["ildsdk"]["versions"]["torch"] = "3.0"
    new = read_results(write(tmp_path / "new.json", made))
    assert any("torch" in remark for remark in compare(read(tmp_path), new).remarks)


def test_the_fastest_rival_counts(tmp_path: Path) -> None:
    made = document()
    second = copy.deepcopy(made["benchmarks"][1])
    second["name"], second["stats"]["data"] = "two processes", [0.1] * 30
    made["benchmarks"].append(second)
    results = read_results(write(tmp_path / "made.json", made))
    found = rival_of(results.groups()[SLICE_GROUP])
    assert found is not None
    assert found.name == "two processes"


def test_a_drift_that_hits_both_cancels() -> None:
    slow_half = [1.0] * 15 + [2.0] * 15
    ours = tuple(0.1 * s * (1 + 0.01 * (i % 3)) for i, s in enumerate(slow_half))
    theirs = tuple(1.0 * s for s in slow_half)
    assert level_of(ours, theirs).noise < 0.05 < level_of(ours).noise


def test_one_round_has_no_known_noise() -> None:
    assert level_of((1.0,), (2.0,)).noise == float("inf")


BROKEN = {
    "no json": "{",
    "no machine": '{"benchmarks": []}',
    "no cpu": '{"machine_info": {"ildsdk": {}}, "benchmarks": [], "datetime": ""}',
    "a list": "[]",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(tmp_path: Path, name: str) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(BROKEN[name])
    with pytest.raises(ResultsError, match=r"broken\.json"):
        read_results(broken)
    good = write(tmp_path / "good.json", document())
    done = CliRunner().invoke(main, [str(good), str(broken)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "broken.json" in done.stderr


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stats", {"data": []}),
        ("stats", {"data": [0.1, "x"]}),
        ("stats", {"data": [0.1, float("nan")]}),
        ("stats", {"data": [0.1, -1]}),
        ("stats", {}),
        ("extra_info", {"role": "judge"}),
        ("extra_info", None),
        ("name", "ildsdk fp32"),
    ],
)
def test_a_broken_entry_is_refused(tmp_path: Path, field: str, value: object) -> None:
    made = document()
    made["benchmarks"][1][field] = value
    with pytest.raises(ResultsError, match=r"made\.json"):
        read_results(write(tmp_path / "made.json", made))


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"absent\.json cannot be read"):
        read_results(tmp_path / "absent.json")


def test_exit_status(tmp_path: Path) -> None:
    paths = {
        name: str(write(tmp_path / f"{name}.json", document(seed=seed, ours_slice=seconds)))
        for name, seed, seconds in (("old", 1, 0.025), ("same", 2, 0.025), ("slow", 3, 0.04))
    }
    same = CliRunner().invoke(main, [paths["old"], paths["same"]])
    slow = CliRunner().invoke(main, [paths["old"], paths["slow"]])
    assert (same.exit_code, slow.exit_code) == (0, 1), same.output + slow.output
    assert "1 slower beyond the noise" in slow.output
    fewer = document(seed=2)
    fewer["benchmarks"] = [one for one in fewer["benchmarks"] if one["group"] != ALONE_GROUP]
    path = write(tmp_path / "fewer.json", fewer)
    done = CliRunner().invoke(main, [paths["old"], str(path)])
    assert done.exit_code == 1, "a figure that is not there any more is no success"


def test_acceptance_fails_where_a_figure_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "made.json", document(machine_factor=0.9))
    done = CliRunner().invoke(acceptance_main, [str(path)])
    assert "not in this file" in done.output
    assert "MISSED" not in done.output
    assert done.exit_code == 1


def test_acceptance_figures(tmp_path: Path) -> None:
    checks = {check.what: check for check in acceptance(read(tmp_path))}
    slice_ = checks["one slice, default settings, against the reference stack"]
    assert slice_.is_met is True
    assert slice_.found.startswith("1")
    slower = {check.what: check for check in acceptance(read(tmp_path, ours_slice=0.05))}
    assert slower[slice_.what].is_met is False
    assert checks["over the socket / in process"].found == "not in this file"
    assert checks["int8 network against the best engine measured"].is_met is None
    share = checks["300 slices from files, share of the network alone"]
    assert share.is_met is True
    assert share.found.startswith("0.9")
    fat = {check.what: check for check in acceptance(read(tmp_path, peak_mb=800.0))}
    assert fat["peak memory, 300 slices"].is_met is False
    assert fat["peak memory, 600 slices / 300"].is_met is True


def test_file_is_plain_json_that_reads_back(tmp_path: Path) -> None:
    from benchmarks.suite import as_lines, condensed

    made = document()
    made["benchmarks"][0]["stats"]["data"] *= 50
    text = as_lines(condensed(copy.deepcopy(made)))
    back = json.loads(text)
    assert len(back["benchmarks"][0]["stats"]["data"]) <= 200
    assert back["machine_info"] == made["machine_info"]
    path = tmp_path / "condensed.json"
    path.write_text(text)
    assert len(read_results(path).entries) == len(made["benchmarks"])
