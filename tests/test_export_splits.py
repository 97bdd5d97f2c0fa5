"""Folds by case: balanced, each case tested once, the same in any order, kept in a file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from export.splits import fold_cases, read_folds, write_folds
from ildsdk.errors import ConfigError


def archive(n_cases: dict[str, int], n_slices: int = 3) -> tuple[list[str], list[str]]:
    """Case id and label of each slice."""
    pairs = [
        (f"{label}-{number:02d}", label)
        for label, count in n_cases.items()
        for number in range(count)
        for _ in range(n_slices)
    ]
    return [case for case, _ in pairs], [label for _, label in pairs]


PAPER = {"ASS-ILD": 20, "IPF-ILD": 20, "DM/RP-ILD": 20, "Normal": 20}


def test_papers_shape_is_sixteen_to_four_in_each_class() -> None:
    cases, labels = archive(PAPER)
    folds = fold_cases(cases, labels)
    assert len(folds) == 5
    for fold in folds:
        assert [sum(case.startswith(label) for case in fold) for label in PAPER] == [4] * 4
    tested = [case for fold in folds for case in fold]
    assert sorted(tested) == sorted(set(cases))


def test_same_folds_in_any_slice_order_and_others_for_another_seed() -> None:
    cases, labels = archive(PAPER)
    folds = fold_cases(cases, labels, seed=3)
    order = np.random.default_rng(0).permutation(len(cases))
    assert fold_cases([cases[i] for i in order], [labels[i] for i in order], seed=3) == folds
    assert fold_cases(sorted(set(cases)), [c.rsplit("-", 1)[0] for c in sorted(set(cases))],
                      seed=3) == folds  # fmt: skip
    assert fold_cases(cases, labels, seed=4) != folds


def test_uneven_classes_are_spread() -> None:
    cases, labels = archive({"A": 6, "B": 7, "C": 9})
    folds = fold_cases(cases, labels, n_folds=5)
    assert sorted(case for fold in folds for case in fold) == sorted(set(cases))
    for label in "ABC":
        counts = [sum(case.startswith(label) for case in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1
        assert min(counts) >= 1
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="two diagnoses"):
        fold_cases(["a", "a"], ["X", "Y"], n_folds=2)
    with pytest.raises(ConfigError, match="class 'B' has 4 cases, expected 5 or more"):
        fold_cases(*archive({"A": 5, "B": 4}))
    with pytest.raises(ConfigError, match="n_folds is 1"):
        fold_cases(*archive(PAPER), n_folds=1)
    with pytest.raises(ValueError, match="zip"):
        fold_cases(["a", "b"], ["X"])


def test_folds_come_back_from_their_file(tmp_path) -> None:
    folds = [["a/1", "ü 2"], ["c"]]
    path = tmp_path / "folds.json"
    write_folds(path, folds)
    assert read_folds(path) == folds
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "schema": "export.folds/1",
        "folds": [{"test_cases": ["a/1", "ü 2"]}, {"test_cases": ["c"]}],
    }
    assert [p.name for p in tmp_path.iterdir()] == ["folds.json"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"schema": "export.folds/2", "folds": []}, "schema 'export.folds/2'"),
        ([], "schema None"),
        ({"schema": "export.folds/1", "folds": [{"cases": []}]}, "not of the form"),
        ({"schema": "export.folds/1", "folds": [{"test_cases": []}]}, "names no test cases"),
        ({"schema": "export.folds/1", "folds": [{"test_cases": ["a"]}]}, "1 folds"),
        (
            {"schema": "export.folds/1", "folds": [{"test_cases": ["a"]}, {"test_cases": ["a"]}]},
            "'a' is tested in fold 0 and again in fold 1",
        ),
        ({"schema": "export.folds/1", "folds": [{"test_cases": ["a", "a"]}]}, "tested in fold 0"),
    ],
)
def test_wrong_files_are_refused(tmp_path, record, message) -> None:
    path = tmp_path / "folds.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=message):
        read_folds(path)


def test_missing_and_broken_files_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_folds(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"schema": ')
    with pytest.raises(ConfigError, match="cannot be read"):
        read_folds(tmp_path / "half.json")
